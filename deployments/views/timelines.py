"""The instances of a rollout side by side on one axis of time, each start in its phases."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from deployments.models import Instance, Rollout

WIDTH = 1000
PHASES = (
    ("queued", "Queued"),
    ("environment", "Environment"),
    ("scheduling", "Scheduled"),
    ("package", "Image and package"),
    ("init", "Start of the server and import"),
    ("loading", "Model loaded"),
    ("ready", "Ready"),
)
_LABELS = dict(PHASES)
# After the end of a rollout a little of what came then is shown.
_MARGIN = dt.timedelta(seconds=5)
_SHORTEST = 0.05


@dataclass(frozen=True)
class Phase:
    """``x`` and ``width`` of `WIDTH`; ``seconds`` of the whole phase; ``over`` is False while it lasts."""

    key: str
    label: str
    seconds: float
    over: bool
    x: float
    width: float


@dataclass(frozen=True)
class Lane:
    """One instance. ``took`` is its start in seconds, None while it is not ready."""

    instance: Instance
    new: bool
    phases: list[Phase]
    took: float | None

    @property
    def told(self) -> list[Phase]:
        """The phases that are worth a word: not those that would read as 0.0 s."""
        return [phase for phase in self.phases if phase.seconds >= _SHORTEST or not phase.over]


@dataclass(frozen=True)
class Timeline:
    start: dt.datetime
    end: dt.datetime
    lanes: list[Lane]

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()


def timeline(
    rollout: Rollout, instances: Iterable[Instance], build_started: dt.datetime | None, now: dt.datetime
) -> Timeline:
    """Old instances first. Instances that were gone before, or came after, are left out."""
    start = rollout.queued_at
    end = (rollout.finished_at + _MARGIN) if rollout.finished_at else now
    end = max(min(end, now), start + dt.timedelta(seconds=1))
    lanes = []
    for instance in instances:
        if instance.time_created > end or (instance.deleted_at and instance.deleted_at < start):
            continue
        # The cluster's times are whole seconds: an instance of this rollout may seem a little older than it.
        new = (
            instance.time_created >= start - dt.timedelta(seconds=2) and instance.revision_id == rollout.to_revision_id
        )
        lanes.append(_lane(rollout, instance, new, build_started, start, end))
    lanes.sort(key=lambda lane: (lane.new, lane.instance.time_created))
    return Timeline(start, end, lanes)


def _lane(
    rollout: Rollout,
    instance: Instance,
    new: bool,
    build_started: dt.datetime | None,
    start: dt.datetime,
    end: dt.datetime,
) -> Lane:
    marks = _marks(rollout, instance, new, build_started)
    ready, gone = instance.ready_at, instance.deleted_at
    phases, at = [], start if new else min(instance.time_created, start)
    for index, (key, until) in enumerate(marks):
        if until is not None:
            phases.append(_phase(key, at, max(until, at), True, start, end))
            at = max(until, at)
        elif all(later is None for _, later in marks[index:]):
            phases.append(_phase(key, at, gone or end, gone is not None, start, end))
            break
        # else it was not stored: what comes next began where this would
    else:
        phases.append(_phase("ready", at, gone or end, gone is not None, start, end))
    took = (ready - instance.time_created).total_seconds() if ready and not instance.restarts else None
    return Lane(instance, new, [one for one in phases if one.width > 0], took)


def _marks(
    rollout: Rollout, instance: Instance, new: bool, build_started: dt.datetime | None
) -> list[tuple[str, dt.datetime | None]]:
    """The phases of a start with their ends; those of the rollout itself come first."""
    start, created, ready = rollout.queued_at, instance.time_created, instance.ready_at
    marks: list[tuple[str, dt.datetime | None]] = []
    if new:
        built = max(rollout.environment_at or created, start)
        marks = [("queued", build_started if build_started and start <= build_started <= built else built)]
        marks.append(("environment", built))
        if created > built:
            marks.append(("queued", created))  # behind the instances before it
    # A restarted container began after its instance was ready first.
    began = None if ready and instance.started_at and instance.started_at > ready else instance.started_at
    # The image may take longer than the package: both are there when the container runs.
    package = max(filter(None, (instance.package_at, began)), default=None)
    return [
        *marks,
        ("scheduling", instance.scheduled_at),
        ("package", package),
        ("init", instance.loading_at),
        ("loading", ready),
    ]


def _phase(key: str, begin: dt.datetime, until: dt.datetime, over: bool, start: dt.datetime, end: dt.datetime) -> Phase:
    whole = (end - start).total_seconds()
    left = min(max((begin - start).total_seconds(), 0), whole)
    right = min(max((until - start).total_seconds(), left), whole)
    seconds = max(0.0, (until - begin).total_seconds())
    return Phase(
        key, _LABELS[key], seconds, over, round(left / whole * WIDTH, 1), round((right - left) / whole * WIDTH, 1)
    )
