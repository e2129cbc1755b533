"""Series for charts, alerts and the API: of a deployment, a version or an instance, over minutes or weeks."""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Q

from deployments.models import Rollout
from monitoring.metrics import source
from monitoring.metrics.cells import NAMES, Cell, Scope


def cells(
    scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime, *, step: int = 0
) -> tuple[int, list[Cell]]:
    """The step in seconds and the cells that hold anything, in order; ``step`` 0 lets the span choose."""
    return source.current().cells(scope, start, end, now, step)


def total(scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> Cell:
    """Everything of the span in one cell."""
    return source.current().total(scope, start, end, now)


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


def markers(versions: Iterable[uuid.UUID], start: dt.datetime, end: dt.datetime) -> Iterator[dict[str, Any]]:
    """Rollouts that began or ended within the span, oldest first; of very many the latest."""
    within = Q(queued_at__range=(start, end)) | Q(finished_at__range=(start, end))
    rollouts = Rollout.objects.filter(within, version__in=list(versions)).select_related("version", "to_revision")
    for rollout in reversed(rollouts.order_by("-queued_at")[:200]):
        yield {
            "time": int((rollout.serving_at or rollout.finished_at or rollout.queued_at).timestamp()),
            "began": int(rollout.queued_at.timestamp()),
            "version": rollout.version.version,
            "revision": rollout.to_revision.number,
            "cause": rollout.cause,
            "state": rollout.state,
            "rollout": str(rollout.pk),
        }


def _short(value: float | None) -> float | None:
    """Six significant digits are more than a screen shows."""
    return None if value is None else float(f"{value:.6g}")
