"""The policy: who may change it, what is refused, and what is allowed with a warning."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.errors import Conflict, Forbidden, Invalid
from accounts.models import AuditEvent, User
from deployments.models import GpuClaim, GpuCohort, GpuFlavor, GpuPolicy, GpuPriority, GpuQuota, GpuTenant
from deployments.services.gpu import policy
from tests.app import factories
from tests.app.gpu.conftest import Fleet, claim_of, node, quota

pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> User:
    return factories.superuser()


def test_only_the_platform_team_changes_the_policy(flavor: GpuFlavor):
    for person in factories.people(factories.project()).values():
        with pytest.raises(Forbidden):
            policy.save(person, GpuCohort(name="mine"))
        with pytest.raises(Forbidden):
            policy.delete(person, flavor)
    assert GpuFlavor.objects.exists()


def test_each_change_is_audited(root: User, flavor: GpuFlavor):
    flavor.price = 5.0
    policy.save(root, flavor)
    event = AuditEvent.objects.get(object_type="gpuflavor")
    assert (event.action, event.old, event.new) == ("update", {"price": 2.0}, {"price": 5.0})


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        (GpuFlavor(name="Bad Name", resource="nvidia.com/gpu"), "name", "not allowed"),
        (GpuFlavor(name="x", resource="gpu"), "resource", "nvidia.com/gpu"),
        (GpuFlavor(name="x", products="A100"), "products", "list"),
        (GpuFlavor(name="x", price=-1), "price", "out of range"),
        (GpuFlavor(name="x", node_selector=["a"]), "node_selector", "object"),
        (GpuCohort(name="x", weight=-1), "weight", "out of range"),
        (GpuCohort(name="x", weight=float("nan")), "weight", "out of range"),
        (GpuPriority(name="x", value=2.5), "value", "whole number"),
        (GpuPolicy(id=1, half_life_hours=0), "half_life_hours", "out of range"),
        (GpuPolicy(id=1, idle_minutes=0), "idle_minutes", "from 1"),
    ],
)
def test_nonsense_is_refused_by_field(root: User, row: Any, field: str, says: str):
    with pytest.raises(Invalid) as caught:
        policy.save(root, row)
    assert says in caught.value.fields[field]


@pytest.mark.parametrize(("limit", "value"), [("nominal", -1), ("nominal", 1.5), ("borrowing_limit", -3)])
def test_quotas_are_whole_devices(root: User, flavor: GpuFlavor, limit: str, value: float):
    row = GpuQuota(flavor=flavor, project=factories.project(), **{limit: value})
    with pytest.raises(Invalid) as caught:
        policy.save(root, row)
    assert "whole number" in caught.value.fields[limit]


def test_a_quota_has_one_owner(root: User, flavor: GpuFlavor):
    with pytest.raises(Invalid, match="either a project or a cohort"):
        policy.save(root, GpuQuota(flavor=flavor, nominal=1))
    project = factories.project()
    policy.save(root, GpuQuota(flavor=flavor, project=project, nominal=1))
    with pytest.raises(Conflict, match="already"):
        policy.save(root, GpuQuota(flavor=flavor, project=project, nominal=2))


def test_cycles_of_cohorts_are_refused_with_the_way_round(root: User):
    top = GpuCohort.objects.create(name="top")
    middle = GpuCohort.objects.create(name="middle", parent=top)
    bottom = GpuCohort.objects.create(name="bottom", parent=middle)
    top.parent = bottom
    with pytest.raises(Invalid) as caught:
        policy.save(root, top)
    assert "top > bottom > middle > top" in caught.value.fields["parent"]
    middle.parent = middle
    with pytest.raises(Invalid):
        policy.save(root, middle)


def test_zero_weight_is_allowed(root: User, flavor: GpuFlavor, fleet: Fleet, version_of: Any):
    fleet.nodes = [node("n1", 2)]
    version = version_of()
    cohort = GpuCohort.objects.create(name="all")
    GpuQuota.objects.create(flavor=flavor, cohort=cohort, nominal=2)
    policy.save(root, GpuTenant(project=version.deployment.project, cohort=cohort, weight=0))
    fleet.pass_()
    assert claim_of(version).state == "placed", "it borrows what nobody else wants"


def test_a_flavor_that_matches_no_node_is_told(root: User, fleet: Fleet, version_of: Any):
    fleet.nodes = [node("n1", 2, product="T4")]
    fleet.seen()
    (warning,) = policy.save(root, GpuFlavor(name="h100", products=["H100"]))
    assert "matches no node" in warning
    assert "T4" in warning
    version = version_of()
    fleet.pass_()
    assert (claim_of(version).state, claim_of(version).reason_code) == ("waiting", "no-node")


def test_a_quota_below_use_is_told_and_stops_nothing(root: User, flavor: GpuFlavor, fleet: Fleet, version_of: Any):
    fleet.nodes = [node("n1", 4)]
    version = version_of(gpus=3)
    row = quota(flavor, version.deployment.project, 3)
    fleet.pass_()
    fleet.start()
    row.nominal = 1
    (warning,) = policy.save(root, row)
    assert "uses 3 x a100" in warning
    fleet.pass_(1)
    assert claim_of(version).state == "placed"


def test_what_is_in_use_is_not_deleted(root: User):
    top = GpuCohort.objects.create(name="top")
    GpuCohort.objects.create(name="below", parent=top)
    with pytest.raises(Conflict, match="below"):
        policy.delete(root, top)


def test_levels_are_for_those_who_may_use_them(root: User, flavor: GpuFlavor, fleet: Fleet, version_of: Any):
    version, other = version_of(), factories.project()
    editor = factories.member(version.deployment.project, "editor")
    viewer = factories.member(version.deployment.project, "viewer")
    level = GpuPriority.objects.get(name="production")
    policy.save(root, level, projects=[other])
    with pytest.raises(Invalid, match="interactive, batch"):
        policy.set_version_priority(editor, version, "production")
    with pytest.raises(Forbidden):
        policy.set_version_priority(viewer, version, "batch")
    policy.set_version_priority(editor, version, "batch")
    fleet.nodes = [node("n1")]
    fleet.pass_()
    assert GpuClaim.objects.get().priority == 0


# -- the panel ---------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(client: Client, root: User) -> Client:
    client.force_login(root)
    return client


@pytest.mark.parametrize("name", ["flavor", "cohort", "tenant", "quota", "priority", "policy", "node", "claim"])
def test_the_panel_lists_everything(panel: Client, name: str, flavor: GpuFlavor, fleet: Fleet, version_of: Any):
    fleet.nodes = [node("n1")]
    project = version_of().deployment.project
    quota(flavor, project, 2)
    GpuTenant.objects.create(project=project, cohort=GpuCohort.objects.create(name="all"))
    fleet.pass_()
    assert panel.get(reverse(f"admin:deployments_gpu{name}_changelist")).status_code == 200
    row = {"node": GpuClaim, "claim": GpuClaim}.get(name)
    if row is None:
        model = {
            "flavor": GpuFlavor,
            "cohort": GpuCohort,
            "tenant": GpuTenant,
            "quota": GpuQuota,
            "priority": GpuPriority,
            "policy": GpuPolicy,
        }[name]
        found = model.objects.first()
        assert found is not None
        assert panel.get(reverse(f"admin:deployments_gpu{name}_change", args=[found.pk])).status_code == 200


def test_the_panel_saves_through_the_service(panel: Client):
    form = {"name": "h100", "resource": "nvidia.com/gpu", "products": '["H100"]', "node_selector": "{}", "price": "4"}
    answer = panel.post(reverse("admin:deployments_gpuflavor_add"), form, follow=True)
    assert "matches no node" in answer.content.decode()
    assert GpuFlavor.objects.get().price == 4
    assert AuditEvent.objects.filter(object_type="gpuflavor", action="create").exists()
    form |= {"name": "other", "resource": "gpu"}
    answer = panel.post(reverse("admin:deployments_gpuflavor_add"), form)
    assert "is not an extended resource" in answer.content.decode()
