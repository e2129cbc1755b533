"""One reading of everything that runs, as samples of ten seconds.

Counters are turned into counts by what was read before, kept beside the samples and changed in the same transaction, so
that a collector that dies counts nothing twice. What happened while nobody read is spread over the time since.
"""

import datetime as dt
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from deployments import background
from deployments import cluster as clusters
from deployments.models import DeploymentVersion, Instance, Request
from deployments.services import measured
from deployments.services.measured import Measured
from deployments.services.routing import Endpoint
from kube.errors import ClusterUnreachable
from monitoring.metrics import gpus, scraping, source
from monitoring.metrics.cells import FRESH_START
from monitoring.metrics.exposition import Reading
from monitoring.metrics.gpus import GpuUsage
from monitoring.metrics.histograms import START_BOUNDS, no_buckets, one_of
from monitoring.metrics.prometheus import SourceUnavailable
from monitoring.metrics.samples import Sample, add, count_starts
from monitoring.metrics.scraping import Usage
from monitoring.models import WHOLE_VERSION, InstanceCounters, MetricSample

logger = logging.getLogger(__name__)

LOCK = 0x6D657472  # "metr"
RAW = MetricSample.RAW
# The longest that counts are spread over; raw samples are kept a little longer.
MOST_CELLS = 360
FORGET = dt.timedelta(days=2)


@dataclass(slots=True)
class _Grown:
    """What happened at an instance since it was last read."""

    requests: float = 0
    errors: float = 0
    duration: float = 0
    buckets: list[float] = field(default_factory=no_buckets)
    restarts: float = 0


