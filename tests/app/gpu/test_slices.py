"""MIG slices of several profiles on one node: inventory, flavors, claims, places, and the board."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import DeploymentVersion, GpuClaim, GpuFlavor, GpuPool
from deployments.services.gpu import inventory
from deployments.services.gpu import snapshot as snapshots
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, kind, node, pod

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]

SMALL, LARGE = "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb"


def mixed(name: str, small: int = 7, large: int = 2, **more: object) -> dict[str, object]:
    labels = {f"{SMALL}.memory": "9728", f"{SMALL}.replicas": "1"}
    return node(name, small, resource=SMALL, extra={LARGE: str(large)}, labels=labels, **more)


@pytest.fixture
def flavors(db: None) -> None:
    GpuFlavor.objects.create(name="small", resource=SMALL, price=1.0)
    GpuFlavor.objects.create(name="large", resource=LARGE, price=3.0)


def slices(resource: str, cpu: float = 1) -> dict[str, object]:
    name = f"{resource.rpartition('-')[2].replace('.', '-')}-{cpu:g}"
    return {"instance_type": kind(1, name, accelerator_resource=resource, cpu=cpu)}


def test_each_profile_is_a_pool_with_its_memory(db: None):
    inventory.update(CLUSTER, [mixed("m1")], timezone.now())
    found = {pool.resource: (pool.product, pool.memory_mib, pool.capacity) for pool in GpuPool.objects.all()}
    assert found == {SMALL: ("A100/mig-1g.10gb", 9728, 7), LARGE: ("A100/mig-3g.40gb", 40_960, 2)}


def test_claims_get_slices_of_their_profile(fleet: Fleet, flavors: None, version_of: Make):
    fleet.nodes = [mixed("m1", small=2, large=1), node("whole", 4)]
    small = [version_of(**slices(SMALL)) for _ in range(3)]
    large = [version_of(**slices(LARGE)) for _ in range(2)]
    fleet.pass_()
    states = [[claim_of(version).state for version in versions] for versions in (small, large)]
    assert [sorted(found) for found in states] == [["placed", "placed", "waiting"], ["placed", "waiting"]]
    for claim in GpuClaim.objects.filter(state="placed"):
        assert claim.nodes == [[CLUSTER, "m1"]]
    (waiting,) = GpuClaim.objects.filter(state="waiting", flavors=["large"])
    assert waiting.reason_code == "capacity"
    assert "0 of 1 nodes fit now" in waiting.reason_message
    fleet.start()
    before = list(GpuClaim.objects.values())
    fleet.pass_(1)
    assert list(GpuClaim.objects.values()) == before


def test_profiles_share_the_cpu_of_their_node(fleet: Fleet, flavors: None, version_of: Make):
    """In one pass and over several: what others hold counts once."""
    fleet.nodes = [mixed("m1", cpu=10)]
    fleet.pods = [pod(None, "m1", 0)]
    for _ in range(2):
        version_of(**slices(LARGE, cpu=4))
        version_of(**slices(SMALL, cpu=4))
    fleet.pass_()
    placed = GpuClaim.objects.filter(state="placed")
    assert sum(claim.cpu_milli for claim in placed) == 8000
    assert set(GpuClaim.objects.filter(state="waiting").values_list("reason_code", flat=True)) == {"cpu-memory"}
    fleet.pods += [pod(claim.version, "m1", 0) for claim in placed]
    version_of(**slices(SMALL, cpu=1))
    fleet.pass_(1)
    assert sum(claim.cpu_milli for claim in GpuClaim.objects.filter(state="placed")) == 9000
    foreign = snapshots.snapshot(snapshots.load(fleet.now), []).foreign
    assert sum(one.shape.cpu_milli for one in foreign) == 1000


def test_the_board_shows_the_slices_of_each_profile(fleet: Fleet, flavors: None, version_of: Make, client: Client):
    fleet.nodes = [mixed("m1", small=3, large=2)]
    version = version_of(**slices(LARGE))
    fleet.pass_()
    client.force_login(factories.superuser())
    page = client.get("/gpus/").content.decode()
    assert page.count("A100/mig-1g.10gb") >= 1
    assert page.count("A100/mig-3g.40gb") >= 1
    assert str(version.deployment.name) in page
    states = {state.name: (state.total, state.free) for state in client.get("/gpus/").context["flavors"]}
    assert states == {"small": (3, 3), "large": (2, 1)}
