"""The pass and the reconciler against an embedded cluster with simulated GPUs: what its scheduler binds, counts."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Project
from deployments import cluster as clusters
from deployments import valkey
from deployments.models import DeploymentVersion, GpuClaim, GpuFlavor, GpuPolicy, Revision, Rollout
from deployments.services.gpu import defrag, inventory
from deployments.services.gpu import snapshot as snapshots
from deployments.tasks import gpu
from deployments.tasks.reconciling import reconcile
from kube import apply
from kube.connect import Cluster
from kube.observe import requests_of
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, GPU, claim_of, kind
from tests.contract.conftest import start_cluster, stop_cluster

pytestmark = pytest.mark.django_db(transaction=True)

SERVER = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer((os.environ["POD_IP"], 18081), Handler).serve_forever()
"""
WAIT_SECONDS = 60


NODES = "2:cpu=4,memory=8Gi,gpu=1,product=A100,prefix=gpu"


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, transactional_db: None, settings: Settings
) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("gpus")
    # Pods drop to another user, who must be able to reach their files.
    for folder in (data, data.parent, data.parent.parent):
        with contextlib.suppress(OSError):
            folder.chmod(0o755)
    process, path = start_cluster(data, "--simulated-nodes", getattr(request, "param", NODES))
    settings.KUBECONFIG = str(path)
    valkey.client().flushdb()
    GpuFlavor.objects.create(name="a100", products=["A100"])
    try:
        yield clusters.current()
    finally:
        for project in Project.objects.all():
            apply.delete(clusters.current(), "Namespace", None, project.namespace)
        stop_cluster(process)


def version_of(project: Project, name: str, instances: int = 1) -> DeploymentVersion:
    """A container image that answers its health check, on one GPU for each instance."""
    version = factories.version(
        factories.deployment(project, name),
        instance_type=kind(1, cpu=0.1, memory=64),
        minimum_instances=instances,
        desired_instances=instances,
        command=["python", "-c", SERVER],
        health_check={"port": 18081, "path": "/"},
    )
    roll_out(version)
    return version


def roll_out(version: DeploymentVersion) -> Rollout:
    DeploymentVersion.objects.filter(pk=version.pk).update(generation=version.generation + 1)
    version.refresh_from_db()
    revision = factories.revision(version, kind=Revision.Kind.IMAGE, image="python:3.11-slim")
    return factories.rollout(revision)


def devices_bound(cluster: Cluster) -> Counter[str]:
    """Devices per node, counted from pods that are bound and have not ended."""
    found: Counter[str] = Counter()
    for pod in cluster.find("Pod"):
        if pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            found[pod["spec"]["nodeName"]] += int(requests_of(pod).get(GPU, 0))
    return found


