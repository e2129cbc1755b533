"""The audit trail: who changed what in a project, or in one deployment."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import Q, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import AuditEvent
from deployments.api.base import MAX_PAGE, ApiView, integer, rows
from deployments.api.serializers.accounts import AuditOutput
from deployments.models import Deployment, EnvironmentVariable, Revision

F = TypeVar("F", bound=Callable[..., Any])

PARAMETERS = [
    OpenApiParameter("action", description="create, update, delete, deploy, rollback, restart, ..."),
    OpenApiParameter("limit", int, description=f"50 unless given; at most {MAX_PAGE}"),
    OpenApiParameter("offset", int, description="leave out this many first"),
]


def _documented(operation: str, about: str) -> Callable[[F], F]:
    return extend_schema(
        operation_id=operation,
        tags=["audit"],
        parameters=PARAMETERS,
        responses=AuditOutput(many=True),
        description=about,
    )


class AuditView(ApiView):
    permission = Permission.PROJECT_ADMIN

    @_documented("project_audit_events_list", "The newest first.")
    def get(self, request: Request, project_name: str) -> Response:
        return _answer(request, AuditEvent.objects.filter(project=self.project()))


class DeploymentAuditView(ApiView):
    permission = Permission.PROJECT_ADMIN

    @_documented(
        "deployment_audit_events_list",
        "Of the deployment, its versions, revisions and environment variables; the newest first.",
    )
    def get(self, request: Request, project_name: str, deployment_name: str) -> Response:
        deployment = self.deployment()
        return _answer(request, AuditEvent.objects.filter(_of(deployment), project=deployment.project))


def _of(deployment: Deployment) -> Q:
    versions = deployment.versions.values_list("pk", flat=True)
    variables = EnvironmentVariable.objects.filter(Q(deployment=deployment) | Q(version__in=versions))
    revisions = Revision.objects.filter(version__in=versions)
    ids = [
        deployment.pk,
        *versions,
        *(row for found in (variables, revisions) for row in found.values_list("pk", flat=True)),
    ]
    # What has been deleted is known by its name alone: "deployment/version" or "deployment/version r2".
    gone = Q(object_type__in=("deploymentversion", "revision"), object_name__startswith=f"{deployment.name}/")
    return Q(object_id__in=[str(pk) for pk in ids]) | gone


def _answer(request: Request, events: QuerySet[AuditEvent]) -> Response:
    if action := request.query_params.get("action"):
        events = events.filter(action=action)
    offset = integer(request, "offset", 0)
    limit = integer(request, "limit", 50, least=1, most=MAX_PAGE)
    return Response(rows(AuditOutput, events.order_by("-id")[offset : offset + limit]))
