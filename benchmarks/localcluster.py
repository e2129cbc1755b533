"""How fast the embedded cluster's API server is: `python benchmarks/localcluster.py`.

Each row is a measurement on this machine: creates per second with 0, 10 and 100 watchers, watch latency, the
list of 10,000 pods, the memory of 10,000 objects, and a rollout of three replicas by all parts of the cluster. Client,
watchers and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from localcluster.client import Client
from localcluster.resources import CONFIGMAPS, DEPLOYMENTS, NAMESPACES, PODS, SERVICEACCOUNTS

CONNECTIONS = 32


def row(name: str, value: str) -> None:
    print(f"{name:<44} {value}", flush=True)


def pod(name: str) -> dict[str, Any]:
    """A pod as a Deployment would make it; no node, so it stays pending."""
    container = {
        "name": "serving",
        "image": "python:3.11-slim",
        "command": ["python3", "-m", "http.server"],
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "A", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
    }
    return {"metadata": {"name": name, "labels": {"app": "bench"}}, "spec": {"containers": [container]}}


async def create_many(client: Client, resource: Any, namespace: str, objects: list[dict[str, Any]]) -> float:
    """Create objects over CONNECTIONS connections; objects per second."""
    pending = iter(objects)

    async def work() -> None:
        for obj in pending:
            await client.create(resource, obj, namespace)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return len(objects) / (time.perf_counter() - start)


async def watch_count(client: Client, namespace: str, wanted: int, started: asyncio.Event, counts: list[int]) -> None:
    page = await client.list(CONFIGMAPS, namespace)
    events = client.watch(CONFIGMAPS, namespace, resource_version=page.resource_version)
    started.set()
    seen = 0
    async for event in events:
        seen += event.type == "ADDED"
        if seen == wanted:
            break
    counts.append(seen)


async def with_watchers(client: Client, namespace: str, watchers: int, count: int) -> None:
    """Creates per second while watchers follow, and whether each of them got every event."""
    counts: list[int] = []
    ready = [asyncio.Event() for _ in range(watchers)]
    tasks = [asyncio.create_task(watch_count(client, namespace, count, event, counts)) for event in ready]
    for event in ready:
        await event.wait()
    await asyncio.sleep(0.3)
    prefix = f"w{watchers}"
    objects = [{"metadata": {"name": f"{prefix}-{i}"}, "data": {"k": "v" * 100}} for i in range(count)]
    rate = await create_many(client, CONFIGMAPS, namespace, objects)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    complete = f", every watcher got all {count}" if watchers else ""
    row(f"creates/s, {watchers} watchers", f"{rate:,.0f}{complete}")
    assert counts == [count] * watchers


async def latency(client: Client, namespace: str) -> None:
    """From sending a create to having its event, one at a time."""
    page = await client.list(CONFIGMAPS, namespace)
    sent: dict[str, float] = {}
    times: list[float] = []
    count = 500

    async def follow() -> None:
        async for event in client.watch(CONFIGMAPS, namespace, resource_version=page.resource_version):
            if event.type == "ADDED":
                times.append(time.perf_counter() - sent[event.object["metadata"]["name"]])
            if len(times) == count:
                return

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.2)
    for i in range(count):
        sent[f"l-{i}"] = time.perf_counter()
        await client.create(CONFIGMAPS, {"metadata": {"name": f"l-{i}"}}, namespace)
    await asyncio.wait_for(task, 30)
    times.sort()
    p50, p99 = statistics.median(times), times[int(count * 0.99)]
    row("watch latency from sending the create", f"p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")


async def measure_speed(kubeconfig: Path, process: psutil.Process) -> None:
    async with Client.from_kubeconfig(kubeconfig, user_agent="bench") as client:
        await client.create(NAMESPACES, {"metadata": {"name": "bench"}})
        await create_many(client, CONFIGMAPS, "bench", [{"metadata": {"name": f"warm-{i}"}} for i in range(500)])
        before = sum(process.cpu_times()[:2])
        await with_watchers(client, "bench", 0, 4000)
        used = sum(process.cpu_times()[:2]) - before
        row("server's CPU time for each create", f"{used / 4000 * 1e6:.0f} us")
        await with_watchers(client, "bench", 10, 2000)
        await with_watchers(client, "bench", 100, 1000)
        await latency(client, "bench")


async def measure_size(kubeconfig: Path, process: psutil.Process) -> None:
    """What 10,000 pods cost."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="bench") as client:
        await client.create(NAMESPACES, {"metadata": {"name": "bench-pods"}})
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "bench-pods")
        row("memory, empty", f"{process.memory_info().rss / 1e6:.0f} MB")
        rate = await create_many(client, PODS, "bench-pods", [pod(f"p-{i}") for i in range(10_000)])
        row("creates/s, pods", f"{rate:,.0f}")
        row("memory, 10,000 pods", f"{process.memory_info().rss / 1e6:.0f} MB")
        start = time.perf_counter()
        async with client.session.get(client.connection.server + "/api/v1/namespaces/bench-pods/pods") as answer:
            size = len(await answer.read())
        row("list of 10,000 pods", f"{(time.perf_counter() - start) * 1000:.0f} ms for {size / 1e6:.1f} MB")
        row("memory after the list", f"{process.memory_info().rss / 1e6:.0f} MB")


async def complete(client: Client) -> None:
    """Wait until the deployment's three replicas are all new and available."""
    while True:
        found = await client.get(DEPLOYMENTS, "d", "bench")
        status = found.get("status", {})
        if status.get("observedGeneration") == found["metadata"]["generation"] and all(
            status.get(name) == 3 for name in ("replicas", "updatedReplicas", "availableReplicas")
        ):
            return
        await asyncio.sleep(0.02)


async def measure_rollout(kubeconfig: Path, _: psutil.Process) -> None:
    """From creating a deployment of three pods, then from changing it, to complete; the probe looks once a second."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="bench") as client:
        await client.create(NAMESPACES, {"metadata": {"name": "bench"}})
        container = pod("")["spec"]["containers"][0]
        container["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
        container["command"] += ["8080"]
        template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container]}}
        spec = {"replicas": 3, "selector": {"matchLabels": {"app": "d"}}, "template": template}
        for what in ("3 replicas, created to complete", "3 replicas, changed to complete"):
            container["env"] = [{"name": "ROUND", "value": what}]
            start = time.perf_counter()
            if "created" in what:
                await client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, "bench")
            else:
                await client.patch(DEPLOYMENTS, "d", "bench", {"spec": spec})
            await complete(client)
            row(what, f"{time.perf_counter() - start:.2f} s")


def run(
    measure: Callable[[Path, psutil.Process], Coroutine[Any, Any, None]],
    *,
    part: str = ".apiserver",
    kubeconfig: str = "admin.kubeconfig",
) -> None:
    """Measure against a new API server over an empty store, or a whole cluster where `part` is empty."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)  # pods run as another user
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "platform"), LOCALCLUSTER_NODE_TOKEN="bench")
        start = time.perf_counter()
        command = [sys.executable, "-m", f"localcluster{part}", "--data", folder]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert any(line.startswith(b"ready") for line in iter(server.stdout.readline, b""))
            row(f"{'API server' if part else 'Cluster'}'s start", f"{(time.perf_counter() - start) * 1000:.0f} ms")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(Path(folder) / kubeconfig, psutil.Process(server.pid)))
        finally:
            server.terminate()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    run(measure_speed)
    run(measure_size)
    run(measure_rollout, part="", kubeconfig="kubeconfig")


if __name__ == "__main__":
    main()