def work(cluster: Cluster, until: Callable[[], bool], most: int = 1) -> None:
    """Passes over claims and versions until something is so; no node holds more than ``most`` devices meanwhile."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        inventory.update(CLUSTER, cluster.find("Node"), timezone.now())
        gpu.schedule(cluster, timezone.now())
        for version in DeploymentVersion.objects.all():
            reconcile(version.pk)
        bound = devices_bound(cluster)
        assert all(count <= most for count in bound.values()), bound
        if until():
            return
        if time.monotonic() > deadline:
            told: list[Any] = [list(DeploymentVersion.objects.values("phase", "reason_code", "reason_message"))]
            told.append(list(GpuClaim.objects.values("label", "part", "state", "nodes", "reason_message")))
            pytest.fail(f"not within {WAIT_SECONDS} s: {told}")
        time.sleep(0.1)


def phase(version: DeploymentVersion) -> str:
    version.refresh_from_db()
    return version.phase


def rolled_out(version: DeploymentVersion) -> bool:
    """Serving, and nothing is left of its rollout: instances may be ready a moment before it is complete."""
    return phase(version) == "serving" and not version.rollouts.filter(state=Rollout.State.IN_PROGRESS).exists()


def test_placed_waiting_handed_over_and_passed_on(cluster: Cluster) -> None:
    project = factories.project()
    first, second = version_of(project, "first"), version_of(project, "second")
    work(cluster, lambda: phase(first) == phase(second) == "serving")
    planned = {claim_of(first).nodes[0][1], claim_of(second).nodes[0][1]}
    assert planned == {"gpu-0", "gpu-1"}
    assert devices_bound(cluster) == Counter({"gpu-0": 1, "gpu-1": 1})
    assert first.instances.get(deleted_at=None).node == claim_of(first).nodes[0][1]

    third = version_of(project, "third")
    work(cluster, lambda: phase(third) == "scheduling" and third.reason_code == "capacity")
    assert "0 of 2 nodes fit now" in third.reason_message
    assert third.rollouts.get().reason_message == third.reason_message
    assert not third.instances.exists(), "nothing is started that has no place"

    # There is no room for a second instance: the rollout says so before it starts, and goes through all the same.
    rollout = roll_out(first)
    work(cluster, lambda: Rollout.objects.get(pk=rollout.pk).strategy != "")
    rollout.refresh_from_db()
    assert (rollout.strategy, rollout.state) == ("in_place", "in_progress")
    assert rollout.expected_gap
    work(cluster, lambda: Rollout.objects.get(pk=rollout.pk).state == "complete")
    assert phase(first) == "serving"
    assert claim_of(third).state == "waiting"

    DeploymentVersion.objects.filter(pk=second.pk).update(
        minimum_instances=0, desired_instances=0, generation=second.generation + 1
    )
    work(cluster, lambda: phase(third) == "serving")
    assert third.reason_code == ""


@pytest.mark.parametrize("cluster", [NODES.replace("gpu=1", "gpu=2")], indirect=True)
def test_one_instance_moves_and_the_other_never_notices(cluster: Cluster) -> None:
    GpuPolicy.objects.filter(id=1).update(minimum_run_seconds=0)
    version = version_of(factories.project(), "pair", instances=2)
    inventory.update(CLUSTER, cluster.find("Node"), timezone.now())
    gpu.schedule(cluster, timezone.now())
    GpuClaim.objects.update(nodes=[[CLUSTER, "gpu-0"], [CLUSTER, "gpu-1"]])
    work(cluster, lambda: rolled_out(version) and version.ready_instances == 2, most=2)
    before = {instance.node: instance.pk for instance in version.instances.filter(deleted_at=None)}
    advice = defrag.advise(snapshots.load(timezone.now()), "a100")
    assert advice is not None
    (move,) = advice.moves
    defrag.defragment(factories.superuser(), "a100", advice.token)

    fewest = []

    def arrived() -> bool:
        fewest.append(version.instances.filter(deleted_at=None, ready=True).count())
        return devices_bound(cluster) == Counter({move.target[1]: 2}) and claim_of(version).nodes == [
            list(move.target),
            list(move.target),
        ]

    work(cluster, arrived, most=2)
    assert min(fewest) >= 2
    assert version.instances.get(pk=before[move.target[1]]).deleted_at is None, "it was not started anew"
    assert version.rollouts.count() == 1


@pytest.mark.parametrize("cluster", [NODES.replace("2:", "1:").replace("gpu=1", "gpu=2")], indirect=True)
def test_a_larger_size_waits_beside_the_old_one_and_takes_its_place(cluster: Cluster) -> None:
    project = factories.project()
    grows, other = version_of(project, "grows"), version_of(project, "other")
    work(cluster, lambda: rolled_out(grows) and rolled_out(other), most=2)
    pair = kind(2, cpu=0.1, memory=64)
    DeploymentVersion.objects.filter(pk=grows.pk).update(instance_type=pair)
    rollout = roll_out(grows)
    work(cluster, lambda: phase(grows) == "degraded" and grows.reason_code == "capacity", most=2)
    assert grows.ready_instances == 1
    assert devices_bound(cluster) == Counter({"gpu-0": 2}), "it keeps what it has"

    DeploymentVersion.objects.filter(pk=other.pk).update(
        minimum_instances=0, desired_instances=0, generation=other.generation + 1
    )
    work(cluster, lambda: Rollout.objects.get(pk=rollout.pk).state == "complete", most=2)
    rollout.refresh_from_db()
    assert rollout.strategy == "in_place"
    assert phase(grows) == "serving"
    assert devices_bound(cluster) == Counter({"gpu-0": 2})
    assert claim_of(grows).instance_type == pair
    assert grows.instances.filter(deleted_at=None, ready=True).count() == 1
