"""The pass: placing, waiting, displacing, and taking reality as it is."""

import datetime as dt
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection

from deployments.models import (
    DeploymentVersion,
    GpuClaim,
    GpuCohort,
    GpuFlavor,
    GpuPolicy,
    GpuPriority,
    GpuTenant,
    GpuUse,
    Instance,
    InstanceTypeGroup,
    InstanceTypeGroupItem,
    Rollout,
)
from deployments.services.gpu import demand, inventory, passing
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, kind, node, pod, quota

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


@pytest.fixture
def cohort(flavor: GpuFlavor) -> tuple[factories.Project, factories.Project]:
    """Two projects with two devices each, which lend them to each other."""
    both = GpuCohort.objects.create(name="all")
    found = (factories.project(), factories.project())
    for project in found:
        GpuTenant.objects.create(project=project, cohort=both)
        quota(flavor, project, 2)
    GpuPolicy.objects.filter(id=1).update(minimum_run_seconds=60)
    return found


def test_lent_quota_comes_back_and_the_victim_waits_with_a_reason(fleet: Fleet, version_of: Make, cohort):
    mine, other = cohort
    fleet.nodes = [node("n1", 4)]
    borrowers = [version_of(other) for _ in range(4)]
    fleet.pass_()
    fleet.start()
    owner = version_of(mine, gpus=2)
    fleet.pass_(30)
    assert claim_of(owner).state == "waiting", "the minimum run time holds"
    fleet.pass_(60)
    displaced = GpuClaim.objects.filter(state="evicted")
    assert displaced.count() == 2
    assert claim_of(owner).reason_code == "making-room"
    for claim in displaced:
        assert claim.displaced_for == claim_of(owner).pk
        assert "needs its own quota back" in claim.reason_message
        held = demand.holding(claim.version)
        assert held is not None
        assert held.instances == 0
    fleet.pass_(1)
    assert GpuClaim.objects.filter(state="evicted").count() == 2, "nobody else goes while those end"
    assert claim_of(owner).state == "waiting"
    fleet.start()
    fleet.pass_(1)
    assert claim_of(owner).state == "placed"
    fleet.start()
    for _ in range(4):
        fleet.pass_(120)
        fleet.start()
    assert claim_of(owner).state == "placed", "and it does not go back and forth"
    assert sum(claim_of(version).evictions for version in borrowers) == 2


def test_a_disruption_budget_protects(fleet: Fleet, version_of: Make, cohort):
    mine, other = cohort
    fleet.nodes = [node("n1", 4)]
    for _ in range(4):
        version_of(other)
    fleet.pass_()
    fleet.start()
    fleet.budgets = [
        {"metadata": {"namespace": "ph"}, "spec": {"selector": {}}, "status": {"disruptionsAllowed": 0}},
    ]
    version_of(mine)
    fleet.pass_(100)
    assert not GpuClaim.objects.filter(state="evicted").exists()
    fleet.budgets = []
    fleet.pass_(1)
    assert GpuClaim.objects.filter(state="evicted").count() == 1


def test_a_node_that_vanishes_is_replaced(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2), node("n2", 2)]
    version = version_of(gpus=2)
    fleet.pass_()
    ((_, first),) = claim_of(version).nodes
    fleet.start()
    fleet.nodes = [one for one in fleet.nodes if one["metadata"]["name"] != first]
    fleet.pods = []
    fleet.pass_(1)
    claim = claim_of(version)
    assert claim.state == "placed"
    assert claim.nodes != [[CLUSTER, first]]


def test_one_of_several_instances_is_replaced_alone(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1), node("n2", 1)]
    version = version_of(instances=2)
    fleet.pass_()
    fleet.start()
    fleet.nodes = [node("n1", 1), node("n3", 1)]
    fleet.pods = [one for one in fleet.pods if one["spec"]["nodeName"] == "n1"]
    fleet.pass_(1)
    assert claim_of(version).nodes == [[CLUSTER, "n1"]]
    assert claim_of(version, 1).nodes == [[CLUSTER, "n3"]]


