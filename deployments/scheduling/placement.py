"""Choosing node and device under a policy, fast enough for ten thousand nodes.

Costs live in a matrix shapes x states in use. A decision is one minimum over a row; booking it changes one node's
state, so one column is priced anew (or taken from memory, for states seen before).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from .fleet import Fleet, Placement, State
from .options import (
    Bools,
    Floats,
    GpuOptions,
    Policy,
    ShapeTable,
    choices_of,
    device_options,
    gpu_options,
)
from .shapes import Shape

_MEMORY = 20_000
"""States whose prices are remembered; beyond that, those not in use are forgotten."""


class Placer:
    """Places shapes on `fleet` under `policy`. `shapes` are those expected; others are learned when they come
    (pricing them on every state in use, some 0.1 ms each)."""

    def __init__(self, fleet: Fleet, policy: Policy, shapes: Iterable[Shape] = (), seed: int = 0) -> None:
        self.fleet = fleet
        self.policy = policy
        self.shapes = ShapeTable(shapes)
        self._random = random.Random(seed)  # noqa: S311 - tie breaking, not secrets
        self._device_table = policy.device_table()
        self._gpu_options: dict[tuple[int, ...], GpuOptions] = {}
        self._memory: dict[State, tuple[Floats, np.ndarray]] = {}
        self._rebuild()

    def find(self, shape: Shape) -> tuple[int, tuple[int, ...]] | None:
        """Node and device levels for `shape` now, or None; books nothing. Same state, same answer."""
        row = self._row(shape)
        costs = self._costs[row, : self._used]
        if self.policy.random:
            return self._draw(shape, costs)
        if not costs.size:
            return None
        lowest = costs.min()
        if lowest == np.inf:
            return None
        ties = np.flatnonzero(costs == lowest)
        column = int(ties[0] if len(ties) == 1 else ties[self._ranks[ties].argmin()])
        node = self.fleet.node_ranked(int(self._ranks[column]))
        options = device_options(self.fleet.state_of(node).gpus, (shape.gpus, shape.gpu_milli))
        return node, options[self._slots[row, column]]

    def place(self, shape: Shape) -> Placement | None:
        """Book `shape` on the best node, or answer None and change nothing."""
        found = self.find(shape)
        if found is None:
            return None
        node, takes = found
        with self._changing(node):
            return self.fleet.allocate(node, shape, takes)

    def place_all(self, shape: Shape, count: int) -> list[Placement] | None:
        """Book `count` instances, or none of them."""
        placed: list[Placement] = []
        for _ in range(count):
            placement = self.place(shape)
            if placement is None:
                for done in reversed(placed):
                    self.release(done)
                return None
            placed.append(placement)
        return placed

    def occupy(self, placement: Placement) -> None:
        """Book what runs already."""
        with self._changing(placement.node):
            self.fleet.occupy(placement)

    def close(self, node: int) -> None:
        """Let nothing more onto the node."""
        with self._changing(node):
            self.fleet.close(node)

    def release(self, placement: Placement) -> None:
        """Give back what `placement` holds."""
        with self._changing(placement.node):
            self.fleet.release(placement)

    @contextmanager
    def _changing(self, node: int) -> Iterator[None]:
        """Around a booking: prices follow the states that the node, and others of its host, had and have then."""
        touched = self.fleet.siblings(node)
        before = [self.fleet.state_of(one) for one in touched]
        yield
        for state in before:
            self._refresh(state)
        for one in touched:
            self._refresh(self.fleet.state_of(one))

    def feasible(self, shape: Shape) -> Bools:
        """[nodes] where one instance of `shape` fits now."""
        row = self._row(shape)
        fits = np.zeros(len(self.fleet.nodes), np.bool_)
        for column in np.flatnonzero(self._costs[row, : self._used] < np.inf):
            state = self._states[column]
            if state is not None:
                fits[self.fleet.members(state)] = True
        return fits

    # -- prices -------------------------------------------------------------------------------------------

    def _row(self, shape: Shape) -> int:
        row = self.shapes.index.get(shape)
        if row is None:
            self.shapes.extend([shape])
            self._memory.clear()
            self._gpu_options.clear()
            self._rebuild()
            row = self.shapes.index[shape]
        return row

    def _rebuild(self) -> None:
        states = self.fleet.states()
        room = max(64, 2 * len(states))
        self._costs = np.full((len(self.shapes), room), np.inf, np.float32)
        self._slots = np.zeros((len(self.shapes), room), np.uint8)
        self._ranks = np.zeros(room, np.int64)
        self._states: list[State | None] = [None] * room
        self._columns: dict[State, int] = {}
        self._free: list[int] = []
        self._used = 0
        for state in states:
            self._refresh(state)

    def _refresh(self, state: State) -> None:
        """Bring the column of `state` in line with the fleet."""
        column = self._columns.get(state)
        if not self.fleet.count(state):
            if column is not None:
                self._costs[:, column] = np.inf
                self._states[column] = None
                del self._columns[state]
                self._free.append(column)
            return
        if column is None:
            column = self._free.pop() if self._free else self._new_column()
            self._columns[state] = column
            self._states[column] = state
            self._costs[:, column], self._slots[:, column] = self._priced(state)
        self._ranks[column] = self.fleet.first_rank(state)

    def _new_column(self) -> int:
        if self._used == len(self._states):
            more = self._used
            self._costs = np.pad(self._costs, ((0, 0), (0, more)), constant_values=np.inf)
            self._slots = np.pad(self._slots, ((0, 0), (0, more)))
            self._ranks = np.pad(self._ranks, (0, more))
            self._states.extend([None] * more)
        self._used += 1
        return self._used - 1

    def _priced(self, state: State) -> tuple[Floats, np.ndarray]:
        known = self._memory.get(state)
        if known is None:
            if len(self._memory) >= _MEMORY:
                self._memory = {s: p for s, p in self._memory.items() if s in self._columns}
            known = self._memory[state] = self._price(state)
        return known

    def _price(self, state: State) -> tuple[Floats, np.ndarray]:
        """[S] lowest cost of each shape on `state` (infinite if it does not fit) and its device choice."""
        gpu = self._options(state.gpus)
        choices = choices_of(state, self.shapes, gpu)
        grid = np.full((len(self.shapes), gpu.width), np.inf, np.float32)
        shape, option = choices.shape[:-1], choices.option[:-1]
        if len(shape):
            grid[shape, gpu.slot[option]] = self.policy.costs(choices)[:-1]
        slot = grid.argmin(axis=1)
        return grid[np.arange(len(slot)), slot], slot.astype(np.uint8)

    def _options(self, gpus: tuple[int, ...]) -> GpuOptions:
        options = self._gpu_options.get(gpus)
        if options is None:
            options = gpu_options(gpus, self.shapes.demands, self._device_table)
            self._gpu_options[gpus] = options
        return options

    def _draw(self, shape: Shape, costs: Floats) -> tuple[int, tuple[int, ...]] | None:
        states = [self._states[column] for column in np.flatnonzero(costs < np.inf)]
        nodes = [node for state in states if state is not None for node in self.fleet.members(state)]
        if not nodes:
            return None
        node = self._random.choice(nodes)
        levels = [left for left in self.fleet.devices(node) if left >= shape.gpu_milli]
        return node, tuple(self._random.sample(levels, shape.gpus))
