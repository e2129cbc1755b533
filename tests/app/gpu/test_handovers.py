"""Types that versions fall back to, and how rollouts hand over."""

import datetime as dt
from collections.abc import Callable

import pytest

from deployments.models import (
    DeploymentVersion,
    GpuClaim,
    GpuFlavor,
    InstanceTypeGroup,
    InstanceTypeGroupItem,
    Rollout,
)
from deployments.services.gpu import demand
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, kind, node, pod

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


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
