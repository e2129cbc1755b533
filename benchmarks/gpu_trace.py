"""Reading GPU traces in the form of the public Alibaba "cluster-trace-gpu-v2023", and replaying them.

Replay as published with FGD (Weng et al., USENIX ATC 2023): nodes start empty, tasks arrive shuffled, then as
uniform draws with replacement until demand reaches a multiple of the GPU capacity; they are placed one at a time,
never leave, and are dropped when they do not fit.
"""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deployments.scheduling.fleet import Fleet
from deployments.scheduling.options import Policy
from deployments.scheduling.placement import Placer
from deployments.scheduling.shapes import NodeSpec, Shape

PLENTY_MIB = 1 << 40


def read_nodes(path: Path) -> list[NodeSpec]:
    """Nodes of a CSV with the columns sn, cpu_milli, gpu and optionally memory_mib (absent: plenty) and model."""
    return [
        NodeSpec(
            row["sn"],
            int(row["cpu_milli"]),
            int(row.get("memory_mib") or PLENTY_MIB),
            int(row["gpu"]),
            row.get("model") or "",
        )
        for row in _rows(path, ("sn", "cpu_milli", "gpu"))
    ]


def read_tasks(path: Path) -> list[Shape]:
    """Tasks of a CSV with name, cpu_milli, num_gpu, gpu_milli and optionally memory_mib and gpu_spec (A|B)."""
    tasks = []
    for row in _rows(path, ("name", "cpu_milli", "num_gpu", "gpu_milli")):
        gpus = int(row["num_gpu"])
        models = frozenset(filter(None, (row.get("gpu_spec") or "").split("|")))
        milli = int(row["gpu_milli"] or 0) if gpus else 0
        tasks.append(Shape(int(row["cpu_milli"]), int(row.get("memory_mib") or 0), gpus, milli, models))
    return tasks


def _rows(path: Path, needed: Sequence[str]) -> Iterable[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise SystemExit(f"{path}: column {missing[0]!r} is missing; needed are {', '.join(needed)}")
            rows = list(reader)
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    if not rows:
        raise SystemExit(f"{path}: has no rows")
    return rows


def arrivals(tasks: Sequence[Shape], capacity_milli: int, times: float, seed: int) -> list[Shape]:
    """All tasks shuffled, then draws with replacement until they ask for `times` the capacity."""
    if not any(task.demand_milli for task in tasks) or capacity_milli <= 0:
        raise SystemExit("neither tasks nor nodes may be without GPUs: demand would never reach the capacity")
    rng = random.Random(seed)
    shuffled = list(tasks)
    rng.shuffle(shuffled)
    demand, sequence = 0, []
    for task in shuffled:
        if demand >= times * capacity_milli:
            break
        sequence.append(task)
        demand += task.demand_milli
    while demand < times * capacity_milli:
        sequence.append(rng.choice(tasks))
        demand += sequence[-1].demand_milli
    return sequence


@dataclass
class Curve:
    """Allocated against demanded GPUs, both in percent of capacity, after each arrival; `seconds` of CPU time."""

    demand: np.ndarray
    allocated: np.ndarray
    seconds: float

    def at(self, demand: float) -> float:
        """Allocation at the first arrival that brings demand to that percentage."""
        index = min(int(np.searchsorted(self.demand, demand - 1e-9)), len(self.demand) - 1)
        return float(self.allocated[index])


def replay(
    nodes: Sequence[NodeSpec],
    tasks: Sequence[Shape],
    policy: Callable[[], Policy],
    seed: int,
    times: float = 1.3,
) -> Curve:
    """One run. Equally good nodes are taken in an order drawn from the seed, the same for every policy."""
    capacity = sum(node.gpus for node in nodes) * 1000
    sequence = arrivals(tasks, capacity, times, seed)
    order = list(range(len(nodes)))
    random.Random(seed + 1_000_003).shuffle(order)
    placer = Placer(Fleet(nodes, order), policy(), sorted(set(tasks), key=lambda task: task.sort_key), seed)
    allocated = np.zeros(len(sequence))
    start, held = time.process_time(), 0
    for index, task in enumerate(sequence):
        if placer.place(task) is not None:
            held += task.demand_milli
        allocated[index] = held
    seconds = time.process_time() - start
    demand = np.cumsum([task.demand_milli for task in sequence])
    return Curve(100 * demand / capacity, 100 * allocated / capacity, seconds)
