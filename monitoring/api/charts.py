"""Numbers over time for charts, in columns."""

import uuid

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import Invalid
from deployments.api.base import ApiView
from monitoring.api.serializers import ChartOutput
from monitoring.api.times import RANGES, span
from monitoring.metrics import query
from monitoring.metrics.cells import Scope

PARAMETERS = [
    OpenApiParameter("range", description=f"up to now: {', '.join(RANGES)}"),
    OpenApiParameter("start", description="ISO 8601, in place of range"),
    OpenApiParameter("end", description="ISO 8601; now without it"),
]
ABOUT = (
    "Rates a second (requests, errors), shares of 1 (error_rate, gpu_use), seconds (p50, p95, p99, mean, queue_age, "
    "cold_start_seconds, cold_start_p50, cold_start_p95), counts (restarts, cold_starts), averages (in_flight, queue, "
    "instances, accelerators, cpu in cores, memory and gpu_memory in bytes), and rollouts as markers. Null "
    "without a reading, and of GPUs that nobody measures."
)


class DeploymentMetricsView(ApiView):
    @extend_schema(
        operation_id="deployment_metrics_get",
        tags=["metrics"],
        parameters=PARAMETERS,
        responses=ChartOutput,
        description=f"All versions of a deployment together. {ABOUT}",
    )
    def get(self, request: Request, project_name: str, deployment_name: str) -> Response:
        deployment, now = self.deployment(), timezone.now()
        scope = Scope(tuple(deployment.versions.values_list("pk", flat=True)))
        return Response(query.series(scope, *span(request, now), now))


class VersionMetricsView(ApiView):
    @extend_schema(
        operation_id="deployment_version_metrics_get",
        tags=["metrics"],
        parameters=[*PARAMETERS, OpenApiParameter("instance", description="id of one instance; all without it")],
        responses=ChartOutput,
        description=f"One version, or one of its instances. {ABOUT}",
    )
    def get(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        row, now = self.version(), timezone.now()
        instance = None
        if text := request.query_params.get("instance"):
            try:
                instance = uuid.UUID(text)
            except ValueError:
                raise Invalid(instance=f"'{text[:60]}' is not the id of an instance") from None
        return Response(query.series(Scope((row.pk,), instance), *span(request, now), now))
