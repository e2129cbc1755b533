"""Which placements a node's state allows, for many shapes at once.

A policy prices post-placement states. The GPU side of a state enters through sums over devices of a table indexed
by thousandths left (`Policy.device_table`), so a placement changes that sum by two table rows per device taken;
this keeps pricing a few matrix operations for all shapes together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .fleet import State
from .shapes import MILLI, Shape

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class ShapeTable:
    """Shapes known to a placer, as arrays; grows, never shrinks.

    `cpu`, `memory` and `milli` (GPU thousandths in all) have one entry more than there are shapes: nothing, 0.
    """

    def __init__(self, shapes: Iterable[Shape] = ()) -> None:
        self.shapes: list[Shape] = []
        self.index: dict[Shape, int] = {}
        self.demands: list[tuple[int, int]] = []
        self._demand_index: dict[tuple[int, int], int] = {}
        self._admissible: dict[str, Bools] = {}
        self.cpu: Ints = np.zeros(0, np.int64)
        self.memory: Ints = np.zeros(0, np.int64)
        self.demand: Ints = np.zeros(0, np.int64)
        self.milli: Ints = np.zeros(0, np.int64)
        self.extend(shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def extend(self, shapes: Iterable[Shape]) -> bool:
        """Add those not known yet; answers whether there was one."""
        before = len(self.shapes)
        for shape in shapes:
            if shape in self.index:
                continue
            self.index[shape] = len(self.shapes)
            self.shapes.append(shape)
            demand = (shape.gpus, shape.gpu_milli)
            if demand not in self._demand_index:
                self._demand_index[demand] = len(self.demands)
                self.demands.append(demand)
        if len(self.shapes) == before:
            return False
        self.cpu = np.array([s.cpu_milli for s in self.shapes] + [0], np.int64)
        self.memory = np.array([s.memory_mib for s in self.shapes] + [0], np.int64)
        self.milli = np.array([s.demand_milli for s in self.shapes] + [0], np.int64)
        self.demand = np.array([self._demand_index[s.gpus, s.gpu_milli] for s in self.shapes], np.int64)
        self._admissible.clear()
        return True

    def admissible(self, model: str) -> Bools:
        """[S] whether each shape may run on that GPU product."""
        known = self._admissible.get(model)
        if known is None:
            known = np.array([not s.models or model in s.models for s in self.shapes], np.bool_)
            self._admissible[model] = known
        return known


def device_options(gpus: tuple[int, ...], demand: tuple[int, int]) -> list[tuple[int, ...]]:
    """Ways to serve `demand` from devices with `gpus` thousandths left (ascending), tightest first.

    A share of one device may go on any level that holds it. Several devices take the tightest that hold the
    share; for whole devices there is nothing to choose.
    """
    count, milli = demand
    if count == 0:
        return [()]
    fitting = [left for left in gpus if left >= milli]
    if len(fitting) < count:
        return []
    if count == 1:
        return [(left,) for left in sorted(set(fitting))]
    return [tuple(fitting[:count])]


@dataclass(slots=True)
class GpuOptions:
    """Device choices of all demands on one vector of devices.

    `takes[o]` are the levels used, `demand[o]` and `slot[o]` say which demand's which choice that is,
    `rows[o]` is the policy's table summed over the devices afterwards; one more row holds the sum as it is now.
    """

    takes: list[tuple[int, ...]]
    demand: Ints
    slot: Ints
    rows: Floats
    width: int


def gpu_options(gpus: tuple[int, ...], demands: list[tuple[int, int]], table: Floats) -> GpuOptions:
    takes: list[tuple[int, ...]] = []
    demand_of: list[int] = []
    slots: list[int] = []
    for index, demand in enumerate(demands):
        for slot, take in enumerate(device_options(gpus, demand)):
            takes.append(take)
            demand_of.append(index)
            slots.append(slot)
    before = table[list(gpus)].sum(axis=0) if gpus else np.zeros(table.shape[1], np.float32)
    rows = np.repeat(before[None, :], len(takes) + 1, axis=0)
    option = np.array([o for o, take in enumerate(takes) for _ in take], np.int64)
    level = np.array([left for take in takes for left in take], np.int64)
    after = np.array([left - demands[demand_of[o]][1] for o, take in enumerate(takes) for left in take], np.int64)
    if len(option):
        change = table[after] - table[level]
        if len(option) == len(np.unique(option)):
            rows[option] += change
        else:
            np.add.at(rows, option, change)
    return GpuOptions(
        takes,
        np.array(demand_of, np.int64),
        np.array(slots, np.int64),
        rows.astype(np.float32, copy=False),
        max(slots, default=0) + 1,
    )


@dataclass(slots=True)
class Choices:
    """All feasible (shape, device choice) pairs of one state; `shape` and `option` are parallel, by shape.

    The last pair stands for leaving the state as it is: shape number S, one past the last, asks for nothing.
    """

    state: State
    table: ShapeTable
    gpu: GpuOptions
    shape: Ints
    option: Ints


class Policy(Protocol):
    """How good a placement is. Lower cost is better; only differences between states matter."""

    name: str
    random: bool
    """Whether to ignore costs and draw node and device at random."""

    def device_table(self) -> Floats:
        """[MILLI + 1, C] summed over a node's devices by thousandths left; see `GpuOptions.rows`."""
        ...

    def costs(self, choices: Choices) -> Floats:
        """[P] cost of each pair of `choices`; the last one's does not matter."""
        ...


def choices_of(state: State, table: ShapeTable, gpu: GpuOptions) -> Choices:
    """The pairs that fit: CPU, memory, admissible product, and a device choice."""
    fits = (table.cpu <= state.cpu_milli) & (table.memory <= state.memory_mib)
    fits = fits[:-1] & table.admissible(state.model)
    shape, option = np.nonzero((table.demand[:, None] == gpu.demand[None, :]) & fits[:, None])
    return Choices(state, table, gpu, np.append(shape, len(table)), np.append(option, len(gpu.takes)))


LEVELS = np.arange(MILLI + 1, dtype=np.float32)
"""Thousandths left, the index of every device table."""
