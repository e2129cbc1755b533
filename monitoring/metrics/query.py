"""Series for charts, alerts and the API: of a deployment, a version or an instance, over minutes or weeks."""

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.db.models import Q

from deployments.models import Rollout
from monitoring.metrics.exposition import no_buckets, quantile
from monitoring.metrics.samples import HOUR, KEPT, MINUTE, PEAKS, RAW, SUMS, TABLE
from monitoring.models import WHOLE_VERSION, MetricSample

MOST_POINTS = 400
# Steps that people read easily, in seconds.
STEPS = (10, 30, 60, 300, 900, 1800, 3600, 7200, 21600, 43200, 86400)
COUNTS = ("requests", "errors", "duration", "restarts", "cold_starts", "cold_start_seconds")
OF_INSTANCES = ("in_flight", "cpu", "memory")
OF_VERSIONS = ("instances", "accelerators", "queue")
NAMES = (
    "requests", "errors", "error_rate", "p50", "p95", "p99", "mean", "in_flight", "queue", "queue_age", "instances",
    "accelerators", "cpu", "memory", "memory_peak", "restarts", "cold_starts", "cold_start_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked about: versions, and of them one instance or all."""

    versions: tuple[uuid.UUID, ...]
    instance: uuid.UUID | None = None


@dataclass(slots=True)
class Cell:
    """Everything of one span of ``seconds`` from ``at`` on."""

    at: int
    seconds: float
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0.0))
    levels: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PEAKS, 0.0))
    buckets: list[float] = field(default_factory=no_buckets)

    def values(self) -> dict[str, float | None]:
        """The numbers by `NAMES`: rates a second, shares of 1, seconds, bytes, cores; None where there is none."""
        counts, requests, starts = self.counts, self.counts["requests"], self.counts["cold_starts"]
        return {
            "requests": requests / self.seconds,
            "errors": counts["errors"] / self.seconds,
            "error_rate": counts["errors"] / requests if requests else None,
            "p50": quantile(self.buckets, 0.5),
            "p95": quantile(self.buckets, 0.95),
            "p99": quantile(self.buckets, 0.99),
            "mean": counts["duration"] / requests if requests else None,
            **{name: self.levels.get(name) for name in (*OF_INSTANCES, *OF_VERSIONS)},
            **self.peaks,
            "restarts": counts["restarts"],
            "cold_starts": starts,
            "cold_start_seconds": counts["cold_start_seconds"] / starts if starts else None,
        }


def resolution_for(start: dt.datetime, end: dt.datetime, now: dt.datetime) -> tuple[int, int]:
    """The finest samples that still are kept for the span, and the step that gives at most `MOST_POINTS` points."""
    span = (end - start).total_seconds()
    resolution = next((r for r in (RAW, MINUTE) if start >= now - KEPT[r]), HOUR)
    step = next((s for s in STEPS if s >= resolution and span / s <= MOST_POINTS), STEPS[-1])
    return resolution, step


def cells(
    scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime, *, step: int = 0
) -> tuple[int, list[Cell]]:
    """The step in seconds and the cells that hold anything, in order; ``step`` 0 lets the span choose."""
    resolution, chosen = resolution_for(start, end, now)
    step = max(step or chosen, resolution)
    found: dict[int, Cell] = {}
    for row in _rows(scope, start, end, resolution, step):
        at = int(row["cell"])
        cell = found.get(at)
        if cell is None:
            # The last cell is not over yet: its rates are of the time so far.
            over = min(max(now.timestamp() - at, resolution), step)
            cell = found[at] = Cell(at, over)
        _add(cell, row, scope)
    return step, [found[at] for at in sorted(found)]


