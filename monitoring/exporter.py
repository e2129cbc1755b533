"""What Prometheus reads of the platform itself, at ``/metrics``.

With ``PILOTHOUSE_METRICS_TOKEN`` for whoever sends it (``Authorization: Bearer ...``); without one for the loopback
only, and then not through a proxy, behind which everybody would come from the loopback.
"""

import hmac
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.authentication import secret_of
from deployments.models import DeploymentVersion, EnvironmentBuild, Instance, Request, Rollout
from monitoring.models import Alert, Delivery, InstanceCounters, LogSource, MetricSample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Series = Iterable[tuple[Mapping[str, Any], float]]


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    if not may_read(request):
        return HttpResponse(
            "Send the token of PILOTHOUSE_METRICS_TOKEN as a bearer token.\n", status=403, content_type="text/plain"
        )
    return HttpResponse("".join(lines()), content_type=CONTENT_TYPE)


def may_read(request: HttpRequest) -> bool:
    """Whether the request comes from whom the metrics are for."""
    if settings.PILOTHOUSE_METRICS_TOKEN:
        sent = secret_of(request.META.get("HTTP_AUTHORIZATION", "")) or ""
        return hmac.compare_digest(sent.encode(), settings.PILOTHOUSE_METRICS_TOKEN.encode())
    if settings.SECURE_PROXY_SSL_HEADER or request.META.get("HTTP_X_FORWARDED_FOR"):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def lines() -> Iterator[str]:
    """The text format, metric by metric."""
    for name, kind, about, series in _all():
        yield f"# HELP pilothouse_{name} {about}\n# TYPE pilothouse_{name} {kind}\n"
        for labels, value in series:
            told = ",".join(f'{key}="{_escape(str(text))}"' for key, text in labels.items())
            yield f"pilothouse_{name}{{{told}}} {value:.12g}\n" if told else f"pilothouse_{name} {value:.12g}\n"


def _all() -> Iterator[tuple[str, str, str, Series]]:
    now = timezone.now()
    versions: list[Any] = list(
        DeploymentVersion.objects.values(
            "id", "phase", "ready_instances", "desired_instances",
            project=F("deployment__project__name"), name=F("deployment__name"), number=F("version"),
        )
    )  # fmt: skip
    names = {
        row["id"]: {"project": row["project"], "deployment": row["name"], "version": row["number"]} for row in versions
    }
    yield (
        "version_phase", "gauge", "1 for the phase that a deployment version is in.",
        [({**names[row["id"]], "phase": row["phase"]}, 1) for row in versions],
    )  # fmt: skip
    for name, column, about in (
        ("version_ready_instances", "ready_instances", "Instances that are ready."),
        ("version_wanted_instances", "desired_instances", "Instances that are wanted."),
    ):
        yield name, "gauge", about, [(names[row["id"]], row[column]) for row in versions]
    yield from _requests(names)
    waiting = Request.objects.filter(batch=True, status=Request.Status.PENDING).values("version").order_by()
    queue = list(waiting.annotate(count=Count("id"), oldest=Min("time_created")))
    queue = [row for row in queue if row["version"] in names]
    yield "version_queue", "gauge", "Batch requests that wait.", [(names[r["version"]], r["count"]) for r in queue]
    yield (
        "version_queue_age_seconds", "gauge", "Age of the oldest batch request that waits.",
        [(names[r["version"]], max((now - r["oldest"]).total_seconds(), 0)) for r in queue],
    )  # fmt: skip
    yield from _platform()


def _requests(names: Mapping[Any, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, Series]]:
    """Of the instances that run: their counters begin anew when an instance does, as Prometheus expects."""
    owners = dict(Instance.objects.filter(deleted_at=None).values_list("id", "version_id"))
    pods = dict(Instance.objects.filter(deleted_at=None).values_list("id", "pod_name"))
    rows = [row for row in InstanceCounters.objects.filter(pk__in=owners) if owners[row.pk] in names]
    for name, column, about in (
        ("instance_requests_total", "requests", "Requests that an instance answered."),
        ("instance_request_errors_total", "errors", "Requests that failed in an instance."),
        ("instance_request_seconds_total", "duration", "Seconds that an instance's requests took together."),
        ("instance_restarts_total", "restarts", "Restarts of an instance."),
    ):
        series = [({**names[owners[row.pk]], "instance": pods[row.pk]}, getattr(row, column)) for row in rows]
        yield name, "counter", about, series
    latest = MetricSample.objects.filter(resolution=MetricSample.RAW).aggregate(at=Max("at"))["at"]
    usage = MetricSample.objects.filter(resolution=MetricSample.RAW, at=latest, instance_id__in=pods)
    now = [row for row in usage if row.version_id in names and row.samples]
    for name, column, about in (
        ("instance_requests_in_flight", "in_flight", "Requests that wait or run in an instance."),
        ("instance_cpu_cores", "cpu", "Cores that an instance uses."),
        ("instance_memory_bytes", "memory", "Memory that an instance uses."),
    ):
        series = [
            ({**names[row.version_id], "instance": pods[row.instance_id]}, getattr(row, column) / row.samples)
            for row in now
        ]
        yield name, "gauge", about, series


def _platform() -> Iterator[tuple[str, str, str, Series]]:
    behind = DeploymentVersion.objects.filter(observed_generation__lt=F("generation"))
    yield "versions_behind", "gauge", "Versions whose latest change was not looked at yet.", [({}, behind.count())]
    rolling = Rollout.objects.filter(state=Rollout.State.IN_PROGRESS).count()
    yield "rollouts_in_progress", "gauge", "Rollouts under way.", [({}, rolling)]
    builds = EnvironmentBuild.objects.values("state").annotate(count=Count("pk")).order_by("state")
    yield (
        "environment_builds",
        "gauge",
        "Builds of environments.",
        [({"state": b["state"]}, b["count"]) for b in builds],
    )
    alerts = Alert.objects.filter(state=Alert.State.FIRING).count()
    yield "alerts_firing", "gauge", "Alerts that fire.", [({}, alerts)]
    yield "deliveries", "gauge", "Messages of the last two weeks.", _by_state(Delivery.objects.all())
    sources = LogSource.objects.aggregate(
        followed=Count("pk", filter=Q(ended_at=None)), latest=Max("position_time", filter=Q(ended_at=None))
    )
    yield "log_sources_followed", "gauge", "Instances whose log is kept.", [({}, sources["followed"])]
    latest = (sources["latest"] or 0) / 10**9
    yield "log_latest_line_timestamp_seconds", "gauge", "Time of the newest line that is kept.", [({}, latest)]


def _by_state(rows: QuerySet[Any]) -> Series:
    return [({"state": state}, count) for state, count in rows.order_by().values_list("state").annotate(Count("pk"))]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