def test_the_schedulers_verdict_wins(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1), node("n2", 1)]
    version = version_of()
    fleet.pass_()
    ((_, planned),) = claim_of(version).nodes
    elsewhere = "n2" if planned == "n1" else "n1"
    fleet.pods = [pod(version, elsewhere)]
    fleet.pass_(1)
    assert claim_of(version).nodes == [[CLUSTER, elsewhere]]


def test_a_foreign_pod_that_was_quicker_sends_the_claim_elsewhere(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.pods = [pod(None, "n1"), pod(version, "n1", bound=False)]
    fleet.pass_(1)
    assert claim_of(version).state == "waiting"
    fleet.nodes.append(node("n2", 1))
    fleet.pass_(40)
    assert claim_of(version).nodes == [[CLUSTER, "n2"]]


def test_devices_that_fail_are_not_given(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2, healthy=0)]
    version = version_of()
    fleet.pass_()
    assert claim_of(version).state != "placed"
    fleet.nodes = [node("n1", 2, healthy=1)]
    fleet.pass_(40)
    assert claim_of(version).state == "placed"


def test_two_clusters_with_the_same_node_names(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    inventory.update("other", [node("n1", 1)], fleet.now)
    versions = [version_of(), version_of()]
    fleet.pass_()
    assert sorted(claim_of(version).nodes[0] for version in versions) == [[CLUSTER, "n1"], ["other", "n1"]]


def test_the_next_type_of_a_group_is_tried_after_its_time(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    GpuFlavor.objects.create(name="t4", products=["T4"], price=1)
    fleet.nodes = [node("big", 1), node("small", 4, product="T4")]
    fleet.pods = [pod(None, "big")]
    project = factories.project()
    group = InstanceTypeGroup.objects.create(project=project, name="group")
    large = kind(1, "large", node_selector={"nvidia.com/gpu.product": "A100"})
    small = kind(1, "small", node_selector={"nvidia.com/gpu.product": "T4"}, cpu=0.5)
    InstanceTypeGroupItem.objects.create(group=group, instance_type=large, priority=0, schedule_timeout=60)
    InstanceTypeGroupItem.objects.create(group=group, instance_type=small, priority=1)
    version = version_of(project, instance_type_group=group)
    fleet.pass_()
    assert (claim_of(version).state, claim_of(version).instance_type) == ("waiting", large)
    fleet.pass_(61)
    claim = claim_of(version)
    assert (claim.state, claim.instance_type, claim.flavor, claim.nodes) == (
        "placed",
        small,
        "t4",
        [[CLUSTER, "small"]],
    )
    held = demand.holding(version)
    assert held is not None
    assert held.instance_type == small


def test_what_the_first_type_can_never_have_another_may_have_later(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2)]
    holder = version_of(gpus=2)
    fleet.pass_()
    project = factories.project()
    group = InstanceTypeGroup.objects.create(project=project, name="group")
    InstanceTypeGroupItem.objects.create(group=group, instance_type=kind(8), priority=0, schedule_timeout=600)
    InstanceTypeGroupItem.objects.create(group=group, instance_type=kind(1), priority=1)
    version = version_of(project, instance_type_group=group)
    fleet.pass_(1)
    assert (claim_of(version).state, claim_of(version).reason_code) == ("waiting", "capacity")
    DeploymentVersion.objects.filter(pk=holder.pk).update(desired_instances=0)
    fleet.pass_(1)
    assert (claim_of(version).state, claim_of(version).instance_type) == ("placed", kind(1))


def test_a_type_without_devices_is_the_last_resort(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    version_of()
    fleet.pass_()
    project = factories.project()
    group = InstanceTypeGroup.objects.create(project=project, name="group")
    plain = factories.instance_type("512mb")
    InstanceTypeGroupItem.objects.create(group=group, instance_type=kind(1), priority=0, schedule_timeout=60)
    InstanceTypeGroupItem.objects.create(group=group, instance_type=plain, priority=1)
    version = version_of(project, instance_type_group=group)
    fleet.pass_(1)
    assert claim_of(version).state == "waiting"
    fleet.pass_(61)
    held = demand.holding(version)
    assert held is not None
    assert (held.instances, held.nodes, held.instance_type) == (1, (), plain)


def rolling(version: DeploymentVersion) -> Rollout:
    DeploymentVersion.objects.filter(pk=version.pk).update(ready_instances=1, active_revision=version.target_revision)
    rollout = factories.rollout(factories.revision(version))
    DeploymentVersion.objects.filter(pk=version.pk).update(desired_instances=1)
    return rollout


def test_a_rollout_surges_where_a_slice_is_free(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2)]
    version = version_of()
    fleet.pass_()
    fleet.start()
    rollout = rolling(version)
    fleet.pass_(1)
    rollout.refresh_from_db()
    assert (rollout.strategy, rollout.expected_gap) == ("surge", 0)
    held = demand.holding(version)
    assert held is not None
    assert (held.instances, len(held.nodes)) == (1, 2)
    Rollout.objects.filter(pk=rollout.pk).update(state="complete")
    fleet.pass_(1)
    held = demand.holding(version)
    assert held is not None
    assert len(held.nodes) == 1


def test_a_rollout_without_room_hands_over_in_place_and_tells_the_gap(
    fleet: Fleet, flavor: GpuFlavor, version_of: Make
):
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.start()
    earlier = factories.rollout(version.target_revision, state="complete", generation=0)
    Rollout.objects.filter(pk=earlier.pk).update(scheduled_at=fleet.now, ready_at=fleet.now + dt.timedelta(seconds=42))
    rollout = rolling(version)
    fleet.pass_(1)
    rollout.refresh_from_db()
    assert (rollout.strategy, rollout.expected_gap) == ("in_place", 42)
    assert GpuClaim.objects.filter(ended_at=None).count() == 1


def test_use_is_booked_once_and_split_at_midnight(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.now = dt.datetime(2026, 3, 1, 23, 59, 0, tzinfo=dt.UTC)
    fleet.nodes = [node("n1", 2)]
    version = version_of(gpus=2)
    fleet.pass_()
    fleet.pass_(120)
    fleet.pass_(0)
    booked = {use.day: (use.seconds, use.cost) for use in GpuUse.objects.filter(project=version.deployment.project)}
    cost = pytest.approx(120 / 3600 * 2.0)
    assert booked == {dt.date(2026, 3, 1): (120, cost), dt.date(2026, 3, 2): (120, cost)}
    assert GpuTenant.objects.get(project=version.deployment.project).past_use > 0


def test_idle_devices_are_taken_back_and_given_again_on_a_request(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    GpuPolicy.objects.filter(id=1).update(idle_minutes=10)
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.start()
    fleet.pass_(540)
    assert claim_of(version).state == "placed"
    fleet.pass_(120)
    claim = claim_of(version)
    assert (claim.state, claim.reason_code) == ("released", "idle-released")
    held = demand.holding(version)
    assert held is not None
    assert held.instances == 0
    fleet.start()
    fleet.pass_(5)
    assert claim_of(version).state == "released"
    DeploymentVersion.objects.filter(pk=version.pk).update(last_request_at=fleet.now + dt.timedelta(seconds=1))
    fleet.pass_(5)
    assert claim_of(version).state == "placed"


def test_gpus_at_work_are_not_idle_without_requests_either(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    GpuPolicy.objects.filter(id=1).update(idle_minutes=10)
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.start()
    instance = factories.instance(factories.revision(version))
    Instance.objects.filter(pk=instance.pk).update(gpu_busy_at=fleet.now + dt.timedelta(minutes=9))
    fleet.pass_(660)
    assert claim_of(version).state == "placed"
    fleet.pass_(660)
    claim = claim_of(version)
    assert (claim.state, claim.reason_code) == ("released", "idle-released")
    # An instance that is on its way out may still work: that asks for nothing.
    Instance.objects.filter(pk=instance.pk).update(gpu_busy_at=fleet.now + dt.timedelta(seconds=1))
    fleet.pass_(5)
    assert claim_of(version).state == "released"


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
