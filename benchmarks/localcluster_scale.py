"""What a Deployment costs the embedded cluster when there are many: `python benchmarks/localcluster_scale.py`.

At each of `--claims` counts a new cluster gets that many Deployments of one pod that takes a device, each with its
Service, in one namespace with a quota. The nodes are objects alone: this program keeps them ready and says of every
bound pod that it runs, so that nothing but API server, controllers and scheduler works and nothing depends on how long
it takes. Printed is processor time of each of them for one Deployment, from the first create until every pod has an
address in a slice and every Deployment is available; what else the machine does hardly matters to it. `--per-claim MS`
makes it an error when the three together take more than that at any of the counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from localcluster.client import Client, Object
from localcluster.pods import condition
from localcluster.resources import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCEQUOTAS,
    SERVICES,
    Resource,
)
from localcluster.times import micro, now, rfc3339
from localcluster.watcher import Watcher

NAMESPACE = "claims"
PARTS = ("apiserver", "controllers", "scheduler")
AT_ONCE = 8
DEVICES = 8
GPU = "nvidia.com/gpu"
LONGEST_SECONDS = 1800
_DAY = 24 * 3600
_TICK = os.sysconf("SC_CLK_TCK")


def claim(number: int) -> list[tuple[Resource, Object]]:
    """What one claim makes: a Deployment whose pod takes one device, and its Service."""
    labels = {"app": "bench", "claim": f"d-{number}"}
    limits = {"cpu": "1", "memory": "1Gi", GPU: "1"}
    container = {"name": "serving", "image": "python:3.11-slim", "resources": {"limits": limits}}
    container["ports"] = [{"containerPort": 8080}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": f"d-{number}", "namespace": NAMESPACE, "labels": labels}
    return [(SERVICES, {"metadata": metadata, "spec": service}), (DEPLOYMENTS, {"metadata": metadata, "spec": spec})]


def node(number: int) -> list[tuple[Resource, Object]]:
    """A node that is ready, and a lease that keeps it so for a day."""
    name = f"gpu-{number}"
    room = {"cpu": "96", "memory": "768Gi", "pods": "250", GPU: str(DEVICES)}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "",
        "lastTransitionTime": rfc3339(),
    }
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    lease = {"holderIdentity": name, "leaseDurationSeconds": _DAY, "renewTime": micro(now())}
    return [
        (LEASES, {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": lease}),
        (NODES, {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "status": status}),
    ]


def running(number: int) -> Object:
    """The status of a pod that runs and is ready."""
    address, stamp = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", rfc3339()
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": stamp}
        for kind in ("Initialized", "Ready", "ContainersReady")
    ]
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": stamp,
        "conditions": conditions,
    }


def processor_seconds(cluster: int) -> dict[str, float]:
    """Processor time so far of each part of a cluster."""
    found: dict[str, float] = {}
    for children in Path(f"/proc/{cluster}/task").glob("*/children"):
        for pid in children.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            part = next((word.decode() for word in words if word.startswith(b"localcluster.")), "")
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[part.removeprefix("localcluster.")] = (int(fields[11]) + int(fields[12])) / _TICK
    return found


class Kubelet:
    """Stands in for the kubelets of all nodes: says once of every pod with a node that it runs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._told: set[str] = set()
        self._bound: asyncio.Queue[Object] = asyncio.Queue()
        self.watcher = Watcher(client, PODS, NAMESPACE, field_selector="spec.nodeName!=", handler=self._on_pod)

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        uid = pod["metadata"]["uid"]
        if change != "DELETED" and uid not in self._told:
            self._told.add(uid)
            self._bound.put_nowait(pod)

    async def tell(self) -> None:
        number = 0
        while True:
            pod = await self._bound.get()
            number += 1
            patch = {"status": running(number)}
            name = pod["metadata"]["name"]
            await self._client.patch(PODS, name, NAMESPACE, patch, kind="strategic", subresource="status")


