"""A direct request through the platform against the same request sent to the pod: latency and requests/s per core.

`python benchmarks/direct.py [--seconds 10] [--connections 8]` starts the whole platform, deploys an echo and drives
both ways in turn over keep-alive connections. A core's worth is counted in CPU seconds: of the web process and of
the database's processes for the platform, of the pod's processes for the pod. The pod does the same work both ways.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import psutil

from benchmarks.support import Platform, platform


@dataclass
class Figures:
    p50: float  # milliseconds
    p99: float
    rate: float  # requests/s
    per_core: float  # requests per CPU second


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes and their children, living ones."""
    total = 0.0
    for pid in pids:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


async def drive(url: str, headers: dict[str, str], seconds: float, connections: int) -> list[float]:
    """Latencies in seconds of requests sent one after the other on each connection."""
    latencies: list[float] = []
    async with aiohttp.ClientSession(headers=headers) as session:

        async def one(until: float) -> None:
            while (began := time.perf_counter()) < until:
                async with session.post(url, json={"x": 1.5}) as response:
                    body = await response.read()
                    if response.status != 200:
                        raise SystemExit(f"{url}: {response.status} {body[:300]!r}")
                latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(one(time.perf_counter() + 1) for _ in range(connections)))
        latencies.clear()
        await asyncio.gather(*(one(time.perf_counter() + seconds) for _ in range(connections)))
    return latencies


def measure(url: str, headers: dict[str, str], pids: list[int], seconds: float, connections: int) -> Figures:
    before, began = cpu_seconds(pids), time.perf_counter()
    latencies = sorted(asyncio.run(drive(url, headers, seconds, connections)))
    spent, elapsed = cpu_seconds(pids) - before, time.perf_counter() - began - 1
    count = len(latencies)
    return Figures(
        p50=latencies[count // 2] * 1000,
        p99=latencies[min(count * 99 // 100, count - 1)] * 1000,
        rate=count / elapsed,
        per_core=count / spent if spent else float("inf"),
    )


def pod_of(bench: Platform) -> tuple[str, list[int]]:
    """Address of the one pod, and its processes."""
    (pod,) = [pod for pod in bench.objects("pods") if pod["status"]["phase"] == "Running"]
    (port,) = [port["containerPort"] for port in pod["spec"]["containers"][0]["ports"] if port["name"] == "http"]
    address = pod["status"]["podIP"]
    pids = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[:2] == (address, port) and connection.pid
    ]
    return f"http://{address}:{port}/request", sorted(set(pids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    with platform() as bench:
        version = bench.deployment("echo")
        bench.upload(version, 1)
        bench.answered_by(version, 1)
        # One pod both ways; the autoscaler would start others on the same cores.
        bench.call("PATCH", version, json={"maximum_instances": 1})
        pod_url, pod_pids = pod_of(bench)
        through_url = bench.url + version + "/requests"
        through_pids = [bench.pids["web"], bench.pids["postgresql"], bench.pids["valkey"]]
        print(f"{'':28}{'p50 ms':>9}{'p99 ms':>9}{'req/s':>9}{'req/CPU-s':>11}")
        for connections in sorted({1, options.connections}):
            rows = {}
            for name, url, headers, pids in (
                ("pod", pod_url, {}, pod_pids),
                ("platform", through_url, bench.headers, through_pids),
            ):
                rows[name] = row = measure(url, headers, pids, options.seconds, connections)
                label = f"{name}, {connections} connections"
                print(f"{label:28}{row.p50:9.2f}{row.p99:9.2f}{row.rate:9.0f}{row.per_core:11.0f}", flush=True)
            pod, through = rows["pod"], rows["platform"]
            print(
                f"{'platform / pod':28}{through.p50 / pod.p50:9.2f}{through.p99 / pod.p99:9.2f}"
                f"{through.rate / pod.rate:9.2f}{through.per_core / pod.per_core:11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
