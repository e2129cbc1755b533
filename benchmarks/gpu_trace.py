"""Reading GPU traces in the form of the public Alibaba "cluster-trace-gpu-v2023", and replaying them.

Replay as published with FGD (Weng et al., USENIX ATC 2023): nodes start empty, tasks arrive shuffled, then as
uniform draws with replacement until demand reaches a multiple of the GPU capacity; they are placed one at a time,
never leave, and are dropped when they do not fit.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deployments.scheduling.fleet import Fleet
from deployments.scheduling.options import Policy
from deployments.scheduling.placement import Placer
from deployments.scheduling.shapes import MILLI, NodeSpec, Shape

PLENTY_MIB = 1 << 40


def read_nodes(path: Path) -> list[NodeSpec]:
    """Nodes of a CSV with the columns sn, cpu_milli, gpu and optionally memory_mib (absent: plenty) and model.

    Raises SystemExit naming file, line and column of what cannot be read.
    """
    nodes: list[NodeSpec] = []
    lines: dict[str, int] = {}
    for row in _rows(path, ("sn", "cpu_milli", "gpu")):
        name = row.text("sn")
        if name in lines:
            raise row.wrong("sn", f"is that of line {lines[name]} too; give each node a name of its own")
        lines[name] = row.line
        memory = row.number("memory_mib", PLENTY_MIB)
        nodes.append(NodeSpec(name, row.number("cpu_milli"), memory, row.number("gpu"), row.text("model")))
    return nodes


def read_tasks(path: Path) -> list[Shape]:
    """Tasks of a CSV with name, cpu_milli, num_gpu, gpu_milli and optionally memory_mib and gpu_spec (A|B).

    Other columns are left aside. A task with GPUs but without gpu_milli wants whole ones. Raises as `read_nodes`.
    """
    tasks = []
    for row in _rows(path, ("name", "cpu_milli", "num_gpu", "gpu_milli")):
        gpus = row.number("num_gpu", 0)
        milli = (row.number("gpu_milli", 0) or MILLI) if gpus else 0
        if milli > MILLI:
            raise row.wrong("gpu_milli", f"is above {MILLI}, a whole GPU; give the share of each GPU")
        models = frozenset(filter(None, re.split(r"[|;,\s'\"\[\]]+", row.text("gpu_spec"))))
        tasks.append(Shape(row.number("cpu_milli"), row.number("memory_mib", 0), gpus, milli, models))
    return tasks


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a CSV file; errors name file, line and column."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def wrong(self, column: str, why: str) -> SystemExit:
        return SystemExit(f"{self.path}, line {self.line}, column {column}: {self.text(column)!r} {why}")

    def text(self, column: str) -> str:
        return self.cells.get(column, "").strip()

    def number(self, column: str, absent: int | None = None) -> int:
        """A whole number of at least 0; ``absent`` stands for an empty cell or a missing column."""
        text = self.text(column)
        if not text and absent is not None:
            return absent
        try:
            value = float(text)
        except ValueError:
            raise self.wrong(column, "is not a number") from None
        if not value.is_integer() or value < 0:
            raise self.wrong(column, "is not allowed; give a whole number of at least 0")
        return int(value)


def _rows(path: Path, needed: Sequence[str]) -> list[_Row]:
    """Lines of a CSV file, packed by gzip or not, with any line ends."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SystemExit(f"{path}: byte {error.start} is not UTF-8 text") from None
    except (OSError, EOFError, zlib.error) as error:
        raise SystemExit(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    header: list[str] | None = None
    rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check(path, header, needed)
                continue
            if len(cells) > len(header):
                raise SystemExit(f"{path}, line {reader.line_num}: has {len(cells)} cells for {len(header)} columns")
            rows.append(_Row(path, reader.line_num, dict(zip(header, cells, strict=False))))
    except csv.Error as error:
        raise SystemExit(f"{path}, line {reader.line_num}: {error}") from None
    if header is None:
        raise SystemExit(f"{path}: is empty; its first line should name the columns {', '.join(needed)}")
    if not rows:
        raise SystemExit(f"{path}: has no rows")
    return rows


def _check(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise SystemExit(f"{path}: column {missing[0]!r} is missing; needed are {', '.join(needed)}")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise SystemExit(f"{path}: column {twice[0]!r} is there twice")


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