class Progress:
    """How many claims are served: a Deployment that is available and a slice with its address."""

    def __init__(self, client: Client, claims: int) -> None:
        self._claims = claims
        self.done = asyncio.Event()
        self.watchers = [Watcher(client, kind, NAMESPACE, handler=self._look) for kind in (DEPLOYMENTS, ENDPOINTSLICES)]
        self._served: set[tuple[str, str]] = set()

    def _look(self, change: str, obj: Object, old: Object | None) -> None:
        if obj["kind"] == "Deployment":
            available = condition(obj, "Available")
            good = obj.get("status", {}).get("availableReplicas") == 1 and available and available["status"] == "True"
        else:
            good = any(entry["conditions"].get("ready") for entry in obj.get("endpoints") or ())
        if good:
            self._served.add((obj["kind"], obj["metadata"]["name"]))
        if len(self._served) == 2 * self._claims:
            self.done.set()


async def create_all(client: Client, groups: list[list[tuple[Resource, Object]]]) -> None:
    remaining = iter(groups)

    async def work() -> None:
        for group in remaining:
            for resource, obj in group:
                await client.create(resource, obj)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def load(kubeconfig: Path, nodes: int, claims: int, cluster: int) -> dict[str, float]:
    """Processor seconds of each part for all claims."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="bench") as client:
        await create_all(client, [node(number) for number in range(nodes)])
        await client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        quota = {"metadata": {"name": "quota"}, "spec": {"hard": {"pods": "100000", "requests.cpu": "100000"}}}
        await client.create(RESOURCEQUOTAS, quota, NAMESPACE)
        kubelet, progress = Kubelet(client), Progress(client, claims)
        parts = [kubelet.tell(), *(one.run() for one in (kubelet.watcher, *progress.watchers))]
        tasks = [asyncio.create_task(part) for part in parts]
        before = processor_seconds(cluster)
        await create_all(client, [claim(number) for number in range(claims)])
        ended, _ = await asyncio.wait(
            [*tasks, asyncio.create_task(progress.done.wait())],
            timeout=LONGEST_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        after = processor_seconds(cluster)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()  # what failed is an error of this run
        if not progress.done.is_set():
            raise SystemExit(f"not all of {claims} claims were served in {LONGEST_SECONDS} s")
        return {part: after[part] - before[part] for part in PARTS}


def measure(nodes: int, claims: int) -> dict[str, float]:
    """Milliseconds of processor time of each part for one claim."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        command = [sys.executable, "-m", "localcluster", "--data", str(folder / "cluster")]
        command += ["--kubeconfig", str(folder / "kubeconfig")]
        paths = filter(None, (str(ROOT / "platform"), os.environ.get("PYTHONPATH")))
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
        with (folder / "log").open("wb") as log:
            process: Any = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
            try:
                if not process.stdout.readline().startswith(b"ready"):
                    raise SystemExit(f"the cluster did not start: {(folder / 'log').read_text()[-2000:]}")
                used = asyncio.run(load(folder / "kubeconfig", nodes, claims, process.pid))
            finally:
                process.terminate()
                process.wait(120)
                process.stdout.close()
    return {part: seconds * 1000 / claims for part, seconds in used.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, nargs="+", default=[300, 2000])
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--per-claim", type=float, help="milliseconds that a claim may cost")
    options = parser.parse_args()
    if max(options.claims) > options.nodes * DEVICES:
        parser.error(f"--claims: {options.nodes} nodes have {options.nodes * DEVICES} devices; give more --nodes")
    print(f"CPU ms for a claim, {options.nodes} nodes " + " ".join(f"{part:>11}" for part in (*PARTS, "together")))
    worst = 0.0
    for claims in options.claims:
        used = measure(options.nodes, claims)
        total = sum(used.values())
        worst = max(worst, total)
        row = " ".join(f"{value:>11.1f}" for value in (*used.values(), total))
        print(f"{f'{claims:,} claims':>29} {row}", flush=True)
    if options.per_claim and worst > options.per_claim:
        raise SystemExit(f"a claim costs {worst:.1f} ms of processor time, more than {options.per_claim:.1f} ms")


if __name__ == "__main__":
    main()
