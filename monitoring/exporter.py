"""What Prometheus reads of the platform itself, at ``/metrics``.

With ``PILOTHOUSE_METRICS_TOKEN`` for whoever sends it (``Authorization: Bearer ...``); without one for the loopback
only, and then not through a proxy, behind which everybody would come from the loopback.
"""

import hmac
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.authentication import secret_of
from deployments.models import DeploymentVersion, EnvironmentBuild, Instance, Request, Rollout
from monitoring.metrics.histograms import START_BOUNDS, no_buckets
from monitoring.metrics.sampling import accelerators_of, start_seconds
from monitoring.models import Alert, Delivery, InstanceCounters, LogSource, MetricSample, VersionCounters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Series = Iterable[tuple[Mapping[str, Any], float]]
# In place of a label: what a histogram's series have behind its name.
SUFFIX = ""


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
            told = ",".join(f'{key}="{_escape(str(text))}"' for key, text in labels.items() if key != SUFFIX)
            whole = f"pilothouse_{name}{labels.get(SUFFIX, '')}"
            yield f"{whole}{{{told}}} {value:.12g}\n" if told else f"{whole} {value:.12g}\n"


def _all() -> Iterator[tuple[str, str, str, Series]]:
    versions: list[Any] = list(
        DeploymentVersion.objects.values(
            "id", "phase", "ready_instances", "desired_instances",
            project=F("deployment__project__name"), name=F("deployment__name"), number=F("version"),
        )
    )  # fmt: skip
    names = {
        row["id"]: {
            "project": row["project"], "deployment": row["name"], "version": row["number"], "version_id": row["id"],
        }
        for row in versions
    }  # fmt: skip
    yield (
        "version_phase", "gauge", "1 for the phase that a deployment version is in.",
        [({**names[row["id"]], "phase": row["phase"]}, 1) for row in versions],
    )  # fmt: skip
    for name, column, about in (
        ("version_ready_instances", "ready_instances", "Instances that are ready."),
        ("version_wanted_instances", "desired_instances", "Instances that are wanted."),
    ):
        yield name, "gauge", about, [(names[row["id"]], row[column]) for row in versions]
    instances = [
        row for row in Instance.objects.filter(deleted_at=None).select_related(
            "version__instance_type", "version__deployment__project"
        ) if row.version_id in names
    ]  # fmt: skip
    yield from _of_instances(instances, names)
    yield from _of_versions(instances, names)
    yield _cold_starts(names)
    yield from _platform()


def _of_versions(
    instances: Iterable[Instance], names: Mapping[Any, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str, Series]]:
    """What waits and what is held; zeros are told too, or an average over time would leave them out."""
    now = timezone.now()
    waiting = Request.objects.filter(batch=True, status=Request.Status.PENDING).values("version").order_by()
    queue = {row["version"]: row for row in waiting.annotate(count=Count("id"), oldest=Min("time_created"))}
    held = Counter[Any]()
    for instance in instances:
        held[instance.version_id] += accelerators_of(instance)
    ages = {key: max((now - row["oldest"]).total_seconds(), 0) for key, row in queue.items()}
    yield (
        "version_queue", "gauge", "Batch requests that wait.",
        [(labels, queue[key]["count"] if key in queue else 0) for key, labels in names.items()],
    )  # fmt: skip
    yield (
        "version_queue_age_seconds", "gauge", "Age of the oldest batch request that waits.",
        [(labels, ages.get(key, 0)) for key, labels in names.items()],
    )  # fmt: skip
    yield (
        "version_accelerators", "gauge", "GPUs and the like that instances hold.",
        [(labels, held[key]) for key, labels in names.items()],
    )  # fmt: skip


def _cold_starts(names: Mapping[Any, Mapping[str, Any]]) -> tuple[str, str, str, Series]:
    """A histogram of every version, from zero on: a rate needs something to begin from."""
    counted = {row.pk: row for row in VersionCounters.objects.filter(pk__in=names)}
    series: list[tuple[Mapping[str, Any], float]] = []
    for key, labels in names.items():
        row = counted.get(key) or VersionCounters()
        running = list(accumulate(row.cold_start_buckets or no_buckets(START_BOUNDS)))
        bounds = [*(f"{bound:g}" for bound in START_BOUNDS), "+Inf"]
        series += [({**labels, SUFFIX: "_bucket", "le": bound}, n) for bound, n in zip(bounds, running, strict=True)]
        series += [({**labels, SUFFIX: "_sum"}, row.cold_start_seconds), ({**labels, SUFFIX: "_count"}, running[-1])]
    return "version_cold_start_seconds", "histogram", "From the creation of an instance to its being ready.", series


def _of_instances(
    instances: Iterable[Instance], names: Mapping[Any, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str, Series]]:
    """Of the instances that run: their counters begin anew when an instance does, as Prometheus expects."""
    labels = {row.pk: {**names[row.version_id], "instance": row.pod_name, "instance_id": row.pk} for row in instances}
    yield (
        "pod_info", "gauge", "Which pod is which instance.",
        [
            ({
                **names[row.version_id], "instance_id": row.pk, "pod": row.pod_name,
                "namespace": row.version.deployment.project.namespace,
            }, 1)
            for row in instances
        ],
    )  # fmt: skip
    yield (
        "instance_restarts_total", "counter", "Restarts of an instance.",
        [(labels[row.pk], row.restarts) for row in instances],
    )  # fmt: skip
    # Two numbers and no histogram: an instance starts once, and the histogram of its version has the sums.
    yield (
        "instance_ready_timestamp_seconds", "gauge", "When an instance was ready first.",
        [(labels[row.pk], row.ready_at.timestamp()) for row in instances if row.ready_at is not None],
    )  # fmt: skip
    starts = [(row, start_seconds(row)) for row in instances]
    yield (
        "instance_cold_start_seconds", "gauge", "From the creation of an instance to its being ready.",
        [(labels[row.pk], seconds) for row, seconds in starts if seconds is not None],
    )  # fmt: skip
    counters = list(InstanceCounters.objects.filter(pk__in=labels))
    for name, column, about in (
        ("instance_requests_total", "requests", "Requests that an instance answered."),
        ("instance_request_errors_total", "errors", "Requests that failed in an instance."),
        ("instance_request_seconds_total", "duration", "Seconds that an instance's requests took together."),
    ):
        yield name, "counter", about, [(labels[row.pk], getattr(row, column)) for row in counters]
    raw = MetricSample.objects.filter(resolution=MetricSample.RAW, at__lte=timezone.now())
    latest = raw.aggregate(at=Max("at"))["at"]
    now = [row for row in raw.filter(at=latest, instance_id__in=labels) if row.samples]
    for name, column, about in (
        ("instance_requests_in_flight", "in_flight", "Requests that wait or run in an instance."),
        ("instance_cpu_cores", "cpu", "Cores that an instance uses."),
        ("instance_memory_bytes", "memory", "Memory that an instance uses."),
        ("instance_gpu_devices", "gpu_devices", "GPUs of an instance whose use is measured."),
        ("instance_gpu_busy", "gpu_busy", "How many of these are at work: two at 50% are one."),
        ("instance_gpu_memory_bytes", "gpu_memory", "Memory of these that is used."),
    ):
        told = [row for row in now if row.gpu_devices or not column.startswith("gpu")]
        yield name, "gauge", about, [(labels[row.instance_id], getattr(row, column) / row.samples) for row in told]


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
