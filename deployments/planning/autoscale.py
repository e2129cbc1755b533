"""How many instances a version should have. Pure."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

# Fewer instances are enough only after the load has been low for this long.
CALM = datetime.timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a version now. ``low_since`` is what the decision before returned."""

    in_flight: int
    queued: int
    ready: int
    last_request_at: datetime.datetime | None
    low_since: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """``concurrency`` is how many requests one instance works on at a time."""

    minimum: int
    maximum: int
    idle: datetime.timedelta
    concurrency: int = 1
    moderate: bool = False
    # A rollout that is under way or failed: going to zero would lose the instances that still answer.
    unsettled: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    desired: int
    low_since: datetime.datetime | None


def decide(desired: int, limits: Limits, load: Load, now: datetime.datetime) -> Decision:
    """The number of instances wanted from now on.

    Up: at once to what the requests under way and waiting need, at most doubling ("default") or one more
    ("moderate") at a time. Down: one at a time after `CALM`; to the minimum after the idle time without a request.
    """
    floor = max(limits.minimum, 1) if limits.unsettled and desired else limits.minimum
    needed = math.ceil((load.in_flight + load.queued) / max(limits.concurrency, 1))
    current = min(max(desired, floor), max(limits.maximum, floor))
    if needed > current:
        step = 1 if limits.moderate else max(current, 1)
        return Decision(min(needed, current + step, max(limits.maximum, floor)), None)
    quiet = load.last_request_at is None or now - load.last_request_at >= limits.idle
    if needed == 0 and quiet:
        return Decision(floor, None)
    # One instance stays until the idle time is over, whatever the load.
    least = max(needed, floor, min(current, 1))
    if least >= current:
        return Decision(current, None)
    low_since = load.low_since or now
    if now - low_since >= min(CALM, limits.idle):
        return Decision(current - 1, now)
    return Decision(current, low_since)
