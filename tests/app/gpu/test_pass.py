"""The pass: placing, waiting, displacing, and taking reality as it is."""

from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection

from deployments.models import (
    DeploymentVersion,
    GpuClaim,
    GpuFlavor,
    GpuPriority,
)
from deployments.services.gpu import demand, passing
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, node, pod

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


def test_a_version_gets_its_place_and_a_second_pass_changes_nothing(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1")]
    version = version_of(gpus=2)
    assert fleet.pass_().versions == {version.pk}
    claim = claim_of(version)
    assert (claim.state, claim.flavor, claim.nodes) == ("placed", "a100", [[CLUSTER, "n1"]])
    held = demand.holding(version)
    assert held is not None
    assert (held.instances, held.nodes) == (1, ((CLUSTER, "n1"),))
    before = list(GpuClaim.objects.values())
    done = fleet.pass_(1)
    assert (done.versions, done.created, done.saved) == (set(), 0, 0)
    assert list(GpuClaim.objects.values()) == before
    (event,) = claim.events.all()
    assert (event.state, event.message, event.version) == ("placed", "2 x a100 on n1.", version)


def test_without_a_flavor_nothing_is_governed(fleet: Fleet, version_of: Make):
    fleet.nodes = [node("n1")]
    version = version_of()
    fleet.pass_()
    assert demand.holding(version) is None
    assert not GpuClaim.objects.exists()


def test_no_node_is_ever_promised_more_than_it_has(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4), node("n2", 3), node("n3", 8, healthy=5)]
    fleet.pods = [pod(None, "n1", 2)]
    versions = [version_of(gpus=1 + number % 3) for number in range(12)]
    fleet.pass_()
    used = Counter({"n1": 2})
    for claim in GpuClaim.objects.filter(state="placed"):
        for _, name in claim.nodes:
            used[name] += claim.devices
    assert used["n1"] <= 4
    assert used["n2"] <= 3
    assert used["n3"] <= 5
    assert sum(used.values()) >= 11, "what fits is placed"
    waiting = GpuClaim.objects.exclude(state="placed")
    assert waiting.count() + GpuClaim.objects.filter(state="placed").count() == len(versions)
    for claim in waiting:
        assert claim.reason_code
        assert claim.reason_message.endswith(".")
        assert claim.position


def test_a_claim_larger_than_any_node_is_refused_at_once(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=8)
    fleet.pass_()
    claim = claim_of(version)
    assert (claim.state, claim.reason_code) == ("refused", "too-large")
    assert "4 GPUs" in claim.reason_message
    held = demand.holding(version)
    assert held is not None
    assert held.hopeless
    fleet.nodes.append(node("n2", 8))
    fleet.pass_(40)
    assert claim_of(version).state == "placed"


def test_all_first_instances_or_none_and_further_ones_singly(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 3)]
    holder = version_of(gpus=1)
    fleet.pass_()
    pair = version_of(gpus=1, instances=3)
    fleet.pass_()
    assert claim_of(pair).state == "waiting"
    assert claim_of(pair).instances == 3
    DeploymentVersion.objects.filter(pk=holder.pk).update(desired_instances=0)
    fleet.pass_()
    assert claim_of(pair).state == "placed"
    DeploymentVersion.objects.filter(pk=pair.pk).update(desired_instances=4, minimum_instances=3)
    fleet.pass_()
    assert claim_of(pair, 1).state == "waiting"
    held = demand.holding(DeploymentVersion.objects.get(pk=pair.pk))
    assert held is not None
    assert held.instances == 3
    assert held.code == "capacity"
    DeploymentVersion.objects.filter(pk=pair.pk).update(desired_instances=1, minimum_instances=1)
    fleet.pass_()
    assert claim_of(pair).instances == 1
    assert not GpuClaim.objects.filter(version=pair, part=1, ended_at=None).exists()


def test_waiting_behind_others_is_told_without_their_names(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    version_of()
    fleet.pass_()
    secret = version_of(factories.project("secret-lab"))
    fleet.pass_()
    late = version_of()
    fleet.pass_(1)
    claim = claim_of(late)
    assert claim.position == 2
    assert claim.ahead_claims == [str(claim_of(secret).pk)]
    assert "Waiting behind 1 claim (1 GPU)" in claim.reason_message
    assert "secret-lab" not in claim.reason_message
    assert claim.reason_message.count(claim.reason_next) == 0, "the next step is told once"


def test_explanations_are_debounced(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    version_of()
    fleet.pass_()
    late = version_of()
    fleet.pass_()
    first = claim_of(late)
    DeploymentVersion.objects.filter(pk=version_of().pk).update(gpu_priority=GpuPriority.objects.get(name="production"))
    fleet.pass_(5)
    assert (claim_of(late).position, claim_of(late).reason_at) == (1, first.reason_at)
    fleet.pass_(40)
    assert claim_of(late).position == 2
    assert claim_of(late).reason_at > first.reason_at
    assert fleet.pass_(40).saved == 0, "what has not changed is not told again"


def test_a_deleted_or_suspended_owner_gives_its_place_back(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2)]
    gone, suspended = version_of(), version_of()
    fleet.pass_()
    gone.delete()
    project = suspended.deployment.project
    project.suspended = True
    project.save()
    fleet.pass_(1)
    assert set(GpuClaim.objects.values_list("state", flat=True)) == {"ended"}


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_in_the_middle_leaves_nothing_half_granted(
    fleet: Fleet, version_of: Make, monkeypatch: pytest.MonkeyPatch
):
    GpuFlavor.objects.create(name="a100", products=["A100"])
    fleet.nodes = [node("n1", 2)]
    version_of()

    def die(self: passing.Pass) -> None:
        GpuClaim.objects.bulk_create(self.claims)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(passing.Pass, "_save", die)
        with pytest.raises(KeyboardInterrupt):
            fleet.pass_()
    assert not GpuClaim.objects.exists()
    fleet.pass_()
    assert GpuClaim.objects.get().state == "placed"


@pytest.mark.django_db(transaction=True)
def test_only_one_pass_at_a_time(fleet: Fleet, version_of: Make):
    GpuFlavor.objects.create(name="a100", products=["A100"])
    fleet.nodes = [node("n1", 2)]
    version_of()
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [passing.LOCK])
        assert passing.run(passing.Cluster(CLUSTER), fleet.now) is None
    finally:
        other.close()
    fleet.pass_()
    assert GpuClaim.objects.get().state == "placed"
