"""Projects and what they use."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import access
from accounts.access import Permission
from deployments.api.base import ApiView, actor_of, labels_filter, parse, rows
from deployments.api.serializers.accounts import ProjectInput, ProjectOutput, ProjectUpdate, ResourceUsageOutput
from deployments.services import projects


class ProjectsView(APIView):
    @extend_schema(
        operation_id="projects_list",
        tags=["projects"],
        parameters=[
            OpenApiParameter("organization", description="name of an organization"),
            OpenApiParameter("labels", description="key:value, several separated by commas"),
        ],
        responses=ProjectOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        found = access.projects_of(request.user).select_related("organization")
        found = labels_filter(found, request.query_params.get("labels"))
        if name := request.query_params.get("organization"):
            found = found.filter(organization__name=name)
        return Response(rows(ProjectOutput, found))

    @extend_schema(
        operation_id="projects_create", tags=["projects"], request=ProjectInput, responses={201: ProjectOutput}
    )
    def post(self, request: Request) -> Response:
        body = parse(ProjectInput, request)
        organization = access.get_organization(request.user, body.pop("organization_name"))
        made = projects.create_project(actor_of(request), organization, **body)
        return Response(ProjectOutput(made).data, status=status.HTTP_201_CREATED)


class ProjectView(ApiView):
    @extend_schema(operation_id="projects_get", tags=["projects"], responses=ProjectOutput)
    def get(self, request: Request, project_name: str) -> Response:
        return Response(ProjectOutput(self.project()).data)

    @extend_schema(operation_id="projects_update", tags=["projects"], request=ProjectUpdate, responses=ProjectOutput)
    def patch(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_ADMIN)
        changed = projects.update_project(self.actor, project, **parse(ProjectUpdate, request))
        return Response(ProjectOutput(changed).data)

    @extend_schema(operation_id="projects_delete", tags=["projects"], responses={204: None})
    def delete(self, request: Request, project_name: str) -> Response:
        projects.delete_project(self.actor, self.project(Permission.PROJECT_ADMIN))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ResourceUsageView(ApiView):
    @extend_schema(operation_id="projects_resource_usage", tags=["projects"], responses=ResourceUsageOutput)
    def get(self, request: Request, project_name: str) -> Response:
        return Response(ResourceUsageOutput(projects.resource_usage(self.actor, self.project())).data)
