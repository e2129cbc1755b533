"""Advice to move instances, and moves: started elsewhere first, then ended where they were."""

import datetime as dt
from collections import Counter
from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from accounts.errors import Conflict, Forbidden
from deployments.models import DeploymentVersion, GpuClaim, GpuFlavor, GpuPolicy, Rollout
from deployments.services.gpu import defrag, demand, moves
from deployments.services.gpu import snapshot as snapshots
from deployments.tasks import desired
from tests.app import factories
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, node, pod

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


def advice_now(fleet: Fleet) -> defrag.Advice | None:
    return defrag.advise(snapshots.load(fleet.now), "a100")


def spread(fleet: Fleet, *places: tuple[DeploymentVersion, list[str]]) -> None:
    """Let versions run on these nodes, one instance on each."""
    for version, names in places:
        GpuClaim.objects.filter(version=version).update(nodes=[[CLUSTER, name] for name in names])
        DeploymentVersion.objects.filter(pk=version.pk).update(ready_instances=len(names))
    run(fleet)


def run(fleet: Fleet, ready: bool = True) -> None:
    """The pods that the claims want, on their nodes; none else of ours."""
    fleet.pods = [one for one in fleet.pods if not one["metadata"]["labels"]]
    for claim in GpuClaim.objects.filter(state="placed").select_related("version"):
        fleet.pods += [pod(claim.version, name, claim.devices) for _, name in claim.nodes]
    for one in fleet.pods:
        one["status"]["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]


@pytest.fixture
def busy(fleet: Fleet, flavor: GpuFlavor, version_of: Make) -> DeploymentVersion:
    """Four nodes of two devices: a version with an instance on each of three, and another beside the last."""
    GpuPolicy.objects.filter(id=1).update(minimum_run_seconds=0)
    fleet.nodes = [node(f"n{number}", 2) for number in (1, 2, 3)]
    version, other = version_of(instances=2), version_of()
    fleet.pass_()
    spread(fleet, (version, ["n1", "n2"]), (other, ["n3"]))
    return version


def carried_out(fleet: Fleet, advice: defrag.Advice) -> GpuClaim:
    defrag.defragment(factories.superuser(), "a100", advice.token)
    return GpuClaim.objects.get(part=GpuClaim.MOVE, ended_at=None)


def places(version: DeploymentVersion) -> list[str]:
    """Nodes on which the version holds a place, moves included."""
    held = demand.holding(version)
    assert held is not None
    return sorted(name for _, name in held.nodes)


def test_an_instance_of_several_moves_without_the_others(fleet: Fleet, busy: DeploymentVersion):
    advice = advice_now(fleet)
    assert advice is not None
    assert (advice.before, advice.after, len(advice.moves)) == (1, 2, 1)
    (move,) = advice.moves
    before = places(move.claim.version)
    began = carried_out(fleet, advice)
    assert not Rollout.objects.exists(), "nobody is started anew for it"
    version = DeploymentVersion.objects.get(pk=move.claim.version_id)
    held = demand.holding(version)
    assert held is not None
    assert (held.moving, desired.replicas_of(version, held)) == (1, len(before) + 1)
    assert places(version) == sorted([*before, move.target[1]])
    fleet.pass_(1)
    assert places(version) == sorted([*before, move.target[1]]), "until the new one is ready"
    fleet.pods.append(pod(version, move.target[1]))
    fleet.pass_(1)
    assert places(version) == sorted([*before, move.target[1]]), "bound is not ready"
    run(fleet)
    fleet.pass_(1)
    left = list(before)
    left[left.index(move.source[1])] = move.target[1]
    assert places(version) == sorted(left)
    began.refresh_from_db()
    assert began.state == "ended"
    held = demand.holding(version)
    assert held is not None
    assert desired.replicas_of(version, held) == len(before)


def test_what_a_move_leaves_is_not_given_away_before_its_pod_is_gone(
    fleet: Fleet, busy: DeploymentVersion, version_of: Make
):
    advice = advice_now(fleet)
    assert advice is not None
    carried_out(fleet, advice)
    run(fleet)
    late = version_of(gpus=2)
    fleet.pass_(1)
    assert claim_of(late).state == "waiting"
    run(fleet)
    fleet.pods = [one for one in fleet.pods if one["spec"]["nodeName"] != advice.node]
    fleet.pass_(40)
    assert claim_of(late).nodes == [[CLUSTER, advice.node]]


def test_two_instances_of_one_version_move_at_once(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    GpuPolicy.objects.filter(id=1).update(minimum_run_seconds=0)
    fleet.nodes = [node("n1", 4), node("n2", 4)]
    version, other = version_of(instances=2), version_of(gpus=2)
    fleet.pass_()
    spread(fleet, (version, ["n1", "n1"]), (other, ["n2"]))
    advice = advice_now(fleet)
    assert advice is not None
    assert advice.after == 4
    defrag.defragment(factories.superuser(), "a100", advice.token)
    run(fleet)
    fleet.pass_(1)
    used = Counter(name for claim in GpuClaim.objects.filter(state="placed") for _, name in claim.nodes * claim.devices)
    assert used in (Counter({"n1": 4}), Counter({"n2": 4}))


def test_a_disruption_budget_holds_the_old_instance(fleet: Fleet, busy: DeploymentVersion):
    advice = advice_now(fleet)
    assert advice is not None
    moving = advice.moves[0].claim.version
    carried_out(fleet, advice)
    run(fleet)
    fleet.budgets = [{"metadata": {"namespace": "ph"}, "spec": {"selector": {}}, "status": {"disruptionsAllowed": 0}}]
    before = places(moving)
    fleet.pass_(1)
    assert places(moving) == before
    fleet.budgets[0]["status"]["disruptionsAllowed"] = 1
    fleet.pass_(1)
    assert len(places(moving)) == len(before) - 1


def test_who_has_not_run_for_long_or_rolls_over_stays(fleet: Fleet, busy: DeploymentVersion):
    GpuPolicy.objects.filter(id=1).update(minimum_run_seconds=600)
    assert advice_now(fleet) is None
    fleet.now += dt.timedelta(seconds=601)
    assert advice_now(fleet) is not None
    for version in DeploymentVersion.objects.all():
        factories.rollout(version.target_revision)
    assert advice_now(fleet) is None


def test_versions_with_instances_that_are_not_ready_stay(fleet: Fleet, busy: DeploymentVersion):
    DeploymentVersion.objects.update(ready_instances=0)
    assert advice_now(fleet) is None


def test_a_move_that_does_not_get_ready_is_given_up(fleet: Fleet, busy: DeploymentVersion):
    advice = advice_now(fleet)
    assert advice is not None
    moving = advice.moves[0].claim.version
    before = places(moving)
    carried_out(fleet, advice)
    run(fleet, ready=False)
    fleet.pass_(moves.LONGEST.total_seconds() + 3600)
    assert places(moving) == before


@pytest.mark.parametrize("gone", ["source", "target"])
def test_a_node_that_vanishes_ends_the_move(fleet: Fleet, busy: DeploymentVersion, gone: str):
    advice = advice_now(fleet)
    assert advice is not None
    (move,) = advice.moves
    carried_out(fleet, advice)
    name = (move.source if gone == "source" else move.target)[1]
    fleet.nodes = [one for one in fleet.nodes if one["metadata"]["name"] != name]
    fleet.pods = [one for one in fleet.pods if one["spec"]["nodeName"] != name]
    fleet.pass_(1)
    fleet.pass_(1)
    assert not GpuClaim.objects.filter(part__lte=GpuClaim.MOVE, ended_at=None).exists()
    used = Counter(name for claim in GpuClaim.objects.filter(state="placed") for _, name in claim.nodes)
    assert max(used.values()) <= 2


def test_scaling_down_and_deleting_end_moves(fleet: Fleet, busy: DeploymentVersion):
    advice = advice_now(fleet)
    assert advice is not None
    move = advice.moves[0].claim
    carried_out(fleet, advice)
    DeploymentVersion.objects.filter(pk=move.version_id).update(desired_instances=0)
    fleet.pass_(1)
    assert not GpuClaim.objects.filter(version=move.version, ended_at=None).exists()


def test_the_board_shows_the_advice_and_carries_out_what_was_shown(
    client: Client, fleet: Fleet, busy: DeploymentVersion
):
    client.force_login(factories.superuser())
    fleet.now = timezone.now()
    advice = advice_now(fleet)
    assert advice is not None
    assert "would free 2 devices" in client.get("/gpus/").content.decode()
    assert not GpuClaim.objects.filter(part__lt=0).exists(), "a dry run changes nothing"
    client.post("/gpus/defragment/", {"flavor": "a100", "token": "stale"})
    client.post("/gpus/defragment/", {"flavor": "no-such-flavor", "token": advice.token})
    assert not GpuClaim.objects.filter(part__lt=0).exists(), "stale advice is not carried out"
    client.post("/gpus/defragment/", {"flavor": "a100", "token": advice.token})
    assert GpuClaim.objects.get(part=GpuClaim.MOVE).moves_from == list(advice.moves[0].source)
    page = client.get("/gpus/").content.decode()
    assert "would free" not in page
    assert "On the move" in page
    with pytest.raises(Conflict):
        defrag.defragment(factories.superuser(), "a100", advice.token)
    with pytest.raises(Forbidden):
        defrag.defragment(factories.member(busy.deployment.project, "admin"), "a100", advice.token)
