"""Deployments and their versions."""

from django.db.models import OuterRef, QuerySet, Subquery
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, labels_filter, parse, part, rows
from deployments.api.paging import PART
from deployments.api.serializers.deployments import (
    DeploymentInput,
    DeploymentOutput,
    DeploymentUpdate,
    RolloutOutput,
    VersionInput,
    VersionOutput,
)
from deployments.models import DeploymentVersion, Revision
from deployments.services import deployments, revisions

LABELS = OpenApiParameter("labels", description="key:value, several separated by commas")


class DeploymentsView(ApiView):
    @extend_schema(
        operation_id="deployments_list",
        tags=["deployments"],
        parameters=[LABELS, OpenApiParameter("supports_request_format", bool), *PART],
        responses=DeploymentOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = self.project().deployments.select_related("project", "default_version")
        found = labels_filter(found, request.query_params.get("labels"))
        wanted = request.query_params.get("supports_request_format", "").lower()
        if wanted not in ("", "true", "false"):
            raise Invalid(supports_request_format=f"'{wanted}' is neither true nor false")
        if wanted:
            found = found.filter(supports_request_format=wanted == "true")
        return Response(rows(DeploymentOutput, part(request, found)))

    @extend_schema(
        operation_id="deployments_create",
        tags=["deployments"],
        request=DeploymentInput,
        responses={201: DeploymentOutput},
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        made = deployments.create_deployment(self.actor, project, **parse(DeploymentInput, request))
        return Response(DeploymentOutput(made).data, status=status.HTTP_201_CREATED)


class DeploymentView(ApiView):
    @extend_schema(operation_id="deployments_get", tags=["deployments"], responses=DeploymentOutput)
    def get(self, request: Request, project_name: str, deployment_name: str) -> Response:
        return Response(DeploymentOutput(self.deployment()).data)

    @extend_schema(
        operation_id="deployments_update",
        tags=["deployments"],
        request=DeploymentUpdate,
        responses=DeploymentOutput,
    )
    def patch(self, request: Request, project_name: str, deployment_name: str) -> Response:
        deployment = self.deployment(Permission.PROJECT_EDIT)
        changed = deployments.update_deployment(self.actor, deployment, **parse(DeploymentUpdate, request))
        return Response(DeploymentOutput(changed).data)

    @extend_schema(operation_id="deployments_delete", tags=["deployments"], responses={204: None})
    def delete(self, request: Request, project_name: str, deployment_name: str) -> Response:
        deployments.delete_deployment(self.actor, self.deployment(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _with_latest(versions: QuerySet[DeploymentVersion]) -> QuerySet[DeploymentVersion]:
    """One query for a list, whatever its length."""
    latest = Revision.objects.filter(version=OuterRef("pk")).order_by("-number")
    return versions.select_related(
        "deployment", "environment", "instance_type", "instance_type_group", "target_revision"
    ).annotate(
        latest_revision_id=Subquery(latest.values("pk")[:1]),
        latest_upload=Subquery(latest.values("creation_date")[:1]),
    )


class VersionsView(ApiView):
    @extend_schema(
        operation_id="deployment_versions_list",
        tags=["deployment versions"],
        parameters=[LABELS, *PART],
        responses=VersionOutput(many=True),
    )
    def get(self, request: Request, project_name: str, deployment_name: str) -> Response:
        found = labels_filter(self.deployment().versions.all(), request.query_params.get("labels"))
        return Response(rows(VersionOutput, part(request, _with_latest(found))))

    @extend_schema(
        operation_id="deployment_versions_create",
        tags=["deployment versions"],
        request=VersionInput,
        responses={201: VersionOutput},
    )
    def post(self, request: Request, project_name: str, deployment_name: str) -> Response:
        deployment = self.deployment(Permission.PROJECT_EDIT)
        made = deployments.create_version(self.actor, deployment, **parse(VersionInput, request))
        return Response(VersionOutput(made).data, status=status.HTTP_201_CREATED)


class VersionView(ApiView):
    @extend_schema(operation_id="deployment_versions_get", tags=["deployment versions"], responses=VersionOutput)
    def get(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        return Response(VersionOutput(self.version()).data)

    @extend_schema(
        operation_id="deployment_versions_update",
        tags=["deployment versions"],
        request=VersionInput,
        responses=VersionOutput,
    )
    def patch(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        found = self.version(Permission.PROJECT_EDIT)
        changed = deployments.update_version(self.actor, found, **parse(VersionInput, request))
        return Response(VersionOutput(changed).data)

    @extend_schema(operation_id="deployment_versions_delete", tags=["deployment versions"], responses={204: None})
    def delete(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        deployments.delete_version(self.actor, self.version(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


class RestartView(ApiView):
    permission = Permission.PROJECT_EDIT

    @extend_schema(
        operation_id="deployment_versions_restart",
        tags=["deployment versions"],
        request=None,
        responses={202: RolloutOutput},
        description="New instances of the same revision, one after the other.",
    )
    def post(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        rollout = revisions.restart(self.actor, self.version())
        return Response(RolloutOutput(rollout).data if rollout else None, status=status.HTTP_202_ACCEPTED)
