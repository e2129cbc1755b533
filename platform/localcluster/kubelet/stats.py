"""CPU and memory of containers and the machine, from the process trees."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil

from localcluster.client import Object
from localcluster.kubelet.pod import PodWorker
from localcluster.times import rfc3339

_PERIOD = 10.0


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


def tree_sample(pid: int) -> Sample | None:
    """What a process and all its descendants have used."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    cpu, memory = 0.0, 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            memory += process.memory_info().rss
    return Sample(cpu, memory)


class Stats:
    """Samples every 10 s; a container shows up after its second sample."""

    def __init__(self, workers: Callable[[], Iterable[PodWorker]]) -> None:
        self._workers = workers
        self._before: dict[tuple[str, str, int], tuple[float, Sample]] = {}
        self._usage: dict[tuple[str, str], Usage] = {}
        self._node_before: tuple[float, float] | None = None
        self._node: Usage | None = None

    async def run(self) -> None:
        while True:
            await self._measure()
            await asyncio.sleep(_PERIOD)

    async def _measure(self) -> None:
        pids = {
            (worker.uid, container.name, container.shim.pid): container.shim.pid
            for worker in self._workers()
            for container in [*worker.main, *worker.init]
            if container.shim is not None
        }
        samples = await asyncio.to_thread(lambda: {key: tree_sample(pid) for key, pid in pids.items()})
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
                "window": f"{_PERIOD:.0f}s",
            }
        return {"node": node, "pods": pods}


def _shown(usage: Usage) -> Object:
    return {
        "cpu": {"time": usage.at, "usageNanoCores": usage.nanocores},
        "memory": {"time": usage.at, "workingSetBytes": usage.memory},
        "window": f"{usage.window:.3f}s",
    }
