"""GPU claims end to end: many at once on the embedded cluster with simulated nodes, all placed or explained.

    python benchmarks/gpu_end_to_end.py [--nodes 500] [--claims 2000] [--json -]

Real PostgreSQL, Valkey, API server, scheduler and kubelet; passes and reconciliations run here instead of in workers,
woken by changes of pods as the watcher wakes them. The pods name an image that does not exist: they are bound to nodes
and hold devices, but start no process. A claim is done when its pod is bound, or when it says why it waits. Whether a
node is over-committed is counted from the pods, at every change of one. `cpu_s` is processor time by part.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

from benchmarks.support import django_services

DEVICES = 8
SIZES = (1, 1, 1, 2, 2, 4, 8)
RESOURCE = "nvidia.com/gpu"
THREADS = 8
LONGEST_SECONDS = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--claims", type=int, default=2000)
    parser.add_argument("--json", default="-", help="file for the JSON object; - prints it as the last line")
    options = parser.parse_args()
    settings = {"PILOTHOUSE_DATABASE_CONN_MAX_AGE": "3600", "KUBECONFIG": "{folder}/kubeconfig"}
    with django_services(**settings) as folder:
        spec = f"{options.nodes}:cpu=96,memory=768Gi,gpu={DEVICES},product=A100,prefix=gpu"
        with (folder / "cluster.log").open("wb") as log:
            command = [sys.executable, "-m", "localcluster", "--data", str(folder / "cluster")]
            command += ["--kubeconfig", str(folder / "kubeconfig"), "--simulated-nodes", spec]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
            try:
                assert process.stdout is not None
                if not process.stdout.readline().startswith(b"ready"):
                    raise SystemExit(f"the cluster did not start: {(folder / 'cluster.log').read_text()[-2000:]}")
                result = measure(options.nodes, options.claims, process.pid)
            finally:
                process.terminate()
                process.wait(120)
    line = json.dumps(result)
    if options.json != "-":
        Path(options.json).write_text(line + "\n", encoding="utf-8")
    print(line)


class Pods:
    """What is bound where, kept by a watch; `on_gated` is called with the version of each pod that waits for a node."""

    def __init__(self, cluster: Any, on_gated: Callable[[str], None]) -> None:
        from kube.informers import Informer

        self._on_gated = on_gated
        self._bound: dict[str, tuple[str, int]] = {}
        self.used: Counter[str] = Counter()
        self.worst = 0
        self.versions: set[str] = set()
        self.changed = threading.Condition()
        self.informer = Informer(cluster, "Pod", self._seen)

    def _seen(self, change: str, pod: dict[str, Any]) -> None:
        from kube import specs
        from kube.parsing import pod_of, requests_of

        one, version = pod_of(pod), pod["metadata"]["labels"].get(specs.VERSION_ID, "")
        with self.changed:
            node, devices = self._bound.pop(one.uid, ("", 0))
            self.used[node] -= devices
            if change != "DELETED" and one.node and not one.finished:
                devices = int(requests_of(pod).get(RESOURCE, 0))
                self._bound[one.uid] = (one.node, devices)
                self.used[one.node] += devices
                self.worst = max(self.worst, self.used[one.node])
                self.versions.add(version)
                self.changed.notify_all()
        if change != "DELETED" and one.gated:
            self._on_gated(version)


def measure(nodes: int, claims: int, cluster_pid: int) -> dict[str, Any]:
    from django.utils import timezone

    from deployments import cluster as clusters
    from deployments.models import GpuClaim
    from deployments.services.gpu import inventory
    from deployments.tasks import gpu
    from deployments.tasks.reconciling import reconcile

    cluster = clusters.current()
    inventory.update("default", registered(cluster, nodes), timezone.now())
    make(claims)
    before = processor_seconds(cluster_pid)
    began = time.monotonic()
    gpu.schedule(cluster, timezone.now())
    decided = time.monotonic() - began
    placed = {str(key) for key in GpuClaim.objects.filter(state="placed").values_list("version", flat=True)}
    visits: list[Future[None]] = []
    with ThreadPoolExecutor(THREADS) as pool:

        def visit(version: str) -> None:
            visits.append(pool.submit(reconcile, UUID(version)))

        pods = Pods(cluster, visit)
        pods.informer.start()
        for version in sorted(placed):
            visit(version)
        with pods.changed:
            pods.changed.wait_for(lambda: pods.versions >= placed, timeout=LONGEST_SECONDS)
        seconds = time.monotonic() - began
        pods.informer.stop()
        pool.shutdown(cancel_futures=True)
    for done in visits:
        if not done.cancelled():
            done.result()  # a failed visit is an error of this run
    used = processor_seconds(cluster_pid)
    unexplained = GpuClaim.objects.exclude(state="placed").filter(reason_message="").count()
    result = {
        "nodes": nodes,
        "claims": claims,
        "placed": len(placed),
        "explained": claims - len(placed) - unexplained,
        "decided_s": round(decided, 2),
        "all_bound_s": round(seconds, 1),
        "bound_per_s": round(len(placed) / seconds, 1),
        "visits": len(visits),
        "most_devices_on_a_node": pods.worst,
        "cpu_s": {part: round(used[part] - before.get(part, 0.0), 1) for part in sorted(used)},
    }
    missing = placed - pods.versions
    if missing or unexplained or pods.worst > DEVICES or GpuClaim.objects.count() != claims:
        raise SystemExit(f"not all placed or explained, or over-committed: {result}, {len(missing)} pods missing")
    return result


def registered(cluster: Any, count: int) -> list[Any]:
    """The nodes, once as many as are simulated offer their devices: the kubelet registers them one after the other."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        nodes: list[Any] = cluster.find("Node")
        if sum(RESOURCE in node["status"].get("allocatable", {}) for node in nodes) == count:
            return nodes
        time.sleep(0.5)
    raise SystemExit(f"not all of {count} nodes are there after {LONGEST_SECONDS} s")


