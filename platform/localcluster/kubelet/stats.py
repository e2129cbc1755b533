"""CPU and memory of containers and the machine, from the process trees."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from localcluster.client import Object
from localcluster.kubelet.pod import PodWorker
from localcluster.times import rfc3339

PERIOD = 10.0


@dataclass(slots=True)
class Sample:
    """CPU seconds used so far and bytes resident now."""

    cpu: float
    memory: int


@dataclass(slots=True)
class Usage:
    """Rates between two samples."""

    nanocores: int
    memory: int
    window: float
    at: str


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table: parent, CPU seconds (with those of ended children), resident bytes."""

    parent: int
    cpu: float
    memory: int


def process_table() -> dict[int, Process]:
    """All processes of the machine in one pass, however many pods there are."""
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    table: dict[int, Process] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            raw = Path(f"/proc/{entry}/stat").read_bytes()
        except OSError:
            continue
        fields = raw.rpartition(b")")[2].split()
        used = sum(int(fields[place]) for place in (11, 12, 13, 14))  # utime, stime, cutime, cstime
        table[int(entry)] = Process(int(fields[1]), used / tick, int(fields[21]) * page)
    return table


def tree_samples(roots: Iterable[int], table: dict[int, Process]) -> dict[int, Sample]:
    """What each root process and its descendants have used; roots that are gone are left out."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    samples = {}
    for root in roots:
        if root not in table:
            continue
        cpu, memory, queue = 0.0, 0, [root]
        while queue:
            pid = queue.pop()
            cpu += table[pid].cpu
            memory += table[pid].memory
            queue += children.get(pid, ())
        samples[root] = Sample(cpu, memory)
    return samples


class Stats:
    """Samples every `period` seconds; a container shows up after its second sample."""

    def __init__(self, workers: Callable[[], Iterable[PodWorker]], period: float = PERIOD) -> None:
        self._period = period
        self._workers = workers
        self._before: dict[tuple[str, str, int], tuple[float, Sample]] = {}
        self._usage: dict[tuple[str, str], Usage] = {}
        self._node_before: tuple[float, float] | None = None
        self._node: Usage | None = None

    async def run(self) -> None:
        while True:
            await self._measure()
            await asyncio.sleep(self._period)

    async def _measure(self) -> None:
        pids = {
            (worker.uid, container.name, container.shim.pid): container.shim.pid
            for worker in self._workers()
            for container in [*worker.main, *worker.init]
            if container.shim is not None
        }
        table = await asyncio.to_thread(process_table)
        by_pid = tree_samples(pids.values(), table)
        samples = {key: by_pid.get(pid) for key, pid in pids.items()}
        instant, stamp = time.monotonic(), rfc3339()
        before, self._before = self._before, {}
        usage: dict[tuple[str, str], Usage] = {}
        for key, sample in samples.items():
            if sample is None:
                continue
            self._before[key] = (instant, sample)
            if key in before:
                window = instant - before[key][0]
                used = max(0.0, sample.cpu - before[key][1].cpu)
                usage[key[0], key[1]] = Usage(int(used / window * 1e9), sample.memory, window, stamp)
        self._usage = usage
        self._measure_node(instant, stamp)

    def _measure_node(self, instant: float, stamp: str) -> None:
        times = psutil.cpu_times()
        used = times.user + times.system + times.nice
        memory = psutil.virtual_memory()
        if self._node_before is not None:
            window = instant - self._node_before[0]
            rate = max(0.0, used - self._node_before[1]) / window
            self._node = Usage(int(rate * 1e9), memory.total - memory.available, window, stamp)
        self._node_before = (instant, used)

    def summaries(self, node_names: Iterable[str], machine: str) -> list[Object]:
        """One summary a node in the shape of the kubelet's /stats/summary."""
        by_node: dict[str, list[Object]] = {name: [] for name in node_names}
        for worker in self._workers():
            containers = [
                {"name": container.name, **_shown(usage)}
                for container in worker.main
                if (usage := self._usage.get((worker.uid, container.name)))
            ]
            metadata = worker.pod["metadata"]
            reference = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
            by_node.setdefault(worker.node["metadata"]["name"], []).append(
                {"podRef": reference, "containers": containers}
            )
        return [self._summary(name, pods, name == machine) for name, pods in by_node.items()]

    def _summary(self, name: str, pods: list[Object], whole: bool) -> Object:
        node: dict[str, Any] = {"nodeName": name}
        if whole and self._node is not None:
            node |= _shown(self._node)
        else:
            # A simulated node uses what its pods use.
            parts = [container for pod in pods for container in pod["containers"]]
            node |= {
                "cpu": {
                    "time": rfc3339(),
                    "usageNanoCores": sum(part["cpu"]["usageNanoCores"] for part in parts),
                },
                "memory": {"workingSetBytes": sum(part["memory"]["workingSetBytes"] for part in parts)},
                "window": f"{self._period:.0f}s",
            }
        return {"node": node, "pods": pods}


def _shown(usage: Usage) -> Object:
    return {
        "cpu": {"time": usage.at, "usageNanoCores": usage.nanocores},
        "memory": {"time": usage.at, "workingSetBytes": usage.memory},
        "window": f"{usage.window:.3f}s",
    }
