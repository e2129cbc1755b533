"""Samples in the database: adding to them, rolling them up, forgetting them."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from itertools import zip_longest

from django.db import connection, transaction
from psycopg2.extras import execute_values

from deployments.models import DeploymentVersion
from monitoring.metrics.cells import PEAKS
from monitoring.metrics.histograms import START_BOUNDS, no_buckets, one_of
from monitoring.models import CustomPoint, MetricSample, VersionCounters

TABLE = "monitoring_metricsample"
KEY = ("resolution", "version_id", "instance_id", "at")
OWNERS = ("project_id", "deployment_id")
# How each column adds up over time.
SUMS = (
    "samples", "requests", "errors", "duration", "restarts", "cold_starts", "cold_start_seconds", "in_flight", "cpu",
    "memory", "gpu_devices", "gpu_busy", "gpu_memory", "instances", "accelerators", "queue",
)  # fmt: skip
ARRAYS = ("buckets", "cold_start_buckets")

RAW, MINUTE, HOUR = MetricSample.RAW, MetricSample.MINUTE, MetricSample.HOUR
KEPT = {RAW: dt.timedelta(minutes=70), MINUTE: dt.timedelta(days=2, hours=1), HOUR: dt.timedelta(days=31)}
# How far back sums are made anew; well within what is kept of the finer samples, so that none is made of a part.
REMADE = {MINUTE: dt.timedelta(minutes=62), HOUR: dt.timedelta(hours=3)}
FINER = {MINUTE: RAW, HOUR: MINUTE}
CUSTOM_KEPT = dt.timedelta(days=90)


@dataclass(slots=True)
class Sample:
    """A row of `MetricSample`, without its resolution."""

    at: dt.datetime
    project_id: uuid.UUID
    deployment_id: uuid.UUID
    version_id: uuid.UUID
    instance_id: uuid.UUID
    samples: int = 1
    requests: float = 0
    errors: float = 0
    duration: float = 0
    restarts: float = 0
    cold_starts: float = 0
    cold_start_seconds: float = 0
    cold_start_buckets: list[float] = field(default_factory=list)
    in_flight: float = 0
    cpu: float = 0
    memory: float = 0
    memory_peak: float = 0
    gpu_devices: float = 0
    gpu_busy: float = 0
    gpu_memory: float = 0
    instances: float = 0
    accelerators: float = 0
    queue: float = 0
    queue_age: float = 0
    buckets: list[float] = field(default_factory=no_buckets)


def add(resolution: int, samples: Sequence[Sample]) -> None:
    """Add to the samples that are there."""
    if not samples:
        return
    # One statement may touch a row once only.
    merged: dict[tuple[uuid.UUID, uuid.UUID, dt.datetime], Sample] = {}
    for sample in samples:
        key = (sample.version_id, sample.instance_id, sample.at)
        merged[key] = _together(merged[key], sample) if key in merged else sample
    columns = [column.name for column in fields(Sample)]
    changes = [f"{name} = t.{name} + excluded.{name}" for name in SUMS]
    changes += [f"{name} = greatest(t.{name}, excluded.{name})" for name in PEAKS]
    changes += [f"{name} = pilothouse_add_arrays(t.{name}, excluded.{name})" for name in ARRAYS]
    statement = (
        f"INSERT INTO {TABLE} AS t (resolution, {', '.join(columns)}) VALUES %s "  # noqa: S608
        f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {', '.join(changes)}"
    )
    rows = [
        (resolution, *(str(value) if isinstance(value, uuid.UUID) else value for value in astuple(sample)))
        for sample in merged.values()
    ]
    template = "(" + ", ".join(["%s", *(_TYPES.get(name, "%s") for name in columns)]) + ")"
    with connection.wrap_database_errors, connection.cursor() as cursor:
        execute_values(cursor.cursor, statement, rows, template, page_size=500)


_TYPES = {
    **dict.fromkeys(("project_id", "deployment_id", "version_id", "instance_id"), "%s::uuid"),
    **dict.fromkeys(ARRAYS, "%s::double precision[]"),
}


def _together(one: Sample, other: Sample) -> Sample:
    for name in SUMS:
        setattr(one, name, getattr(one, name) + getattr(other, name))
    for name in PEAKS:
        setattr(one, name, max(getattr(one, name), getattr(other, name)))
    for name in ARRAYS:
        setattr(one, name, add_arrays(getattr(one, name), getattr(other, name)))
    return one


def add_arrays(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Place by place; the shorter one counts as if it went on with zeros, as `pilothouse_add_arrays` does."""
    return [a + b for a, b in zip_longest(one, other, fillvalue=0.0)]


def count_starts(starts: Sequence[tuple[uuid.UUID, float]]) -> None:
    """Add cold starts, as (version, seconds), to what versions had since they were made."""
    for version, seconds in starts:
        buckets = one_of(seconds, START_BOUNDS)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO monitoring_versioncounters AS t "
                "(version_id, cold_starts, cold_start_seconds, cold_start_buckets) VALUES (%s, 1, %s, %s) "
                "ON CONFLICT (version_id) DO UPDATE SET cold_starts = t.cold_starts + 1, "
                "cold_start_seconds = t.cold_start_seconds + excluded.cold_start_seconds, "
                "cold_start_buckets = pilothouse_add_arrays(t.cold_start_buckets, excluded.cold_start_buckets)",
                [version, seconds, buckets],
            )


@transaction.atomic
def roll_up(now: dt.datetime) -> None:
    """Sum up what is finer; safe to repeat, since sums are made anew and not added to."""
    for resolution, finer in FINER.items():
        begin = now - REMADE[resolution]
        begin = dt.datetime.fromtimestamp(begin.timestamp() // resolution * resolution, dt.UTC)
        cell = f"to_timestamp(floor(extract(epoch FROM at) / {resolution}) * {resolution})"
        sums = [f"sum({name})" for name in SUMS] + [f"max({name})" for name in PEAKS]
        sums += [f"pilothouse_sum_arrays({name})" for name in ARRAYS]
        names = [*SUMS, *PEAKS, *ARRAYS]
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {TABLE} ({', '.join((*KEY, *OWNERS, *names))}) "  # noqa: S608
                f"SELECT {resolution}, version_id, instance_id, {cell}, (array_agg(project_id))[1], "
                f"(array_agg(deployment_id))[1], {', '.join(sums)} "
                f"FROM {TABLE} WHERE resolution = %s AND at >= %s GROUP BY version_id, instance_id, {cell} "
                f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET "
                + ", ".join(f"{name} = excluded.{name}" for name in names),
                [finer, begin],
            )


def forget(now: dt.datetime) -> int:
    """Delete what is older than its resolution is kept; how many rows."""
    gone = 0
    for resolution, kept in KEPT.items():
        gone += MetricSample.objects.filter(resolution=resolution, at__lt=now - kept)._raw_delete("default")
    VersionCounters.objects.exclude(version_id__in=DeploymentVersion.objects.values("pk")).delete()
    return gone + CustomPoint.objects.filter(at__lt=now - CUSTOM_KEPT)._raw_delete("default")