def total(scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> Cell:
    """Everything of the span in one cell."""
    seconds = (end - start).total_seconds()
    whole = Cell(int(start.timestamp()), seconds)
    _, parts = cells(scope, start, end, now)
    for part in parts:
        for name in COUNTS:
            whole.counts[name] += part.counts[name]
        for name in PEAKS:
            whole.peaks[name] = max(whole.peaks[name], part.peaks[name])
        whole.buckets = [a + b for a, b in zip(whole.buckets, part.buckets, strict=True)]
    for name in (*OF_INSTANCES, *OF_VERSIONS):
        values = [part.levels[name] for part in parts if name in part.levels]
        if values:
            whole.levels[name] = sum(values) / len(values)
    return whole


def series(scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> dict[str, Any]:
    """Columns for a chart: ``times`` in Unix seconds and, of the same length, a list for each of `NAMES`.

    A time without any sample has None everywhere: a gap is shown, not bridged.
    """
    step, found = cells(scope, start, end, now)
    by_time = {cell.at: cell.values() for cell in found}
    begin = int(start.timestamp() // step * step)
    times = list(range(begin, int(min(end, now).timestamp()), step))
    rows = [by_time.get(at) for at in times]
    return {
        "start": start,
        "end": end,
        "step": step,
        "times": times,
        "series": {name: [_short(row[name]) if row else None for row in rows] for name in NAMES},
        "markers": list(markers(scope.versions, start, end)),
    }


def markers(versions: Iterable[uuid.UUID], start: dt.datetime, end: dt.datetime) -> Iterable[dict[str, Any]]:
    """Rollouts that began or ended within the span, oldest first."""
    within = Q(queued_at__range=(start, end)) | Q(finished_at__range=(start, end))
    rollouts = Rollout.objects.filter(within, version__in=list(versions)).select_related("version", "to_revision")
    for rollout in rollouts.order_by("queued_at")[:200]:
        yield {
            "time": int((rollout.serving_at or rollout.finished_at or rollout.queued_at).timestamp()),
            "began": int(rollout.queued_at.timestamp()),
            "version": rollout.version.version,
            "revision": rollout.to_revision.number,
            "cause": rollout.cause,
            "state": rollout.state,
            "rollout": str(rollout.pk),
        }


def _rows(scope: Scope, start: dt.datetime, end: dt.datetime, resolution: int, step: int) -> list[dict[str, Any]]:
    condition, values = "", []
    if scope.instance is not None:
        condition, values = "AND instance_id = %s", [scope.instance]
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMS if name != "samples")
    peaks = ", ".join(f"max({name}) AS {name}" for name in PEAKS)
    statement = f"""
        SELECT floor(extract(epoch FROM at) / {step}) * {step} AS cell, version_id,
            sum(samples) FILTER (WHERE instance_id = %s) AS ticks, sum(samples) AS readings,
            {sums}, {peaks}, pilothouse_sum_arrays(buckets) AS buckets
        FROM {TABLE}
        WHERE resolution = %s AND version_id = ANY(%s::uuid[]) AND at >= %s AND at < %s {condition}
        GROUP BY cell, version_id
    """  # noqa: S608
    begin = dt.datetime.fromtimestamp(start.timestamp() // step * step, dt.UTC)
    with connection.cursor() as cursor:
        cursor.execute(statement, [WHOLE_VERSION, resolution, list(scope.versions), begin, end, *values])
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _add(cell: Cell, row: dict[str, Any], scope: Scope) -> None:
    for name in COUNTS:
        cell.counts[name] += row[name]
    for name in PEAKS:
        cell.peaks[name] = max(cell.peaks[name], row[name])
    cell.buckets = [a + b for a, b in zip(cell.buckets, row["buckets"] or no_buckets(), strict=False)]
    # Levels of a version are what its instances had together at each reading.
    readings = row["readings"] if scope.instance is not None else row["ticks"]
    if not readings:
        return
    for name in OF_INSTANCES if scope.instance is not None else (*OF_INSTANCES, *OF_VERSIONS):
        cell.levels[name] = cell.levels.get(name, 0.0) + row[name] / readings


def _short(value: float | None) -> float | None:
    """Six significant digits are more than a screen shows."""
    return None if value is None else float(f"{value:.6g}")


def holds_since(version: uuid.UUID, start: dt.datetime) -> bool:
    """Whether the version held accelerators already when the span began, and at every reading since."""
    rows = MetricSample.objects.filter(version_id=version, instance_id=WHOLE_VERSION, resolution=RAW)
    before = rows.filter(at__lte=start + dt.timedelta(seconds=MINUTE)).order_by("-at").first()
    return (
        before is not None
        and before.accelerators > 0
        and start - before.at < dt.timedelta(minutes=5)
        and not rows.filter(at__gt=start, accelerators=0).exists()
    )
