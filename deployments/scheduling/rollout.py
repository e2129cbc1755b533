"""How a deployment with GPUs moves to its next revision: start the new instance first, or hand the GPU over."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .books import Block, Books
from .claims import Running, Snapshot
from .shapes import Shape


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """`kind` is 'surge', 'hand-over' or 'blocked'; the numbers are those of a Kubernetes rolling update.

    `gap_seconds` is how long in all an instance is missing, 0 with surge. `sentence` announces it.
    """

    kind: str
    max_surge: int
    max_unavailable: int
    gap_seconds: float
    sentence: str


def plan_rollout(snapshot: Snapshot, running: Running, shape: Shape, start_seconds: float) -> RolloutPlan:
    """Plan for replacing the instances of `running` by ones of `shape` that take `start_seconds` to get ready.

    Waiting for a free slice that the old instance itself holds would never end; so without one, instances are
    replaced in place one at a time.
    """
    books = Books(snapshot)
    count = running.claim.count
    one = replace(running.claim, shape=shape, count=1)
    surge = books.try_book(one, running.flavor)
    if not isinstance(surge, Block):
        return RolloutPlan(
            "surge", 1, 0, 0.0, "A slice is free: each new instance starts before an old one stops, without a gap."
        )
    books.tree.give_back(one.project, running.flavor, running.claim.shape.demand_milli)
    for placement in books.known(running)[:1]:
        books.unplace(placement)
    books.forget()
    if isinstance(books.try_book(one, running.flavor), Block):
        return RolloutPlan(
            "blocked",
            0,
            0,
            0.0,
            f"The new revision asks for {shape.describe()} per instance, which does not fit even after an old one "
            "has stopped. Choose a smaller instance type, or free a larger slice first.",
        )
    gap = start_seconds * count
    if count == 1:
        sentence = (
            f"No other slice is free, so the GPU is handed over: the endpoint is away for about {start_seconds:.0f} s "
            "while the new instance starts."
        )
    else:
        sentence = (
            f"No other slice is free, so instances are replaced one at a time: {count - 1} of {count} serve for about "
            f"{gap:.0f} s."
        )
    return RolloutPlan("hand-over", 0, 1, gap, sentence)
