"""Base environments, their tags, and instance types."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import Invalid, NotFound
from deployments.api.base import ApiView, labels_filter, page, rows
from deployments.api.paging import paginated
from deployments.api.serializers.environments import EnvironmentOutput, EnvironmentTagOutput, InstanceTypeOutput
from deployments.models import InstanceType
from deployments.services import lookup


class EnvironmentsView(ApiView):
    @extend_schema(
        operation_id="environments_list",
        tags=["environments"],
        parameters=[
            OpenApiParameter("labels", description="key:value, several separated by commas"),
            OpenApiParameter("system", bool, description="true: base environments only; false: the project's own only"),
        ],
        responses=EnvironmentOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = lookup.environments_of(self.actor, self.project()).select_related("project", "base")
        found = labels_filter(found, request.query_params.get("labels"))
        system = request.query_params.get("system", "").lower()
        if system not in ("", "true", "false"):
            raise Invalid(system=f"'{system}' is neither true nor false")
        if system:
            found = found.filter(project__isnull=system == "true")
        return Response(rows(EnvironmentOutput, found))


class EnvironmentView(ApiView):
    @extend_schema(operation_id="environments_get", tags=["environments"], responses=EnvironmentOutput)
    def get(self, request: Request, project_name: str, environment_name: str) -> Response:
        found = lookup.get_environment(self.actor, self.project(), environment_name)
        return Response(EnvironmentOutput(found).data)


class EnvironmentTagsView(ApiView):
    @extend_schema(
        operation_id="environment_tags_list", tags=["environments"], responses=EnvironmentTagOutput(many=True)
    )
    def get(self, request: Request, project_name: str, environment_name: str) -> Response:
        found = lookup.get_environment(self.actor, self.project(), environment_name)
        return Response(rows(EnvironmentTagOutput, found.tags.select_related("environment")))


class EnvironmentTagView(ApiView):
    @extend_schema(operation_id="environment_tags_get", tags=["environments"], responses=EnvironmentTagOutput)
    def get(self, request: Request, project_name: str, environment_name: str, tag_name: str) -> Response:
        found = lookup.get_environment(self.actor, self.project(), environment_name)
        tag = found.tags.select_related("environment").filter(name=tag_name).first()
        if tag is None:
            raise NotFound("Environment tag", tag_name)
        return Response(EnvironmentTagOutput(tag).data)


class InstanceTypesView(ApiView):
    @extend_schema(
        operation_id="instance_types_list", tags=["instance types"], **paginated("InstanceTypes", InstanceTypeOutput)
    )
    def get(self, request: Request, project_name: str) -> Response:
        self.project()
        return Response(page(request, InstanceType.objects.filter(enabled=True), InstanceTypeOutput))
