"""What a Deployment costs the embedded cluster when there are many: `python benchmarks/localcluster_scale.py`.

At each of `--claims` counts a new cluster with simulated nodes gets that many Deployments of one pod, each with its
Service, in one namespace with a quota. The pods name an image that does not exist: they are bound, hold a device and start
no process, as in gpu_end_to_end.py. Printed is processor time of each part for one Deployment, from the first create until
every pod is bound and every status tells so; this does not depend on what else the machine does. `--per-claim MS` makes it
an error when controllers, scheduler and API server together take more than that at any of the counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from localcluster.client import Client, Object
from localcluster.resources import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    NAMESPACES,
    PODS,
    RESOURCEQUOTAS,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
)

NAMESPACE = "claims"
PARTS = ("apiserver", "controllers", "scheduler", "kubelet")
HELD = ("apiserver", "controllers", "scheduler")
AT_ONCE = 8
DEVICES = 8
GPU = "nvidia.com/gpu"
LONGEST_SECONDS = 1800
_TICK = os.sysconf("SC_CLK_TCK")


def objects(number: int) -> list[tuple[Resource, Object]]:
    """What one claim makes: a Deployment whose pod takes one device, and its Service."""
    name, labels = f"d-{number}", {"app": f"d-{number}"}
    limits = {"cpu": "1", "memory": "1Gi", GPU: "1"}
    container = {"name": "serving", "image": "nowhere/none:1", "resources": {"limits": limits}}
    container["ports"] = [{"containerPort": 8080}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return [(SERVICES, {"metadata": metadata, "spec": service}), (DEPLOYMENTS, {"metadata": metadata, "spec": spec})]


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


async def settled(client: Client, claims: int) -> None:
    """Wait until all pods are bound, seen by the kubelet and told of by statuses, and every Service has its slice."""
    began = time.monotonic()
    while time.monotonic() - began < LONGEST_SECONDS:
        await asyncio.sleep(2)  # a look is a list of everything: seldom enough not to count
        pods = await client.list(PODS, NAMESPACE, field_selector="spec.nodeName!=")
        if len(pods) < claims or not all(pod["status"].get("podIP") for pod in pods):
            continue
        told = [one.get("status", {}) for one in await client.list(DEPLOYMENTS, NAMESPACE)]
        slices = await client.list(ENDPOINTSLICES, NAMESPACE)
        if len(slices) == claims and all(status.get("unavailableReplicas") == 1 for status in told):
            return
    raise SystemExit(f"not all of {claims} claims were settled in {LONGEST_SECONDS} s")


async def load(kubeconfig: Path, claims: int) -> None:
    async with Client.from_kubeconfig(kubeconfig, user_agent="bench") as client:
        await client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        while await client.get_or_none(SERVICEACCOUNTS, "default", NAMESPACE) is None:
            await asyncio.sleep(0.05)
        quota = {"metadata": {"name": "quota"}, "spec": {"hard": {"pods": "100000", "requests.cpu": "100000"}}}
        await client.create(RESOURCEQUOTAS, quota, NAMESPACE)
        numbers = iter(range(claims))

        async def work() -> None:
            for number in numbers:
                for resource, obj in objects(number):
                    await client.create(resource, obj)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        await settled(client, claims)


def measure(nodes: int, claims: int) -> dict[str, float]:
    """Milliseconds of processor time of each part for one claim."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        command = [sys.executable, "-m", "localcluster", "--data", str(folder / "cluster")]
        command += ["--kubeconfig", str(folder / "kubeconfig")]
        command += ["--simulated-nodes", f"{nodes}:cpu=96,memory=768Gi,gpu={DEVICES},prefix=gpu"]
        environment = dict(os.environ, PYTHONPATH=f"{ROOT / 'platform'}:{os.environ.get('PYTHONPATH', '')}")
        with (folder / "log").open("wb") as log:
            process: Any = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
            try:
                if not process.stdout.readline().startswith(b"ready"):
                    raise SystemExit(f"the cluster did not start: {(folder / 'log').read_text()[-2000:]}")
                before = processor_seconds(process.pid)
                asyncio.run(load(folder / "kubeconfig", claims))
                after = processor_seconds(process.pid)
            finally:
                process.terminate()
                process.wait(120)
                process.stdout.close()
    return {part: (after[part] - before[part]) * 1000 / claims for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, nargs="+", default=[300, 2000])
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--per-claim", type=float, help="milliseconds that a claim may cost")
    options = parser.parse_args()
    if max(options.claims) > options.nodes * DEVICES:
        parser.error(f"--claims: {options.nodes} nodes have {options.nodes * DEVICES} devices; give more --nodes")
    print(f"{'CPU ms for a claim':<24} {'claims':>7} " + " ".join(f"{part:>11}" for part in PARTS) + f" {'without':>9}")
    print(f"{'':<24} {'':>7} " + " ".join(f"{'':>11}" for _ in PARTS) + f" {'kubelet':>9}")
    worst = 0.0
    for claims in options.claims:
        used = measure(options.nodes, claims)
        total = sum(used[part] for part in HELD)
        worst = max(worst, total)
        row = " ".join(f"{used[part]:>11.1f}" for part in PARTS)
        print(f"{f'{options.nodes} nodes':<24} {claims:>7} {row} {total:>9.1f}", flush=True)
    if options.per_claim and worst > options.per_claim:
        raise SystemExit(f"a claim costs {worst:.1f} ms of processor time, more than {options.per_claim:.1f} ms")


if __name__ == "__main__":
    main()
