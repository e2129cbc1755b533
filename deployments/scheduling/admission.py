"""The admission pass: who may start, who has to go, who waits and why. Pure: same snapshot, same answer.

Order: claims with a place already made for them; then by the weighted dominant share the project and its cohorts
would have with the claim, then priority, then age. A claim that does not fit does not stop those behind it
(backfill) until it has waited `hold_after`; from then on what it needs is held back for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from .books import Block, Books
from .claims import Claim, FairSharing, Grant, PassResult, Running, Snapshot
from .explain import Explainer, refusal
from .fairness import weighted_share
from .preemption import find_victims

PREEMPTION_BUDGET = 40_000
"""Running claims looked at per pass in searches for victims (32 searches at least): keeps a pass below a second.
Claims beyond it get their search in a later pass, when those before them have moved on."""

_Key = tuple[tuple[float, ...], int, float, str]


def run_pass(snapshot: Snapshot, until: str = "") -> PassResult:
    """One admission pass over `snapshot`; with `until` only as far as the claim of that id, and without explanations.

    Every waiting claim gets an answer in the result, except those not reached with `until`.
    """
    books = Books(snapshot)
    result = PassResult()
    leaving = [running for running in snapshot.running if running.evicted_for]
    queue = _honour_reservations(books, result, leaving)
    blocked: list[tuple[Claim, Block]] = []
    refused: dict[tuple[object, ...], tuple[str, str] | None] = {}
    searches = _Searches(len(snapshot.running))
    held: set[str] = set()
    if until and any(grant.claim.id == until for grant in [*result.granted, *result.reserved]):
        return result
    last = ""
    for claim in _in_turn(books, queue):
        if until and last == until:
            return result
        last = claim.id
        kind = (claim.project, claim.shape, claim.count, claim.flavors)
        if kind not in refused:
            refused[kind] = refusal(books, claim)
        problem = refused[kind]
        if problem is not None:
            result.refused.append(Explainer.refused(claim, *problem))
            continue
        outcome = _admit(books, claim)
        if isinstance(outcome, Grant):
            result.granted.append(outcome)
            continue
        made = _make_room(books, claim, searches, result)
        if made is not None:
            result.reserved.append(made)
            continue
        blocked.append((claim, outcome))
        if snapshot.now - claim.created >= snapshot.policy.hold_after and outcome.flavor not in held:
            held.add(outcome.flavor)
            books.hold(claim, outcome.flavor)
    if not until:
        result.waiting = Explainer(books, result).waiting(blocked)
    return result


def _honour_reservations(books: Books, result: PassResult, leaving: list[Running]) -> list[Claim]:
    """Give claims for whom others were evicted the place made for them; answers the remaining claims.

    While victims are still ending, their place counts as the claim's, so that nobody slips in between.
    """
    snapshot, rest = books.snapshot, []
    for claim in snapshot.waiting:
        grant = snapshot.reserved.get(claim.id)
        if grant is None:
            rest.append(claim)
            continue
        victims = [running for running in leaving if running.evicted_for == claim.id]
        for victim in victims:
            books.release(victim)
        if books.book(grant):
            (result.reserved if victims else result.granted).append(grant)
            continue
        for victim in victims:
            books.restore(victim)
        rest.append(claim)
    return rest


def _in_turn(books: Books, claims: list[Claim]) -> Iterator[Claim]:
    """Every claim once, each time the one whose turn it is given what is booked by then."""
    lines: dict[str, list[Claim]] = {}
    for claim in claims:
        lines.setdefault(claim.project, []).append(claim)
    for line in lines.values():
        line.sort(key=lambda claim: (-claim.priority, claim.created, claim.id), reverse=True)
    snapshot, tree = books.snapshot, books.tree
    shares: dict[tuple[str, str, int], tuple[int, tuple[float, ...]]] = {}

    def key(project: str) -> _Key:
        head = lines[project][-1]
        kind = (project, head.flavors[0], head.demand)
        version, share = shares.get(kind, (-1, (0.0,)))
        if version != tree.version and project in tree.owners:
            past = snapshot.past_use.get(project, 0.0)
            share = weighted_share(tree, project, snapshot.policy.decay, past, *kind[1:])
            shares[kind] = (tree.version, share)
        return (share, -head.priority, head.created, head.id)

    heap = [(key(project), project) for project in lines]
    heapq.heapify(heap)
    while heap:
        known, project = heapq.heappop(heap)
        current = key(project)
        if current > known:  # others' borrowing only ever raises a share within a pass
            heapq.heappush(heap, (current, project))
            continue
        yield lines[project].pop()
        if lines[project]:
            heapq.heappush(heap, (key(project), project))


def flavors_now(claim: Claim, now: float) -> tuple[str, ...]:
    """Flavors the claim accepts by now: the first, and the others once it has waited long enough."""
    return claim.flavors if now - claim.created >= claim.fallback_after else claim.flavors[:1]


def _admit(books: Books, claim: Claim) -> Grant | Block:
    first: Block | None = None
    for flavor in flavors_now(claim, books.snapshot.now):
        outcome = books.try_book(claim, flavor)
        if isinstance(outcome, Grant):
            return outcome
        first = first or outcome
    assert first is not None
    return first


class _Searches:
    """Which searches for victims failed already, so that equal claims do not repeat them."""

    def __init__(self, running: int) -> None:
        self.left = max(32, PREEMPTION_BUDGET // (running + 1))
        self.failed: set[tuple[object, ...]] = set()


def _make_room(books: Books, claim: Claim, searches: _Searches, result: PassResult) -> Grant | None:
    policy = books.policy
    grounds = policy.preempt_within_project or policy.reclaim or policy.fair_sharing is not FairSharing.OFF
    if not grounds or searches.left <= 0:
        return None
    kind = (claim.project, claim.shape, claim.count, claim.flavors, claim.priority)
    if kind in searches.failed:
        return None
    gone = {eviction.running.claim.id for eviction in result.evictions}
    for flavor in flavors_now(claim, books.snapshot.now):
        searches.left -= 1
        found = find_victims(books, claim, flavor, gone, [*result.granted, *result.reserved])
        if found is not None:
            evictions, grant = found
            result.evictions.extend(evictions)
            return grant
    searches.failed.add(kind)
    return None
