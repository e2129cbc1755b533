"""A rollout as the steps a person watches: queued, environment, scheduled, starting, ready, serving."""

import datetime as dt
from dataclasses import dataclass

from deployments.models import Rollout

STEPS = (
    ("queued", "Queued"),
    ("environment", "Environment"),
    ("scheduled", "Scheduled"),
    ("starting", "Starting"),
    ("ready", "Ready"),
    ("serving", "Serving"),
)


@dataclass(frozen=True)
class Step:
    """``state`` is done, current, failed or todo; a current step has no end yet."""

    key: str
    label: str
    state: str
    started_at: dt.datetime | None
    ended_at: dt.datetime | None

    @property
    def icon(self) -> str:
        return {"done": "check", "current": "spinner", "failed": "cross", "todo": "dot"}[self.state]

    @property
    def timed(self) -> bool:
        """Whether a duration is worth showing: it runs, or it took some time."""
        return self.started_at is not None and (self.state in ("current", "failed") or self.ended_at != self.started_at)


def steps(rollout: Rollout) -> list[Step]:
    """Each step lasts from the end of the one before to its own; the first without an end is current.

    Columns of a rollout say when its steps were reached: the environment when it was there, starting when the first
    container started. Loading the code is the longest part of starting, so that this step ends with being ready.
    """
    ends = [
        _queue_end(rollout),
        rollout.environment_at,
        rollout.scheduled_at,
        rollout.ready_at,
        rollout.ready_at,
        rollout.serving_at,
    ]
    complete = rollout.state == Rollout.State.COMPLETE
    over = rollout.state != Rollout.State.IN_PROGRESS
    # A step may be too quick to be seen; what comes after it says that it is over.
    reached = max((index for index, end in enumerate(ends) if end is not None), default=-1)
    result: list[Step] = []
    began: dt.datetime | None = rollout.queued_at
    for index, (key, label) in enumerate(STEPS):
        end = ends[index] or next((later for later in ends[index + 1 :] if later is not None), None)
        if complete or index <= reached:
            state = "done"
        elif index > reached + 1:
            state = "todo"
        else:
            state = "failed" if over else "current"
            end = rollout.finished_at if over else None
        result.append(Step(key, label, state, began if state != "todo" else None, end))
        began = max(began, end) if began and end else end
    return result


def _queue_end(rollout: Rollout) -> dt.datetime | None:
    """When work began: with the build of the environment, unless that was there already."""
    build = rollout.to_revision.environment_build if rollout.to_revision_id else None
    started = build.started_at if build is not None else None
    if started is not None and rollout.queued_at is not None and started >= rollout.queued_at:
        return started
    return rollout.environment_at
