"""The samples that the platform takes itself, in PostgreSQL."""

import datetime as dt
import uuid
from typing import Any

from django.db import connection
from django.db.models import Max, Sum

from monitoring.metrics.cells import (
    COUNTS,
    OF_INSTANCES,
    OF_VERSIONS,
    PEAKS,
    Cell,
    Coverage,
    Scope,
    chosen_step,
    seconds_of,
    together,
)
from monitoring.metrics.samples import ARRAYS, HOUR, KEPT, MINUTE, RAW, SUMS, TABLE, add_arrays
from monitoring.models import WHOLE_VERSION, MetricSample


class StoredSource:
    """Reads what `monitoring.metrics.sampling` stores."""

    def cells(
        self, scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime, step: int = 0
    ) -> tuple[int, list[Cell]]:
        resolution, chosen = resolution_for(start, end, now)
        step = max(step or chosen, resolution)
        found: dict[int, Cell] = {}
        for row in _rows(scope, start, end, resolution, step):
            at = int(row["cell"])
            cell = found.get(at)
            if cell is None:
                cell = found[at] = Cell(at, seconds_of(at, step, now, resolution))
            _add(cell, row, scope)
        return step, [found[at] for at in sorted(found)]

    def total(self, scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> Cell:
        return together(self.cells(scope, start, end, now)[1], start, end)

    def coverage(self, version: uuid.UUID, start: dt.datetime, now: dt.datetime) -> Coverage:
        resolution, _ = resolution_for(start, now, now)
        rows = MetricSample.objects.filter(
            version_id=version, instance_id=WHOLE_VERSION, resolution=resolution, at__gte=start, at__lte=now
        )
        found = rows.aggregate(latest=Max("at"), made=Sum("samples"))
        wanted = max((now - start).total_seconds() / RAW, 1)
        return Coverage(
            found["latest"],
            min((found["made"] or 0) / wanted, 1.0),
            bool(found["made"]) and not rows.filter(accelerators=0).exists(),
        )


def resolution_for(start: dt.datetime, end: dt.datetime, now: dt.datetime) -> tuple[int, int]:
    """The finest samples that still are kept for the span, and the step that suits it."""
    resolution = next((r for r in (RAW, MINUTE) if start >= now - KEPT[r]), HOUR)
    return resolution, chosen_step(start, end, resolution)


def _rows(scope: Scope, start: dt.datetime, end: dt.datetime, resolution: int, step: int) -> list[dict[str, Any]]:
    condition, values = "", []
    if scope.instance is not None:
        condition, values = "AND instance_id = %s", [scope.instance]
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMS if name != "samples")
    peaks = ", ".join(f"max({name}) AS {name}" for name in PEAKS)
    arrays = ", ".join(f"pilothouse_sum_arrays({name}) AS {name}" for name in ARRAYS)
    statement = f"""
        SELECT floor(extract(epoch FROM at) / {step}) * {step} AS cell, version_id,
            sum(samples) FILTER (WHERE instance_id = %s) AS ticks, sum(samples) AS readings,
            {sums}, {peaks}, {arrays}
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
    cell.buckets = add_arrays(cell.buckets, row["buckets"] or ())
    cell.start_buckets = add_arrays(cell.start_buckets, row["cold_start_buckets"] or ())
    # Levels of a version are what its instances had together at each reading.
    readings = row["readings"] if scope.instance is not None else row["ticks"]
    if not readings:
        return
    for name in OF_INSTANCES if scope.instance is not None else (*OF_INSTANCES, *OF_VERSIONS):
        cell.levels[name] = cell.levels.get(name, 0.0) + row[name] / readings
