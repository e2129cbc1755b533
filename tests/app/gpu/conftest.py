"""GPU nodes, pods and versions as rows and objects, and a pass over them without a cluster."""

import datetime as dt
import itertools
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Project
from deployments import valkey
from deployments.models import DeploymentVersion, GpuClaim, GpuFlavor, GpuQuota, InstanceType
from deployments.services.gpu import inventory, passing
from kube import specs
from tests.app import factories

CLUSTER = "default"
GPU = "nvidia.com/gpu"
_numbers = itertools.count(1)


def node(name: str, gpus: int = 4, product: str = "A100", **more: Any) -> dict[str, Any]:
    """A Node object with GPUs of one product."""
    resource = more.get("resource", GPU)
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": "81920", **more.get("labels", {})}
    whole = {"cpu": str(more.get("cpu", 64)), "memory": "262144Mi", resource: str(gpus), **more.get("extra", {})}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": more.get("taints", []), "unschedulable": more.get("closed", False)},
        "status": {
            "capacity": whole,
            "allocatable": {**whole, resource: str(more.get("healthy", gpus))},
            "conditions": [{"type": "Ready", "status": "True" if more.get("ready", True) else "False"}],
        },
    }


def pod(version: DeploymentVersion | None, where: str, gpus: int = 1, **more: Any) -> dict[str, Any]:
    """A pod on a node: of a version, or of somebody else."""
    labels: dict[str, str] = {}
    if version is not None:
        labels = {specs.MANAGED_BY: specs.MANAGER, specs.VERSION_ID: str(version.pk)}
    metadata: dict[str, Any] = {
        "name": f"pod-{next(_numbers)}",
        "namespace": "ph",
        "uid": str(uuid.uuid4()),
        "labels": labels,
        "annotations": {specs.NODE: where} if version is not None else {},
    }
    if more.get("deleting"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    requests = {"cpu": "1", "memory": "1Gi", GPU: str(gpus)}
    spec = {"containers": [{"name": "c", "resources": {"requests": requests}}]}
    if more.get("bound", True):
        spec["nodeName"] = where  # type: ignore[assignment]
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


class Fleet:
    """The cluster of a test: nodes and pods, and passes over them."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = []
        self.budgets: list[dict[str, Any]] = []
        self.now = timezone.now()

    def seen(self) -> None:
        inventory.update(CLUSTER, self.nodes, self.now)

    def pass_(self, after: float = 0.0) -> passing.Done:
        """One pass, ``after`` seconds later."""
        self.now += dt.timedelta(seconds=after)
        self.seen()
        done = passing.run(passing.Cluster(CLUSTER, self.pods, self.budgets), self.now)
        assert done is not None
        return done

    def start(self) -> None:
        """Pods where the claims want them, as the cluster would have them; others of our versions end."""
        self.pods = [one for one in self.pods if not one["metadata"]["labels"]]
        for claim in GpuClaim.objects.filter(state="placed").select_related("version"):
            self.pods += [pod(claim.version, name, claim.devices) for _, name in claim.nodes]


@pytest.fixture
def fleet(db: None) -> Fleet:
    valkey.client().flushdb()
    return Fleet()


@pytest.fixture
def flavor(db: None) -> GpuFlavor:
    return GpuFlavor.objects.create(name="a100", products=["A100"], price=2.0)


def kind(gpus: int = 1, name: str = "", **more: Any) -> InstanceType:
    name = name or f"gpu-{gpus}"
    found = InstanceType.objects.filter(name=name).first()
    fields = {"cpu": 1, "memory": 1024, "accelerator": gpus, "accelerator_resource": GPU, **more}
    return found or InstanceType.objects.create(name=name, **fields)


@pytest.fixture
def version_of(db: None) -> Callable[..., DeploymentVersion]:
    """``version_of(project, gpus=2, instances=1)``: a version that wants to run."""

    def make(project: Project | None = None, gpus: int = 1, instances: int = 1, **more: Any) -> DeploymentVersion:
        deployment = factories.deployment(project or factories.project())
        more.setdefault("minimum_instances", instances)
        if "instance_type_group" not in more:
            more.setdefault("instance_type", kind(gpus))
        version = factories.version(deployment, **more)
        factories.revision(version)
        DeploymentVersion.objects.filter(pk=version.pk).update(desired_instances=instances)
        version.refresh_from_db()
        return version

    return make


def quota(flavor: GpuFlavor, project: Project, nominal: int, **more: Any) -> GpuQuota:
    return GpuQuota.objects.create(flavor=flavor, project=project, nominal=nominal, **more)


def claim_of(version: DeploymentVersion, part: int = 0) -> GpuClaim:
    return GpuClaim.objects.get(version=version, part=part, ended_at=None)
