"""Exactly who stands in the way of one claim, for its owner's page: costs some passes, so not for all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from .admission import flavors_now, run_pass
from .books import Books
from .claims import Claim, Running, Snapshot
from .preemption import make_room
from .shapes import PlannerInputError

T = TypeVar("T")

MAX_PASSES = 20
"""Passes per question: on a large cluster the answer may then name bystanders too."""


@dataclass(frozen=True, slots=True)
class Blockers:
    """Without `running` and `waiting` the claim would be placed in the next pass.

    If `minimal`, it would not be with any one of them. Both empty: it is placed already, or nothing that others do
    can place it (`placeable` False).
    """

    claim: Claim
    running: tuple[Running, ...] = ()
    waiting: tuple[Claim, ...] = ()
    placeable: bool = True
    minimal: bool = True


def find_blockers(snapshot: Snapshot, claim_id: str, max_passes: int = MAX_PASSES) -> Blockers:
    """Who must go or step back for the claim; checked by running the pass without them."""
    claim = next((c for c in snapshot.waiting if c.id == claim_id), None)
    if claim is None:
        raise PlannerInputError("claim", f"{claim_id!r} is not waiting")
    trial = _Trial(snapshot, claim, max_passes)
    if trial.placed((), ()):
        return Blockers(claim)
    first = trial.served
    others = tuple(c for c in snapshot.waiting if c.id != claim.id)
    running, waiting = snapshot.running, others
    if not trial.placed(running, waiting):
        return Blockers(claim, placeable=False)
    for withdrawn in ((), first, others):
        fewer = _in_the_way(snapshot, claim, withdrawn)
        if fewer is not None and trial.placed(fewer, withdrawn):
            running, waiting = fewer, withdrawn
            break
    waiting = trial.needed(waiting, lambda rest: trial.placed(running, rest))
    running = trial.needed(running, lambda rest: trial.placed(rest, waiting))
    return Blockers(claim, running, waiting, minimal=trial.left > 0)


class _Trial:
    """Passes without some running or waiting claims."""

    def __init__(self, snapshot: Snapshot, claim: Claim, passes: int) -> None:
        self.snapshot, self.claim, self.left = snapshot, claim, max(8, passes)
        self.served: tuple[Claim, ...] = ()
        """Who got something in the last pass before the claim's turn came."""

    def placed(self, running: Sequence[Running], waiting: Sequence[Claim]) -> bool:
        """Whether a pass without those grants the claim."""
        self.left -= 1
        gone, back = {r.claim.id for r in running}, {c.id for c in waiting}
        outcome = run_pass(
            replace(
                self.snapshot,
                running=tuple(r for r in self.snapshot.running if r.claim.id not in gone),
                waiting=tuple(c for c in self.snapshot.waiting if c.id not in back),
            ),
            until=self.claim.id,
        )
        self.served = tuple(grant.claim for grant in [*outcome.granted, *outcome.reserved])
        return any(claim.id == self.claim.id for claim in self.served)

    def needed(self, items: Sequence[T], enough: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
        """A subset of `items` that is still `enough` and from which nothing can be left out, as far as passes last.

        Halves are dropped first, so that few passes go into long lists of bystanders.
        """
        kept = list(items)
        step = max(1, len(kept) // 2)
        while step >= 1 and kept:
            start = 0
            while start < len(kept) and self.left > 0:
                rest = kept[:start] + kept[start + step :]
                if enough(rest):
                    kept = rest
                else:
                    start += step
            step //= 2
        return tuple(kept)


def _in_the_way(snapshot: Snapshot, claim: Claim, withdrawn: Sequence[Claim]) -> tuple[Running, ...] | None:
    """A cheap set of running claims whose going lets the claim in, the queue aside; None if there is none."""
    back = {c.id for c in withdrawn}
    left = tuple(c for c in snapshot.waiting if c.id not in back)
    for flavor in flavors_now(claim, snapshot.now):
        books = Books(replace(snapshot, waiting=left))
        candidates = sorted(snapshot.running, key=lambda r: (r.flavor != flavor, r.claim.demand, r.claim.id))
        found = make_room(books, claim, flavor, candidates)
        if found is not None:
            return tuple(found[0])
    return () if withdrawn else None
