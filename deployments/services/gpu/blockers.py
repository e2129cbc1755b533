"""Who exactly stands in the way of one claim: told by name to those who may know."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from accounts import access
from accounts.access import AnyUser
from deployments.models import GpuClaim
from deployments.scheduling.blockers import find_blockers
from deployments.services.gpu import snapshot as snapshots

State = GpuClaim.State
MAX_WAITING = 300
"""With more claims waiting the search takes too long for a page."""


@dataclass(frozen=True, slots=True)
class InTheWay:
    """``running`` would have to end and ``waiting`` to step back; ``placeable`` false: nobody's going would help."""

    running: list[str]
    waiting: list[str]
    placeable: bool


def blockers(user: AnyUser, claim: GpuClaim, now: dt.datetime) -> InTheWay | None:
    """What blocks a waiting claim now; None for one that does not wait, or in a very long queue."""
    world = snapshots.load(now)
    queue = [
        other
        for other in world.claims
        if other.state in (State.WAITING, State.EVICTED) and not other.nodes and other.devices
    ]
    if len(queue) > MAX_WAITING or not any(other.pk == claim.pk for other in queue):
        return None
    found = find_blockers(snapshots.snapshot(world, queue), str(claim.pk))
    rows = {str(other.pk): other for other in world.claims}
    running = [rows[one.claim.id] for one in found.running]
    waiting = [rows[one.id] for one in found.waiting]
    return InTheWay(_names(user, running), _names(user, waiting), found.placeable)


def _names(user: AnyUser, rows: Iterable[GpuClaim]) -> list[str]:
    rows = list(rows)
    visible = set(access.projects_of(user).filter(pk__in={row.project_id for row in rows}).values_list("pk", flat=True))
    return [named(row, row.project_id in visible) for row in rows]


def named(row: GpuClaim, known: bool) -> str:
    """A claim in words, without its name for those who may not know it."""
    devices = f"{row.demand} device{'s' if row.demand != 1 else ''}"
    return f"{row.label} of {row.project} ({devices})" if known else f"a claim of another project ({devices})"
