"""The Pilothouse placement policy: give up as little as possible of what the typical workload could still use.

The cost of a placement is the loss of the node's value, a weighted sum over what is free on it (see `Weights`):
the worth of every leftover piece of a device at cutting-stock prices, the fragmentation of FGD (which see), how
often each kind of task still fits, and GPUs stranded by used-up CPU or memory.

The weights were fitted by an evolution strategy on variations of a public trace (more constrained, more multi-GPU,
more CPU, all shares), with other arrival orders than those reported; only frequencies of shapes enter, never order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .cutting import leftover_worth
from .options import LEVELS, Choices, Floats
from .shapes import MILLI
from .workload import Workload

KINDS = 64
"""Kinds of tasks the typical workload is condensed to."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part of a node's value counts, per GPU; positive for what one wants to have little of.

    fragmentation: GPUs a typical task cannot use (FGD); worth: leftovers at cutting-stock prices; uses_single and
    uses_multi: GPUs that single and multi-GPU tasks could use, by their part of demand; fits_count and
    fits_demand: chance that a typical task fits, by number and by demand, fits_twice: by demand, counting up to
    two; opened_devices: devices in part use; cpu_25, cpu_75, cpu_92: GPUs stranded if tasks come that want as much
    CPU per GPU as that percentile; memory_85: the same for memory; cpu_memory: by whichever is short, for the mean
    task; product: GPUs of a product that choosy tasks need, times the square of the part they claim.
    They were fitted together, so that single signs say little.
    """

    fragmentation: float = 1.007
    worth: float = -6.474
    uses_single: float = 0.551
    uses_multi: float = -0.827
    fits_count: float = -0.913
    fits_demand: float = -0.088
    fits_twice: float = 0.788
    opened_devices: float = 0.25
    cpu_25: float = 0.599
    cpu_75: float = -0.851
    cpu_92: float = 0.803
    memory_85: float = 1.254
    cpu_memory: float = 1.347
    product: float = 1.5


class PilothousePolicy:
    """See module. `workload` is the platform's history, None before there is any; `capacity` is the number of GPUs
    per product, without which all products count as equally sought after."""

    name = "pilothouse"
    random = False

    def __init__(
        self,
        workload: Workload | None,
        capacity: Mapping[str, int] | None = None,
        weights: Weights | None = None,
    ) -> None:
        self.weights = w = weights or Weights()
        full = workload or Workload((), ())
        typical = full.condensed(KINDS)
        self._shapes = typical.shapes
        count = np.array(typical.weights, np.float32)
        demand = typical.demand_shares()
        self._gpus = typical.column("gpus")
        self._milli = typical.column("gpu_milli")
        self._cpu = typical.column("cpu_milli").astype(np.float32)
        self._memory = typical.column("memory_mib").astype(np.float32)
        single = (self._gpus == 1) & (self._milli == MILLI)
        gpu = self._gpus > 0
        uses = np.where(single, w.uses_single, np.where(self._gpus > 1, w.uses_multi, 0.0))
        self._per_task = (uses * demand * self._gpus * self._milli / MILLI).astype(np.float32)
        self._first = (w.fits_count * count + w.fits_demand * demand).astype(np.float32)
        self._second = (w.fits_twice * demand).astype(np.float32)
        self._fragmentation = np.where(gpu, w.fragmentation * count, 0.0).astype(np.float32)
        self._fragmentation_base = np.float32(w.fragmentation * count.sum())
        self._ratios(full)
        self._worth = _worth(full)
        self._claimed = claimed_products(full, capacity or {})
        self._admissible: dict[str, Floats] = {}
        self._per_device = np.where(self._gpus == 1, 1, 1 / np.maximum(self._gpus, 1)).astype(np.float32)
        self._any_device = np.where(gpu, 0, 1e9).astype(np.float32)
        self._divisors = (np.maximum(self._cpu, 1)[None, :], np.maximum(self._memory, 1)[None, :])

    def _ratios(self, workload: Workload) -> None:
        """CPU and memory per GPU of typical tasks, by demand: quantiles and means; infinite without any."""
        self._cpu_per_gpu: tuple[float, ...] = (np.inf, np.inf, np.inf, np.inf)
        self._memory_per_gpu = (np.inf, np.inf)
        share = workload.demand_shares()
        use = share > 0
        if not use.any():
            return
        gpus, share = workload.column("demand_milli")[use] / MILLI, share[use]
        cpu, memory = workload.column("cpu_milli")[use] / gpus, workload.column("memory_mib")[use] / gpus
        at = [_quantile(cpu, share, q) for q in (0.25, 0.75, 0.92)]
        self._cpu_per_gpu = (*[max(1.0, q) for q in at], max(1.0, float(cpu @ share)))
        self._memory_per_gpu = (max(1.0, _quantile(memory, share, 0.85)), max(1.0, float(memory @ share)))

    def device_table(self) -> Floats:
        """Columns: GPUs free, own cost of the piece, then per kind: pieces of its share that fit,
        and GPUs on devices that hold its share."""
        w, level = self.weights, LEVELS[:, None]
        part = ((LEVELS > 0) & (LEVELS < MILLI)).astype(np.float32)
        own = w.opened_devices * part + w.worth * self._worth
        milli = np.maximum(self._milli, 1)[None, :]
        shares = ((self._gpus == 1) & (self._milli < MILLI))[None, :]
        pieces = np.where(shares, level // milli, level == MILLI)
        holding = np.where((level >= milli) & (self._gpus > 0), level / MILLI, 0.0)
        scalars = np.stack([LEVELS / MILLI, own], axis=1)
        return np.concatenate([scalars, pieces, holding], axis=1).astype(np.float32)

    def costs(self, choices: Choices) -> Floats:
        values = self._values(choices)
        return values - values[-1]

    def _values(self, choices: Choices) -> Floats:
        """[P] cost of the states that the pairs leave behind."""
        state, table, rows, kinds = choices.state, choices.table, choices.gpu.rows, len(self._milli)
        shape, option = choices.shape, choices.option
        cpu = (state.cpu_milli - table.cpu).astype(np.float32)
        memory = (state.memory_mib - table.memory).astype(np.float32)
        free, own = rows[:, 0], rows[:, 1]
        by_host = np.minimum(cpu[:, None] / self._divisors[0], memory[:, None] / self._divisors[1])
        by_host = np.maximum(np.floor(by_host), 0) * self._may_use(state.model)
        # Pieces are whole numbers; a little more keeps 8 x 1/8 from rounding down to 0.
        by_device = np.floor(rows[:, 2 : 2 + kinds] * self._per_device + 1e-3) + self._any_device
        saved = self._first - rows[:, 2 + kinds :] * self._fragmentation
        price = self._fragmentation_base - self.weights.product * self._claimed.get(state.model, 0.0) ** 2
        option_cost = own + np.float32(price) * free

        times = by_host[shape]
        np.minimum(times, by_device[option], out=times)
        cost = option_cost[option] + times @ self._per_task
        np.minimum(times, 2, out=times)
        cost += times @ self._second
        np.minimum(times, 1, out=times)
        cost += np.einsum("pk,pk->p", times, saved[option])
        return cost + self._stranded(free[option], cpu[shape], memory[shape])

    def _stranded(self, free: Floats, cpu: Floats, memory: Floats) -> Floats:
        w = self.weights
        low, high, higher, mean = self._cpu_per_gpu
        heavy, mean_memory = self._memory_per_gpu
        cost = w.cpu_25 * np.maximum(free - cpu / low, 0) + w.cpu_75 * np.maximum(free - cpu / high, 0)
        cost += w.cpu_92 * np.maximum(free - cpu / higher, 0)
        cost += w.memory_85 * np.maximum(free - memory / heavy, 0)
        cost += w.cpu_memory * np.maximum(free - np.minimum(cpu / mean, memory / mean_memory), 0)
        return cost.astype(np.float32)

    def _may_use(self, model: str) -> Floats:
        known = self._admissible.get(model)
        if known is None:
            known = np.array([not s.models or model in s.models for s in self._shapes], np.float32)
            self._admissible[model] = known
        return known


def claimed_products(workload: Workload, capacity: Mapping[str, int]) -> dict[str, float]:
    """Part of each product's GPUs, 0 to 1, that tasks which cannot go elsewhere will want when the fleet is full.

    Tasks are spread over the products they admit, the choosiest first, in proportion to what is left there; each
    counts by the part of the fleet it does not admit, so tasks that take anything count nothing.
    """
    total = sum(capacity.values())
    if not total:
        return {}
    left = {product: float(count) for product, count in capacity.items()}
    claimed = dict.fromkeys(capacity, 0.0)
    demand: dict[frozenset[str], float] = {}
    for shape, share in zip(workload.shapes, workload.demand_shares().tolist(), strict=True):
        if shape.models:
            known = frozenset(shape.models & capacity.keys())
            demand[known] = demand.get(known, 0.0) + share * total
    for names in sorted(demand, key=lambda names: (sum(capacity[n] for n in names), sorted(names))):
        admitted = sorted(names)
        room = sum(left[name] for name in admitted)
        choosy = 1 - sum(capacity[name] for name in admitted) / total
        for name in admitted if room else ():
            part = min(left[name], demand[names] * left[name] / room)
            claimed[name] += part * choosy
            left[name] -= part
    return {name: claimed[name] / count for name, count in capacity.items() if count}


def _worth(workload: Workload) -> Floats:
    shares: dict[int, float] = {}
    for shape, weight in zip(workload.shapes, workload.weights, strict=True):
        if shape.gpus == 1 and shape.gpu_milli < MILLI:
            shares[shape.gpu_milli] = shares.get(shape.gpu_milli, 0.0) + weight
    sizes = sorted(shares)
    return leftover_worth(sizes, [shares[size] for size in sizes])


def _quantile(values: np.ndarray, weights: np.ndarray, at: float) -> float:
    """Smallest value below or at which lies that part of the weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, at * reached[-1])), len(values) - 1)])
