"""What happened, newest first: rollouts, what the cluster says of instances, alerts, GPUs; equal things together."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from deployments.models import DeploymentVersion, GpuClaim, GpuClaimEvent, InstanceEvent, Rollout
from deployments.views.gate import Tenant, in_project
from deployments.views.render import Crumb, respond
from deployments.views.status import CLAIMS, ROLLOUTS
from deployments.views.versions import frame, named
from monitoring.models import Alert

READ = 300
SHOWN = 100
KINDS = (
    ("", "Everything"),
    ("warning", "Warnings"),
    ("rollout", "Rollouts"),
    ("instance", "Instances"),
    ("alert", "Alerts"),
    ("gpu", "GPUs"),
)
RANGES = {
    "1h": dt.timedelta(hours=1),
    "24h": dt.timedelta(days=1),
    "7d": dt.timedelta(days=7),
    "30d": dt.timedelta(days=30),
}
USUAL = "7d"
# Nearer ones of the same reason and version are one entry.
TOGETHER = dt.timedelta(minutes=10)


@dataclass
class Happening:
    """One entry; ``who`` are the instances it is about and ``tone`` and ``icon`` as of a status."""

    kind: str
    tone: str
    icon: str
    title: str
    text: str
    last: dt.datetime
    first: dt.datetime
    where: str = ""
    url: str = ""
    times: int = 1
    who: list[str] = field(default_factory=list)


@in_project()
@require_GET
def version_events(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    context = {
        **frame(tenant, found, "events"),
        **_told(request, Q(version=found)),
        "topic": f"version:{found.pk}",
    }
    return respond(request, "monitoring/version_events.html", context, partial="monitoring/_events.html")


@in_project()
@require_GET
def project_events(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """Of all deployments of the project."""
    context = {
        "title": "Events",
        "tenant": tenant,
        "section": "events",
        "crumbs": [Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])), Crumb("Events")],
        **_told(request, Q(version__deployment__project=tenant.project)),
        "topic": f"project:{tenant.project.pk}",
    }
    return respond(request, "monitoring/project_events.html", context, partial="monitoring/_events.html")


def _told(request: HttpRequest, within: Q) -> dict[str, Any]:
    kind = request.GET.get("kind", "")
    kind = kind if kind in dict(KINDS) else ""
    span = request.GET.get("range", USUAL)
    span = span if span in RANGES else USUAL
    since = timezone.now() - RANGES[span]
    found = [one for one in _all(within, since) if kind in ("", one.kind) or (kind == "warning" and _warns(one))]
    found.sort(key=lambda one: one.last, reverse=True)
    return {
        "happenings": found[:SHOWN],
        "kinds": KINDS,
        "kind": kind,
        "ranges": (("1h", "Last hour"), ("24h", "Last day"), ("7d", "Last 7 days"), ("30d", "Last 30 days")),
        "range": span,
        "more": len(found) > SHOWN,
        "live_url": request.get_full_path(),
    }


def _warns(one: Happening) -> bool:
    return one.tone in ("bad", "warn")


def _all(within: Q, since: dt.datetime) -> list[Happening]:
    rollouts = Rollout.objects.filter(within, queued_at__gte=since)
    alerts = Alert.objects.filter(within, since__gte=since, changes__gt=0)
    inside = Q(**{f"instance__{name}": value for name, value in within.children})  # type: ignore[misc]
    events = InstanceEvent.objects.filter(inside, time_last_seen__gte=since)
    claims = GpuClaimEvent.objects.filter(within, created_at__gte=since)
    return [*_rollouts(rollouts), *_events(events), *_alerts(alerts), *_claims(claims)]


def _rollouts(rows: QuerySet[Rollout]) -> Iterable[Happening]:
    chosen = rows.select_related("version__deployment__project", "to_revision", "created_by").order_by("-queued_at")
    for row in chosen[:READ]:
        state = ROLLOUTS[Rollout.State(row.state)]
        by = f" by {row.created_by}" if row.created_by else ""
        yield Happening(
            "rollout",
            state.tone,
            state.icon,
            f"Rollout of revision {row.to_revision.number}: {state.label.lower()}",
            row.reason_message or f"{row.get_cause_display()}{by}",
            row.finished_at or row.queued_at,
            row.queued_at,
            str(row.version),
            _url("version-rollout", row.version, row.pk),
        )


def _events(rows: QuerySet[InstanceEvent]) -> list[Happening]:
    chosen = rows.select_related("instance__version__deployment__project").order_by("-time_last_seen")[:READ]
    groups: dict[tuple[Any, ...], list[Happening]] = {}
    found = []
    for row in chosen:
        warning = row.kind == "Warning"
        same = groups.setdefault((row.instance.version_id, row.kind, row.reason), [])
        group = same[-1] if same and same[-1].first - row.time_last_seen < TOGETHER else None
        if group is None:
            version = row.instance.version
            group = Happening(
                "instance",
                "warn" if warning else "idle",
                "alert" if warning else "info",
                row.reason,
                row.description,
                row.time_last_seen,
                row.time_created,
                str(version),
                _url("version-logs", version),
                0,
            )
            same.append(group)
            found.append(group)
        group.times += row.count
        group.first = min(group.first, row.time_created)
        if row.instance.pod_name not in group.who:
            group.who.append(row.instance.pod_name)
    return found


def _alerts(rows: QuerySet[Alert]) -> Iterable[Happening]:
    for row in rows.select_related("rule", "version__deployment__project").order_by("-since")[:READ]:
        firing = row.state == Alert.State.FIRING
        yield Happening(
            "alert",
            "bad" if firing else "good",
            "bell",
            f"Alert {row.rule.name} {'fires' if firing else 'is over'}",
            row.message,
            row.since,
            row.since,
            str(row.version),
            _url("version-metrics", row.version),
        )


def _claims(rows: QuerySet[GpuClaimEvent]) -> Iterable[Happening]:
    for row in rows.select_related("version__deployment__project").order_by("-created_at")[:READ]:
        if row.version is None:
            continue
        state = CLAIMS[GpuClaim.State(row.state)]
        yield Happening(
            "gpu",
            state.tone,
            state.icon,
            f"GPUs: {state.label.lower()}",
            row.message,
            row.created_at,
            row.created_at,
            str(row.version),
            reverse("gpus", args=[row.version.deployment.project.name]),
        )


def _url(route: str, version: DeploymentVersion, *more: Any) -> str:
    return reverse(route, args=[version.deployment.project.name, version.deployment.name, version.version, *more])