def collect() -> int:
    """Read everything once; how many samples were stored. Another collector at work means nothing to do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return 0
    try:
        instances = list(
            Instance.objects.filter(deleted_at=None).select_related(
                "version__deployment__project", "version__instance_type"
            )
        )
        # Those that still start, too: they tell how far their start is.
        asked = [one for one in instances if one.address and (one.ready or one.started_at is not None)]
        readings = background.run(scraping.scrape([endpoint_of(instance) for instance in asked]), timeout=60)
        usages: Mapping[tuple[str, str], Usage] = {}
        try:
            usages = scraping.usage(clusters.current()) if instances else {}
        except ClusterUnreachable as error:
            logger.info("%s", error)
        return store(instances, readings, usages, timezone.now(), _gpus(instances))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _gpus(instances: Iterable[Instance]) -> Mapping[tuple[str, str], GpuUsage]:
    """How GPUs are used, where any are held: from the exporters, or from the Prometheus that reads them."""
    if not any(accelerators_of(instance) for instance in instances):
        return {}
    try:
        if settings.PILOTHOUSE_PROMETHEUS_URL:
            return source.PrometheusSource.of_settings().gpu_usage()
        return background.run(gpus.usage(gpus.exporters(clusters.current())), timeout=60)
    except (ClusterUnreachable, SourceUnavailable) as error:
        logger.info("%s", error)
        return {}


def accelerators_of(instance: Instance) -> int:
    """How many GPUs and the like an instance holds: those of its type, from its placement on."""
    kind = instance.version.instance_type
    return kind.accelerator if kind is not None and instance.scheduled_at is not None else 0


def start_seconds(instance: Instance) -> float | None:
    """How long an instance took from its creation to being ready; None while it was not."""
    if instance.ready_at is None:
        return None
    return max((instance.ready_at - instance.time_created).total_seconds(), 0)


def endpoint_of(instance: Instance) -> Endpoint:
    namespace = instance.version.deployment.project.namespace
    return Endpoint(instance.id, namespace, instance.pod_name, instance.address, settings.PILOTHOUSE_SERVING_PORT)


@transaction.atomic
def store(
    instances: Iterable[Instance],
    readings: Mapping[uuid.UUID, Reading],
    usages: Mapping[tuple[str, str], Usage],
    now: dt.datetime,
    gpu_usages: Mapping[tuple[str, str], GpuUsage] = MappingProxyType({}),
) -> int:
    """Store what was read at ``now``; how many samples."""
    at = _cell(now)
    instances = list(instances)
    counters = {row.instance_id: row for row in InstanceCounters.objects.filter(pk__in=[i.id for i in instances])}
    samples: list[Sample] = []
    starts: list[tuple[uuid.UUID, float]] = []
    told: dict[uuid.UUID, Measured] = {}
    for instance in instances:
        row = counters.get(instance.id) or InstanceCounters(instance_id=instance.id, read_at=_began(instance, now))
        grown, cells = _grown(row, instance, readings.get(instance.id), now)
        name = (instance.version.deployment.project.namespace, instance.pod_name)
        pod, gpu = usages.get(name, Usage(0, 0)), gpu_usages.get(name, GpuUsage())
        reading = readings.get(instance.id)
        start = _cold_start(row, instance, now)
        for cell in range(cells):
            samples.append(
                Sample(
                    at=at - dt.timedelta(seconds=RAW * cell),
                    project_id=instance.version.deployment.project_id,
                    deployment_id=instance.version.deployment_id,
                    version_id=instance.version_id,
                    instance_id=instance.id,
                    samples=0,
                    requests=grown.requests / cells,
                    errors=grown.errors / cells,
                    duration=grown.duration / cells,
                    buckets=[count / cells for count in grown.buckets],
                    restarts=grown.restarts / cells,
                )
            )
        here = samples[-cells]
        here.samples = 1
        here.cpu, here.memory, here.memory_peak = pod.cpu, pod.memory, pod.memory
        here.in_flight = reading.in_flight if reading is not None else 0
        here.gpu_devices, here.gpu_busy, here.gpu_memory = gpu.devices, gpu.busy, gpu.memory
        if start is not None:
            here.cold_starts, here.cold_start_seconds = 1, start
            here.cold_start_buckets = one_of(start, START_BOUNDS)
            starts.append((instance.version_id, start))
        told[instance.id] = Measured(
            loading_at=reading.began_loading if reading is not None else None,
            memory=int(pod.memory),
            gpu_busy_at=now if gpu.devices and not gpu.idle else None,
        )
        counters[instance.id] = row
    columns = ["read_at", "process_start", "requests", "errors", "duration", "buckets", "restarts", "counted_start"]
    InstanceCounters.objects.bulk_create(
        counters.values(), update_conflicts=True, unique_fields=["instance_id"], update_fields=columns
    )
    samples += _of_versions(instances, at, now)
    add(RAW, samples)
    count_starts(starts)
    measured.save(instances, told)
    InstanceCounters.objects.filter(read_at__lt=now - FORGET).delete()
    return len(samples)


def _cell(now: dt.datetime) -> dt.datetime:
    """The cell of a reading: the one after the last when it comes about ten seconds later, so that none stays empty.

    Cells that lie ahead are of a clock that was set back since; they count no more.
    """
    last = MetricSample.objects.filter(resolution=RAW, at__lte=now).aggregate(last=Max("at"))["last"]
    if last is not None and 0.5 * RAW < (now - last).total_seconds() < 2.5 * RAW:
        following: dt.datetime = last + dt.timedelta(seconds=RAW)
        if (now - following).total_seconds() < 1.5 * RAW:
            return following
    return dt.datetime.fromtimestamp(now.timestamp() // RAW * RAW, dt.UTC)


def _began(instance: Instance, now: dt.datetime) -> dt.datetime:
    return max(instance.started_at or now, now - dt.timedelta(seconds=RAW * MOST_CELLS))


def _grown(row: InstanceCounters, instance: Instance, reading: Reading | None, now: dt.datetime) -> tuple[_Grown, int]:
    """What happened since the counters were read, which move on, and over how many cells that was."""
    grown = _Grown(restarts=max(instance.restarts - row.restarts, 0))
    row.restarts = instance.restarts
    if reading is None:
        return grown, 1
    # A new process counts from zero, however far it has come by now. One that does not say when it began is known by
    # counters that went back.
    known = reading.process_start and row.process_start
    fresh = (known and reading.process_start != row.process_start) or reading.requests < row.requests
    old = Reading() if fresh else Reading(row.requests, row.errors, row.duration, row.buckets or no_buckets())
    grown.requests = reading.requests - old.requests
    grown.errors = max(reading.errors - old.errors, 0)
    grown.duration = max(reading.duration - old.duration, 0)
    grown.buckets = [max(new - before, 0) for new, before in zip(reading.buckets, old.buckets, strict=False)]
    cells = round((now - row.read_at).total_seconds() / RAW)
    row.read_at, row.process_start = now, reading.process_start
    row.requests, row.errors, row.duration = reading.requests, reading.errors, reading.duration
    row.buckets = reading.buckets
    return grown, min(max(cells, 1), MOST_CELLS)


def _cold_start(row: InstanceCounters, instance: Instance, now: dt.datetime) -> float | None:
    """Seconds from creation to ready, the first time that this is known."""
    if row.counted_start or instance.ready_at is None:
        return None
    row.counted_start = True
    if now - instance.ready_at > FRESH_START:
        return None
    return start_seconds(instance)


def _of_versions(instances: list[Instance], at: dt.datetime, now: dt.datetime) -> list[Sample]:
    """Of versions as a whole: those with instances, and those with requests that wait."""
    waiting = {
        row["version"]: row
        for row in Request.objects.filter(batch=True, status=Request.Status.PENDING)
        .values("version")
        .annotate(count=Count("id"), oldest=Min("time_created"))
        .order_by()
    }
    ready: dict[uuid.UUID, int] = {}
    accelerators: dict[uuid.UUID, int] = {}
    for instance in instances:
        ready[instance.version_id] = ready.get(instance.version_id, 0) + instance.ready
        accelerators[instance.version_id] = accelerators.get(instance.version_id, 0) + accelerators_of(instance)
    versions = DeploymentVersion.objects.filter(Q(pk__in=ready) | Q(pk__in=waiting)).select_related("deployment")
    samples = []
    for version in versions:
        queue = waiting.get(version.pk)
        samples.append(
            Sample(
                at=at,
                project_id=version.deployment.project_id,
                deployment_id=version.deployment_id,
                version_id=version.pk,
                instance_id=WHOLE_VERSION,
                samples=1,
                instances=ready.get(version.pk, 0),
                accelerators=accelerators.get(version.pk, 0),
                queue=queue["count"] if queue else 0,
                queue_age=max((now - queue["oldest"]).total_seconds(), 0) if queue else 0,
            )
        )
    return samples
