"""The typical workload: which shapes come how often, learned from history.

Only frequencies are used, never the order of arrivals, so nothing here looks ahead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .options import Floats, Ints
from .shapes import PlannerInputError, Shape


@dataclass(frozen=True, slots=True)
class Workload:
    """Shapes by falling weight; weights sum to 1."""

    shapes: tuple[Shape, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, history: Iterable[Shape]) -> Workload:
        """Frequencies of `history`, which may be in any order; equal counts keep a fixed order."""
        counts = Counter(history)
        if not counts:
            raise PlannerInputError("history", "is empty; give at least one shape")
        total = sum(counts.values())
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0].sort_key))
        return cls(tuple(s for s, _ in ordered), tuple(n / total for _, n in ordered))

    def popular(self, share: float) -> Workload:
        """The most frequent shapes that make up `share` of all, weights scaled to 1."""
        kept = min(int(np.searchsorted(np.cumsum(self.weights), share - 1e-9)) + 1, len(self.shapes))
        total = sum(self.weights[:kept])
        return Workload(self.shapes[:kept], tuple(w / total for w in self.weights[:kept]))

    def demand_shares(self) -> Floats:
        """[K] share of all demanded GPU thousandths that each shape stands for; zeros without GPU demand."""
        demand = np.array(self.weights) * self.column("demand_milli")
        total = demand.sum()
        return (demand / total if total else demand).astype(np.float32)

    def column(self, attribute: str) -> Ints:
        """[K] that attribute of every shape."""
        return np.array([getattr(shape, attribute) for shape in self.shapes], np.int64)

    def condensed(self, limit: int) -> Workload:
        """At most `limit` shapes: the weightiest by count and demand; the rest goes to its nearest kept kin."""
        if len(self.shapes) <= limit:
            return self
        importance = np.array(self.weights) + self.demand_shares()
        kept = [int(i) for i in np.argsort(-importance, kind="stable")[:limit]]
        weights = {i: self.weights[i] for i in kept}
        for index, shape in enumerate(self.shapes):
            if index not in weights:
                nearest = min(kept, key=lambda k: _distance(shape, self.shapes[k]))
                # Keep the demanded GPUs, not the number of tasks, when sizes differ.
                kin = self.shapes[nearest].demand_milli
                scale = shape.demand_milli / kin if kin and shape.demand_milli else 1.0
                weights[nearest] += self.weights[index] * scale
        total = sum(weights.values())
        ordered = sorted(weights.items(), key=lambda item: (-item[1], self.shapes[item[0]].sort_key))
        return Workload(tuple(self.shapes[i] for i, _ in ordered), tuple(w / total for _, w in ordered))


def _distance(a: Shape, b: Shape) -> float:
    """Unlikeness of two shapes in units of 'a fifth of a GPU', '10 CPUs', '40 GiB'."""
    return (
        abs(a.gpus - b.gpus) * 3
        + abs(a.gpu_milli - b.gpu_milli) / 200
        + abs(a.cpu_milli - b.cpu_milli) / 10_000
        + abs(a.memory_mib - b.memory_mib) / 40_000
        + (2 if a.models != b.models else 0)
    )
