"""Who has to go so that a claim can start. Simulated on the books before anything is evicted; see `grounds` for who
may have to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .books import Books
from .claims import Claim, Eviction, FairSharing, Grant, Running
from .fleet import Placement
from .grounds import Grounds
from .shapes import MILLI, Shape


def find_victims(
    books: Books, claim: Claim, flavor: str, gone: Iterable[str] = (), started: Sequence[Grant] = ()
) -> tuple[list[Eviction], Grant] | None:
    """The running claims to evict for `claim`, and where it goes then; None if no eviction helps.

    `gone` are ids of those evicted before in this pass, `started` what it granted. On success the books show the
    victims released and the claim booked; on failure they are as before.
    """
    left = set(gone)
    for rule in _rules(books.policy.fair_sharing):
        grounds = Grounds(books, claim, flavor, rule)
        found = make_room(books, claim, flavor, grounds.candidates(left), grounds.allow)
        if found is not None:
            victims, grant = found
            if grounds.sound(victims, left, started):
                return [Eviction(running, claim, grounds.reason(running)) for running in victims], grant
            books.unbook(grant)
            for running in victims:
                books.restore(running)
        if not grounds.shares:
            break
    return None


def _rules(policy: FairSharing) -> tuple[FairSharing, ...]:
    """The stricter rule first: it takes from nobody more than it must."""
    if policy is FairSharing.INITIAL_SHARE:
        return (FairSharing.FINAL_SHARE, FairSharing.INITIAL_SHARE)
    return (policy,)


def make_room(
    books: Books,
    claim: Claim,
    flavor: str,
    candidates: Sequence[Running],
    allowed: Callable[[Running], bool] = lambda running: True,
) -> tuple[list[Running], Grant] | None:
    """Release as few and as cheap `candidates` (cheapest first) as it takes to book `claim`.

    `allowed` is asked right before each release. On success the books show the outcome; otherwise None, and the
    books are as before.
    """
    if not candidates:
        return None
    released: list[Running] = []

    def release(running: Running) -> bool:
        if not allowed(running):
            return False
        books.release(running)
        released.append(running)
        return True

    if books.placer is not None and not _nodes_suffice(books, claim, flavor):
        for running in _on_best_nodes(books, claim, flavor, candidates):
            release(running)
    grant = _try(books, claim, flavor) if released else None
    for running in candidates if grant is None else ():
        if running in released or not release(running):
            continue
        grant = _try(books, claim, flavor)
        if grant is not None:
            break
    if grant is None:
        for running in reversed(released):
            books.restore(running)
        return None
    grant, victims = _fill_back(books, grant, released)
    return victims, grant


def _nodes_suffice(books: Books, claim: Claim, flavor: str) -> bool:
    """Whether nodes alone, quota aside, have room for the whole claim now."""
    placements = books.try_place(claim, flavor)
    for placement in placements or ():
        books.unplace(placement)
    return placements is not None


def _try(books: Books, claim: Claim, flavor: str) -> Grant | None:
    outcome = books.try_book(claim, flavor)
    return outcome if isinstance(outcome, Grant) else None


def _fill_back(books: Books, grant: Grant, released: list[Running]) -> tuple[Grant, list[Running]]:
    """Let everyone stay who need not go, the most valuable first; the claim may move to make that possible."""
    victims: list[Running] = []
    for running in reversed(released):
        books.unbook(grant)
        if books.restore(running):
            again = _try(books, grant.claim, grant.flavor)
            if again is not None:
                grant = again
                continue
            books.release(running)
        else:
            books.forget()
        if not books.book(grant):
            raise RuntimeError("a place that was free a moment ago is not")
        victims.append(running)
    return grant, victims[::-1]


# -- where room is cheapest to make -------------------------------------------------------------------------


@dataclass(slots=True)
class _Room:
    """Free resources of one node, as numbers to try things on."""

    cpu: int
    memory: int
    devices: list[int]

    def add(self, placement: Placement) -> None:
        self.cpu += placement.shape.cpu_milli
        self.memory += placement.shape.memory_mib
        for device in placement.devices:
            self.devices[device] += placement.shape.gpu_milli

    def put(self, shape: Shape) -> bool:
        """Take `shape` out of the room, tightest devices first; False and no change if it does not fit."""
        fitting = sorted(d for d, left in enumerate(self.devices) if left >= shape.gpu_milli > 0)
        fitting.sort(key=lambda d: self.devices[d])
        if self.cpu < shape.cpu_milli or self.memory < shape.memory_mib or len(fitting) < shape.gpus:
            return False
        self.cpu -= shape.cpu_milli
        self.memory -= shape.memory_mib
        for device in fitting[: shape.gpus]:
            self.devices[device] -= shape.gpu_milli
        return True

    def copy(self) -> _Room:
        return _Room(self.cpu, self.memory, list(self.devices))


def _on_best_nodes(books: Books, claim: Claim, flavor: str, candidates: Sequence[Running]) -> list[Running]:
    """Victims grouped so that whole instances fit: the cheapest node first, until the claim is placed.

    Scattered victims free many devices on many nodes, none of them enough; so the choice is made node by node.
    """
    placer = books.placer
    if placer is None:
        return []
    shape = books.shape(claim, flavor)
    by_node: dict[int, list[Running]] = {}
    for running in candidates:
        for node in sorted({p.node for p in books.known(running)}):
            if not shape.models or placer.fleet.nodes[node].model in shape.models:
                by_node.setdefault(node, []).append(running)
    rooms: dict[int, _Room] = {}
    chosen: dict[str, Running] = {}
    free = int(placer.feasible(shape).sum())
    left = claim.count - min(free, claim.count - 1)
    while left > 0:
        best: tuple[tuple[int, int, int], list[Running], int] | None = None
        for node, there in by_node.items():
            plan = _cheapest(books, rooms, node, there, chosen, shape)
            if plan is None:
                continue
            cost = (max((r.claim.priority for r in plan), default=-(10**9)), _lost(books, plan), node)
            if best is None or cost < best[0]:
                best = (cost, plan, node)
        if best is None:
            return []
        _, plan, node = best
        for running in plan:
            chosen[running.claim.id] = running
            for placement in books.known(running):
                _room(books, rooms, placement.node).add(placement)
        _room(books, rooms, node).put(shape)
        left -= 1
    return list(chosen.values())


def _room(books: Books, rooms: dict[int, _Room], node: int) -> _Room:
    if node not in rooms:
        assert books.placer is not None
        fleet = books.placer.fleet
        state = fleet.state_of(node)
        rooms[node] = _Room(state.cpu_milli, state.memory_mib, list(fleet.devices(node)))
    return rooms[node]


def _cheapest(
    books: Books,
    rooms: dict[int, _Room],
    node: int,
    there: list[Running],
    chosen: dict[str, Running],
    shape: Shape,
) -> list[Running] | None:
    """Fewest candidates on `node`, in order, whose going lets one instance in; None if not even all do."""
    room = _room(books, rooms, node).copy()
    plan: list[Running] = []
    waiting = [running for running in there if running.claim.id not in chosen]
    while not room.copy().put(shape):
        if not waiting:
            return None
        running = waiting.pop(0)
        plan.append(running)
        for placement in books.known(running):
            if placement.node == node:
                room.add(placement)
    for running in plan[:-1]:
        trial = room.copy()
        for placement in books.known(running):
            if placement.node == node:
                trial.cpu -= placement.shape.cpu_milli
                trial.memory -= placement.shape.memory_mib
                for device in placement.devices:
                    trial.devices[device] -= placement.shape.gpu_milli
        if trial.copy().put(shape):
            plan = [other for other in plan if other is not running]
            room = trial
    return plan


def _lost(books: Books, plan: list[Running]) -> int:
    """GPU-seconds of work thrown away, in thousandths."""
    return sum(int(r.claim.demand / MILLI * max(0.0, books.snapshot.now - r.started)) for r in plan)
