"""Numbers over time: charts drawn from the REST API's columns, and the last hour in words for those without."""

import datetime as dt
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from deployments.models import DeploymentVersion
from deployments.views.gate import Tenant, in_project
from deployments.views.render import respond
from deployments.views.versions import frame, named
from monitoring.metrics import query
from monitoring.metrics.cells import Scope
from monitoring.metrics.prometheus import SourceUnavailable

RANGES = (
    ("5m", "5 minutes"), ("15m", "15 minutes"), ("1h", "1 hour"), ("6h", "6 hours"),
    ("24h", "1 day"), ("7d", "7 days"), ("30d", "30 days"),
)  # fmt: skip
USUAL = "1h"
INSTANCES_OFFERED = 50


@in_project()
@require_GET
def version_metrics(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    now = timezone.now()
    chosen = request.GET.get("range", USUAL)
    context = {
        **frame(tenant, found, "metrics"),
        "live_url": request.path,
        "ranges": RANGES,
        "chosen": chosen if chosen in dict(RANGES) else USUAL,
        "sources": _sources(found),
        **_last_hour(found, now),
    }
    return respond(request, "monitoring/metrics.html", context, partial="deployments/_status_part.html")


def _last_hour(version: DeploymentVersion, now: dt.datetime) -> dict[str, Any]:
    """The numbers in words, or why there are none now."""
    try:
        return {"last_hour": query.total(Scope((version.pk,)), now - dt.timedelta(hours=1), now, now).values()}
    except SourceUnavailable as error:
        return {"trouble": error.message}


def _sources(version: DeploymentVersion) -> dict[str, Any]:
    """Addresses of the numbers: of this version, all versions together, and each version and instance."""
    api = f"/api/v1/projects/{version.deployment.project.name}/deployments/{version.deployment.name}"
    rows = version.instances.order_by("-time_created").values_list("pk", "pod_name", "deleted_at")[:INSTANCES_OFFERED]
    names = version.deployment.versions.values_list("version", flat=True)
    one = f"{api}/versions/{version.version}/metrics"
    return {
        "version": one,
        "deployment": f"{api}/metrics",
        "versions": [{"label": name, "url": f"{api}/versions/{name}/metrics"} for name in names],
        "instances": [
            {"label": pod, "url": f"{one}?instance={key}", "gone": gone is not None} for key, pod, gone in rows
        ],
        "rollout": reverse(
            "version-rollouts", args=[version.deployment.project.name, version.deployment.name, version.version]
        ),
    }
