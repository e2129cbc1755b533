"""The rollouts of a version, and one of them with its instances on an axis of time."""

import uuid
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts.errors import NotFound
from deployments.models import DeploymentVersion, Rollout
from deployments.services import cold_starts
from deployments.views import rollouts, timelines
from deployments.views.gate import Tenant, in_project
from deployments.views.render import Crumb, respond
from deployments.views.versions import address, frame, named

PAGE_SIZE = 30
INSTANCES_SHOWN = 60


@in_project()
@require_GET
def rollout_list(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """All rollouts, newest first, and how long starts took by day."""
    found = named(request, tenant, deployment, version)
    rows = found.rollouts.select_related("to_revision", "from_revision", "created_by")
    days = cold_starts.by_day(found)
    slowest = max((day.p95 for day in days), default=0) or 1
    context = {
        **frame(tenant, found, "revisions"),
        "page": Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page")),
        "days": [(day, day.p50 / slowest * 100, (day.p95 - day.p50) / slowest * 100) for day in days],
        "live_url": request.get_full_path(),
    }
    context["title"] = f"Rollouts · {found.deployment.name}"
    context["crumbs"][-1] = Crumb("Rollouts")
    return respond(request, "deployments/rollouts.html", context, partial="deployments/_status_part.html")


@in_project()
@require_GET
def rollout_detail(
    request: HttpRequest, tenant: Tenant, deployment: str, version: str, rollout_id: uuid.UUID
) -> HttpResponse:
    """Steps, deadline and reason, and old and new instances side by side."""
    found = named(request, tenant, deployment, version)
    row = (
        found.rollouts.select_related("to_revision__environment_build", "from_revision", "created_by")
        .filter(pk=rollout_id)
        .first()
    )
    if row is None:
        raise NotFound("Rollout", str(rollout_id))
    context = {**frame(tenant, found, "revisions"), **_told(found, row), "live_url": request.get_full_path()}
    context["title"] = f"Rollout of revision {row.to_revision.number} · {found.deployment.name}"
    context["crumbs"][-1] = Crumb("Rollouts", address("version-rollouts", found))
    context["crumbs"].append(Crumb(f"Revision {row.to_revision.number}"))
    return respond(request, "deployments/rollout.html", context, partial="deployments/_rollout_live.html")


def _told(version: DeploymentVersion, rollout: Rollout) -> dict[str, Any]:
    now = timezone.now()
    build = rollout.to_revision.environment_build
    end = rollout.finished_at or now
    instances = version.instances.filter(time_created__lte=end).exclude(deleted_at__lt=rollout.queued_at)
    instances = instances.select_related("revision").order_by("-time_created")[:INSTANCES_SHOWN]
    return {
        "rollout": rollout,
        "steps": rollouts.steps(rollout),
        "timeline": timelines.timeline(rollout, instances, build.started_at if build else None, now),
        "phases": timelines.PHASES,
    }