def processor_seconds(cluster_pid: int) -> dict[str, float]:
    """Processor time so far of this process ("pilothouse") and of each part of the cluster."""
    times = os.times()
    found = {"pilothouse": times.user + times.system}
    for children in Path(f"/proc/{cluster_pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            part = next((word for word in command if word.startswith(b"localcluster.")), b"other").decode()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[part.removeprefix("localcluster.")] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def make(claims: int) -> None:
    """Versions of four projects, each with one instance."""
    from accounts.models import Organization, Project
    from deployments.models import (
        Deployment,
        Environment,
        GpuFlavor,
        InstanceType,
        Revision,
        Rollout,
    )
    from tests.app import factories

    GpuFlavor.objects.create(name="a100", products=["A100"])
    organization = Organization.objects.create(name="bench")
    projects = [
        Project.objects.create(organization=organization, name=f"bench-{number}", namespace=f"ph-bench-{number}")
        for number in range(4)
    ]
    kinds = {
        size: InstanceType.objects.create(
            name=f"gpu-{size}", cpu=size, memory=1024 * size, accelerator=size, accelerator_resource=RESOURCE
        )
        for size in sorted(set(SIZES))
    }
    environment = Environment.objects.get(name="container-image")
    versions = factories.versions_at_once(
        (
            (
                Deployment(project=projects[number % 4], name=f"d-{number}"),
                {
                    "environment": environment,
                    "instance_type": kinds[SIZES[number % len(SIZES)]],
                    "minimum_instances": 1,
                    "desired_instances": 1,
                    "generation": 1,
                },
            )
            for number in range(claims)
        ),
        kind=Revision.Kind.IMAGE,
        image="nowhere/none:1",
    )
    Rollout.objects.bulk_create(
        Rollout(version=version, to_revision=version.target_revision, cause=Rollout.Cause.UPLOAD, generation=1)
        for version in versions
    )


if __name__ == "__main__":
    main()
