"""Another number of devices: what a version holds is kept until the new size is decided."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.models import DeploymentVersion, GpuClaim, GpuFlavor, InstanceType, Revision, Rollout
from deployments.services.gpu import demand
from deployments.tasks import desired, gates
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, kind, node, quota

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


def running(fleet: Fleet, version: DeploymentVersion) -> None:
    """All instances of the version that hold a place run and are ready."""
    fleet.start()
    ready = sum(claim.instances for claim in GpuClaim.objects.filter(version=version, state="placed"))
    DeploymentVersion.objects.filter(pk=version.pk).update(
        ready_instances=ready, active_revision=version.target_revision
    )


def resize(version: DeploymentVersion, gpus: int) -> Rollout:
    """The version wants another instance type from now on, and rolls over to it."""
    wanted = version.desired_instances
    version.rollouts.filter(state="in_progress").update(state="superseded")
    rollout = factories.rollout(factories.revision(version))
    DeploymentVersion.objects.filter(pk=version.pk).update(instance_type=kind(gpus), desired_instances=wanted)
    version.refresh_from_db()
    return rollout


def held_by(version: DeploymentVersion) -> demand.Holding:
    held = demand.holding(DeploymentVersion.objects.get(pk=version.pk))
    assert held is not None
    return held


def asked(version: DeploymentVersion) -> dict[str, Any]:
    """What the API tells of the version's claims, and who is in the way."""
    client, project = Client(), version.deployment.project
    client.force_login(factories.member(project))
    path = f"/api/v1/projects/{project.name}/deployments/{version.deployment.name}/versions/v1/claim"
    return client.get(f"{path}?blockers=true").json()


def strategy(rollout: Rollout) -> tuple[str, int | None]:
    rollout.refresh_from_db()
    return rollout.strategy, rollout.expected_gap


def test_who_finds_no_room_for_the_new_size_keeps_the_old(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4)]
    version, other = version_of(gpus=1), version_of(gpus=2)
    fleet.pass_()
    running(fleet, version)
    rollout = resize(version, 4)
    fleet.pass_(1)
    held = held_by(version)
    assert (held.instances, held.devices, held.instance_type, held.outgrown) == (1, 1, kind(1), True)
    assert held.code == "capacity"
    assert "the claim asks for 4 GPUs" in held.message
    assert strategy(rollout) == ("", None)
    assert desired.undecided(rollout, held), "the template stays as it is"
    assert gates.short(version, held), "and the rollout says what it waits for"
    late = version_of(gpus=2)
    fleet.pass_(1)
    assert claim_of(late).state == "waiting", "its place is not given away"
    told = asked(version)
    assert (told["instances_placed"], told["status_reason"]["code"]) == (1, "capacity")
    assert told["blockers"]["running"], "of the new size"
    assert fleet.pass_(40).created == 0
    DeploymentVersion.objects.filter(pk__in=[other.pk, late.pk]).update(desired_instances=0)
    fleet.pods = []
    running(fleet, version)
    fleet.pass_(1)
    assert claim_of(version).nodes == [[CLUSTER, "n1"]]
    held = held_by(version)
    assert (held.instances, held.devices, held.kept, held.outgrown) == (1, 4, (), False)
    assert strategy(rollout)[0] == "in_place"


def test_the_only_device_is_handed_over_to_the_new_size(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=2)
    fleet.pass_()
    running(fleet, version)
    rollout = resize(version, 4)
    done = fleet.pass_(1)
    assert version.pk in done.versions
    assert strategy(rollout) == ("in_place", 60)
    held = held_by(version)
    assert (held.instances, held.devices, held.nodes) == (1, 4, ((CLUSTER, "n1"),))
    assert GpuClaim.objects.filter(ended_at=None).count() == 1


def test_both_sizes_are_held_where_there_is_room_until_the_rollout_is_done(
    fleet: Fleet, flavor: GpuFlavor, version_of: Make
):
    fleet.nodes = [node("n1", 4), node("n2", 4)]
    version = version_of(gpus=4)
    fleet.pass_()
    running(fleet, version)
    ((_, before),) = claim_of(version).nodes
    rollout = resize(version, 2)
    fleet.pass_(1)
    assert strategy(rollout) == ("surge", 0)
    held = held_by(version)
    assert (held.instances, held.devices, held.kept) == (1, 2, ((CLUSTER, before),))
    assert held.nodes != held.kept
    fleet.pass_(1)
    assert held_by(version).kept
    Rollout.objects.filter(pk=rollout.pk).update(state="complete")
    fleet.pass_(1)
    assert held_by(version).kept == ()
    assert GpuClaim.objects.filter(ended_at=None).count() == 1


def test_all_instances_pass_over_in_one_pass(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 3), node("n2", 3)]
    version = version_of(gpus=1, instances=2, minimum_instances=1)
    fleet.pass_()
    fleet.pass_(1)
    running(fleet, version)
    resize(version, 3)
    fleet.pass_(1)
    assert [(claim_of(version, part).devices, claim_of(version, part).instances) for part in (0, 1)] == [(3, 1)] * 2
    assert (held_by(version).instances, len(held_by(version).nodes)) == (2, 2)


def test_as_many_as_find_room_pass_over_the_others_wait(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 3)]
    version = version_of(gpus=1, instances=3, minimum_instances=1)
    fleet.pass_()
    fleet.pass_(1)
    running(fleet, version)
    resize(version, 2)
    fleet.pass_(1)
    assert (held_by(version).instances, held_by(version).devices, held_by(version).code) == (1, 2, "capacity")


