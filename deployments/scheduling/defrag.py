"""Defragmentation advice: which instances to move so that one node has more whole GPUs free. A dry run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .books import Books
from .claims import Running, Snapshot
from .fleet import Placement
from .shapes import MILLI, PlannerInputError

MAX_NODES_TRIED = 12


@dataclass(frozen=True, slots=True)
class Move:
    """One instance of a running claim goes from `origin` to `target`."""

    running: Running
    origin: Placement
    target: Placement


@dataclass(frozen=True, slots=True)
class Advice:
    """Carry out `moves`, and `node` has `slice_after` whole GPUs free; the largest such slice is `slice_before`."""

    node: int
    slice_before: int
    slice_after: int
    moves: tuple[Move, ...]


def advise(snapshot: Snapshot, flavor: str, max_moves: int = 8) -> Advice | None:
    """The moves, at most `max_moves`, that free the largest slice of `flavor`; None if none beats what is free.

    Only claims move that are evictable and have run for the minimum run time; pods of others stay where they are. The
    largest slice wins, then fewer moves.
    """
    if snapshot.nodes is None:
        raise PlannerInputError("nodes", "advice needs to know the nodes")
    books = Books(snapshot)
    if flavor not in books.flavors:
        raise PlannerInputError("flavor", f"{flavor!r} is not known; known are {', '.join(sorted(books.flavors))}")
    assert books.placer is not None
    fleet, models = books.placer.fleet, books.flavors[flavor].models
    nodes = [i for i, node in enumerate(snapshot.nodes) if node.gpus and (not models or node.model in models)]
    free = {node: sum(left == MILLI for left in fleet.devices(node)) for node in nodes}
    now = max(free.values(), default=0)
    movable = _movable(books)
    plans = [
        (-reach, len(leaving), node, leaving)
        for node in nodes
        for reach, leaving in _ways(books, node, movable.get(node, []), max_moves)
        if reach > now
    ]
    best: Advice | None = None
    tried: set[int] = set()
    for minus_reach, _, node, leaving in sorted(plans, key=lambda plan: plan[:3]):
        if best is not None and best.slice_after >= -minus_reach:
            break
        if node not in tried and len(tried) >= MAX_NODES_TRIED:
            continue
        tried.add(node)
        moves = _carry_out(snapshot, node, leaving)
        if moves is not None:
            best = Advice(node, now, -minus_reach, moves)
    return best


def _movable(books: Books) -> dict[int, list[tuple[Running, Placement]]]:
    """Instances that may move, by node."""
    found: dict[int, list[tuple[Running, Placement]]] = {}
    for running in books.snapshot.running:
        if not _may_move(books, running):
            continue
        for placement in books.known(running):
            if placement.devices:
                found.setdefault(placement.node, []).append((running, placement))
    return found


def _ways(
    books: Books, node: int, there: list[tuple[Running, Placement]], max_moves: int
) -> Iterator[tuple[int, list[tuple[Running, Placement]]]]:
    """Whole GPUs free on `node` after moving away more and more of those `there`, the emptiest devices first."""
    assert books.placer is not None
    left, movable = list(books.placer.fleet.devices(node)), list(there)
    leaving: list[tuple[Running, Placement]] = []
    while movable:
        device = min(
            {device for _, placement in movable for device in placement.devices},
            key=lambda d: (sum(d in placement.devices for _, placement in movable), -left[d], d),
        )
        for item in [item for item in movable if device in item[1].devices]:
            movable.remove(item)
            leaving.append(item)
            for held in item[1].devices:
                left[held] += item[1].shape.gpu_milli
        if len(leaving) > max_moves:
            return
        yield sum(level == MILLI for level in left), list(leaving)


def _may_move(books: Books, running: Running) -> bool:
    ran = books.snapshot.now - running.started
    return running.evictable and not running.evicted_for and ran >= books.policy.min_run_seconds


def _carry_out(snapshot: Snapshot, node: int, leaving: list[tuple[Running, Placement]]) -> tuple[Move, ...] | None:
    """Targets for all of `leaving` on other nodes, or None."""
    books = Books(snapshot)
    placer = books.placer
    assert placer is not None
    for _, placement in leaving:
        placer.release(placement)
    placer.close(node)
    moves = []
    for running, origin in sorted(leaving, key=lambda item: -item[1].shape.demand_milli):
        target = placer.place(books.shape(running.claim, running.flavor))
        if target is None:
            return None
        moves.append(Move(running, origin, target))
    return tuple(moves)
