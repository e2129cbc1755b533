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


def steps(rollout: Rollout) -> list[Step]:
    """Each step lasts from when it was reached to when the next one was; the last reached one is current."""
    reached = [getattr(rollout, f"{key}_at") for key, _ in STEPS]
    last = max((index for index, at in enumerate(reached) if at is not None), default=0)
    ended = rollout.state != Rollout.State.IN_PROGRESS
    complete = rollout.state == Rollout.State.COMPLETE
    result = []
    for index, (key, label) in enumerate(STEPS):
        following = next((at for at in reached[index + 1 :] if at is not None), None)
        if complete or index < last:
            state = "done"
        elif index > last:
            state = "todo"
        else:
            state = "failed" if ended else "current"
        end = following or (rollout.finished_at if ended and index == last else None)
        result.append(Step(key, label, state, reached[index], end))
    return result
