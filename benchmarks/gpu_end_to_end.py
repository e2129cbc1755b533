"""GPU claims end to end: many at once on the embedded cluster with simulated nodes, all placed or explained.

    python benchmarks/gpu_end_to_end.py [--nodes 500] [--claims 2000] [--json -]

Real PostgreSQL, Valkey, API server, scheduler and kubelet; passes and reconciliations run here instead of in workers.
The pods name an image that does not exist: they are bound to nodes and hold devices, but start no process. A claim is
done when its pod is bound, or when it says why it waits. Whether a node is over-committed is counted from the pods.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

from devstack.services import Services

DEVICES = 8
SIZES = (1, 1, 1, 2, 2, 4, 8)
RESOURCE = "nvidia.com/gpu"
THREADS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--claims", type=int, default=2000)
    parser.add_argument("--json", default="-", help="file for the JSON object; - prints it as the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        planned = Services.plan(folder)
        (folder / "state" / "static").mkdir(parents=True)
        os.environ.update(
            planned.environment(),
            DJANGO_SETTINGS_MODULE="pilothouse.settings",
            PILOTHOUSE_SECRET_KEY=secrets.token_urlsafe(40),
            PILOTHOUSE_STATE_DIR=str(folder / "state"),
            PILOTHOUSE_PLAIN_HTTP="1",
            PILOTHOUSE_LOG_LEVEL="ERROR",
            KUBECONFIG=str(folder / "kubeconfig"),
        )
        spec = f"{options.nodes}:cpu=96,memory=768Gi,gpu={DEVICES},product=A100,prefix=gpu"
        with planned.running(), (folder / "cluster.log").open("wb") as log:
            command = [sys.executable, "-m", "localcluster", "--data", str(folder / "cluster")]
            command += ["--kubeconfig", str(folder / "kubeconfig"), "--simulated-nodes", spec]
            environment = dict(os.environ, PYTHONPATH=str(ROOT / "platform"))
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
            try:
                assert process.stdout is not None
                if not process.stdout.readline().startswith(b"ready"):
                    raise SystemExit(f"the cluster did not start: {(folder / 'cluster.log').read_text()[-2000:]}")
                result = measure(options.nodes, options.claims)
            finally:
                process.terminate()
                process.wait(120)
    line = json.dumps(result)
    if options.json != "-":
        Path(options.json).write_text(line + "\n", encoding="utf-8")
    print(line)


def measure(nodes: int, claims: int) -> dict[str, Any]:
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from django.db import connections
    from django.utils import timezone

    from deployments import cluster as clusters
    from deployments.models import GpuClaim
    from deployments.services.gpu import inventory
    from deployments.tasks import gpu
    from deployments.tasks.reconciling import reconcile

    cluster = clusters.current()
    inventory.update("default", cluster.find("Node"), timezone.now())
    make(claims)

    def visit(version_id: Any) -> None:
        try:
            reconcile(version_id)
        finally:
            connections.close_all()

    began = time.monotonic()
    gpu.schedule(cluster, timezone.now())
    decided = time.monotonic() - began
    placed = GpuClaim.objects.filter(state="placed")
    total, worst = placed.count(), 0
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            bound = bound_devices(cluster)
            worst = max([worst, *(devices for devices, _ in bound.values())])
            there = {version for _, versions in bound.values() for version in versions}
            missing = [key for key in placed.values_list("version", flat=True) if str(key) not in there]
            if not missing or time.monotonic() - began > 3600:
                break
            list(pool.map(visit, missing))
    seconds = time.monotonic() - began
    unexplained = GpuClaim.objects.exclude(state="placed").filter(reason_message="").count()
    result = {
        "nodes": nodes,
        "claims": claims,
        "placed": total,
        "explained": claims - total - unexplained,
        "decided_s": round(decided, 2),
        "all_bound_s": round(seconds, 1),
        "claims_per_s": round(claims / seconds, 1),
        "most_devices_on_a_node": worst,
    }
    if missing or unexplained or worst > DEVICES or GpuClaim.objects.count() != claims:
        raise SystemExit(f"not all placed or explained, or over-committed: {result}, {len(missing)} pods missing")
    return result


def make(claims: int) -> None:
    """Versions of four projects, each with one instance."""
    from accounts.models import Organization, Project
    from deployments.models import Deployment, DeploymentVersion, Environment, GpuFlavor, InstanceType, Revision

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
    deployments = Deployment.objects.bulk_create(
        Deployment(project=projects[number % 4], name=f"d-{number}") for number in range(claims)
    )
    versions = DeploymentVersion.objects.bulk_create(
        DeploymentVersion(
            deployment=deployment,
            version="v1",
            environment=environment,
            instance_type=kinds[SIZES[number % len(SIZES)]],
            minimum_instances=1,
            desired_instances=1,
        )
        for number, deployment in enumerate(deployments)
    )
    revisions = Revision.objects.bulk_create(
        Revision(version=version, number=1, kind=Revision.Kind.IMAGE, image="nowhere/none:1") for version in versions
    )
    for version, revision in zip(versions, revisions, strict=True):
        version.target_revision = revision
    DeploymentVersion.objects.bulk_update(versions, ["target_revision"], batch_size=500)


def bound_devices(cluster: Any) -> dict[str, tuple[int, list[str]]]:
    """Per node the devices that bound pods ask for, and the versions they are of."""
    from kube import specs
    from kube.observe import requests_of

    devices: Counter[str] = Counter()
    versions: dict[str, list[str]] = {}
    for pod in cluster.find("Pod"):
        node = pod["spec"].get("nodeName")
        if node and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            devices[node] += int(requests_of(pod).get(RESOURCE, 0))
            versions.setdefault(node, []).append(pod["metadata"]["labels"].get(specs.VERSION_ID, ""))
    return {node: (count, versions[node]) for node, count in devices.items()}


if __name__ == "__main__":
    main()
