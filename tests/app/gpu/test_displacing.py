"""Who is displaced for whom, and who is not."""

from collections.abc import Callable

import pytest

from deployments.models import (
    DeploymentVersion,
    GpuClaim,
    GpuCohort,
    GpuFlavor,
    GpuPolicy,
    GpuTenant,
)
from deployments.services.gpu import demand
from tests.app import factories
from tests.app.gpu.conftest import Fleet, claim_of, node, quota

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


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


def test_borrowers_share_evenly_where_the_policy_says_so(fleet: Fleet, version_of: Make, cohort):
    """Neither has quota of its own left: one has borrowed all that a third does not use, the other asks for some."""
    rich, poor = cohort
    third = factories.project()
    GpuTenant.objects.create(project=third, cohort=GpuCohort.objects.get())
    quota(GpuFlavor.objects.get(), third, 4)
    fleet.nodes = [node("n1", 8)]
    for _ in range(6):
        version_of(rich)
    for _ in range(2):
        version_of(poor)
    fleet.pass_()
    fleet.start()
    wishes = [version_of(poor) for _ in range(3)]
    fleet.pass_(100)
    assert not GpuClaim.objects.filter(state="evicted").exists()
    GpuPolicy.objects.filter(id=1).update(fair_sharing="final-share")
    for _ in range(6):
        fleet.pass_(100)
        fleet.start()
    assert [claim_of(version).state for version in wishes].count("placed") == 2, "two borrowed GPUs for each"
    displaced = GpuClaim.objects.filter(state="evicted")
    assert {claim.project for claim in displaced} == {rich}
    assert displaced.count() == 2
    fleet.pass_(100)
    fleet.start()
    assert GpuClaim.objects.filter(state="evicted").count() == 2, "and it does not go back and forth"