def test_a_size_that_can_never_be_had_fails_the_rollout_and_stops_nothing(
    fleet: Fleet, flavor: GpuFlavor, version_of: Make
):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=2)
    fleet.pass_()
    running(fleet, version)
    resize(version, 8)
    fleet.pass_(1)
    held = held_by(version)
    assert (held.instances, held.devices, held.hopeless, held.code) == (1, 2, True, "too-large")


def test_who_goes_back_holds_what_it_held(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=1)
    fleet.pass_()
    first = claim_of(version)
    running(fleet, version)
    resize(version, 8)
    fleet.pass_(1)
    assert claim_of(version).pk != first.pk
    resize(version, 1)
    fleet.pass_(1)
    assert claim_of(version).pk == first.pk
    assert (held_by(version).instances, held_by(version).outgrown) == (1, False)
    assert GpuClaim.objects.filter(part__gte=0, ended_at=None).count() == 1


def test_a_third_size_before_the_second_is_decided(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=1)
    fleet.pass_()
    running(fleet, version)
    resize(version, 8)
    fleet.pass_(1)
    rollout = resize(version, 4)
    fleet.pass_(1)
    assert strategy(rollout)[0] == "in_place"
    assert held_by(version).devices == 4


def test_the_turn_of_others_is_kept(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    """A larger size does not slip past a claim that waits for the same devices."""
    fleet.nodes = [node("n1", 4)]
    version, blocker = version_of(gpus=2), version_of(gpus=2)
    fleet.pass_()
    running(fleet, version)
    first = version_of(gpus=2)
    fleet.pass_(1)
    resize(version, 4)
    fleet.pass_(1)
    DeploymentVersion.objects.filter(pk=blocker.pk).update(desired_instances=0)
    fleet.pods = [
        one for one in fleet.pods if one["metadata"]["labels"].get("pilothouse.io/version-id") != str(blocker.pk)
    ]
    fleet.pass_(1)
    assert claim_of(first).state == "placed"
    assert held_by(version).devices == 2


def test_quota_is_that_of_the_new_size_alone(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 8)]
    version = version_of(gpus=2)
    quota(flavor, version.deployment.project, 4)
    fleet.pass_()
    running(fleet, version)
    rollout = resize(version, 4)
    fleet.pass_(1)
    assert strategy(rollout)[0] == "in_place", "both together would be more than its quota"
    assert held_by(version).devices == 4


def test_a_type_that_was_changed_is_handed_over_too(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    """Without a rollout: what the pods ask for is what was granted, whatever the type says meanwhile."""
    fleet.nodes = [node("n1", 4)]
    version, other = version_of(gpus=2), version_of(instance_type=kind(1, "small"))
    fleet.pass_()
    running(fleet, version)
    InstanceType.objects.filter(name="gpu-2").update(accelerator=4)
    assert spec_devices(version) == 2
    fleet.pass_(1)
    assert held_by(version).outgrown
    assert spec_devices(version) == 2
    DeploymentVersion.objects.filter(pk=other.pk).update(desired_instances=0)
    fleet.pass_(1)
    assert held_by(version).devices == spec_devices(version) == 4


def spec_devices(version: DeploymentVersion) -> int:
    fresh = DeploymentVersion.objects.get(pk=version.pk)
    revision = fresh.target_revision
    assert revision is not None
    revision.kind, revision.image = Revision.Kind.IMAGE, "none:1"
    return desired.spec_of(fresh, revision, "v", None, held_by(fresh)).size.accelerators


def test_a_version_without_devices_answers_until_there_are_some(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2)]
    other = version_of(gpus=2)
    version = version_of(instance_type=factories.instance_type("512mb"))
    fleet.pass_()
    assert demand.holding(version) is None
    DeploymentVersion.objects.filter(pk=version.pk).update(ready_instances=1, active_revision=version.target_revision)
    rollout = resize(version, 2)
    version.refresh_from_db()
    assert (held_by(version).instances, held_by(version).code) == (1, "gpu_queued"), "before any pass"
    fleet.pass_(1)
    held = held_by(version)
    assert (held.instances, held.outgrown, held.code) == (1, True, "capacity")
    assert desired.undecided(rollout, held)
    DeploymentVersion.objects.filter(pk=other.pk).update(desired_instances=0)
    fleet.pass_(1)
    held = held_by(version)
    assert (held.instances, held.outgrown, held.devices) == (1, False, 2)


def test_who_does_not_run_gives_the_old_size_up_at_once(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=2)
    fleet.pass_()
    resize(version, 8)
    fleet.pass_(1)
    held = held_by(version)
    assert (held.instances, held.hopeless) == (0, True)
    assert GpuClaim.objects.filter(ended_at=None).count() == 1


def test_a_kept_size_that_is_scaled_down_or_loses_its_node_goes(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2), node("n2", 2)]
    version = version_of(gpus=2, instances=2)
    fleet.pass_()
    running(fleet, version)
    resize(version, 8)
    fleet.pass_(1)
    assert held_by(version).instances == 2
    DeploymentVersion.objects.filter(pk=version.pk).update(minimum_instances=1, desired_instances=1)
    fleet.pass_(1)
    ((_, left),) = held_by(version).nodes
    fleet.nodes = [one for one in fleet.nodes if one["metadata"]["name"] != left]
    fleet.pods = []
    fleet.pass_(1)
    fleet.pass_(1)
    assert held_by(version).instances == 0
    assert GpuClaim.objects.filter(version=version, ended_at=None).count() == 1
