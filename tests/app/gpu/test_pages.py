"""The board, the project's page, what-if, and what the buttons on them do."""

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.errors import Conflict, Forbidden, NotFound
from deployments.models import DeploymentVersion, GpuFlavor, GpuPolicy, GpuQuota
from deployments.services.gpu import actions, board, what_if
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu import snapshot as snapshots
from deployments.services.gpu.blockers import blockers
from tests.app import factories
from tests.app.gpu.conftest import Fleet, claim_of, node, pod, quota

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(factories.superuser())
    return client


def world() -> snapshots.World:
    return snapshots.load(timezone.now())


def test_the_board_shows_devices_holders_queue_quota_and_idle(
    root: Client, fleet: Fleet, flavor: GpuFlavor, version_of: Any
):
    fleet.now = timezone.now() - dt.timedelta(hours=1)
    fleet.nodes = [node("gpu-1", 4, healthy=3, labels={"pilothouse.io/simulated": "true"})]
    fleet.pods = [pod(None, "gpu-1")]
    holder = version_of()
    quota(flavor, holder.deployment.project, 1)
    fleet.pass_()
    waiting = version_of(holder.deployment.project, gpus=2)
    quota(flavor, factories.project("lender"), 3)
    fleet.pass_(1)
    page = root.get("/gpus/").content.decode()
    assert "Some of these GPUs are simulated" in page
    assert '<span class="tag">simulated</span>' in page
    for kind, count in (("held", 1), ("foreign", 1), ("broken", 1), ("free", 1)):
        assert page.count(f'class="gpu gpu-{kind}" title') == count, kind
    assert claim_of(holder).label in page
    assert claim_of(waiting).reason_message[:20] in page
    assert "Take back" in page
    assert "lender" in page


def test_the_board_answers_only_the_platform_team(client: Client, fleet: Fleet):
    urls = ("/gpus/", "/gpus/what-if/")
    for url in urls:
        assert client.get(url).status_code == 302
    for person in factories.people(factories.project()).values():
        client.force_login(person)
        for url in urls:
            assert client.get(url).status_code == 403
        assert client.post("/gpus/defragment/", {"flavor": "a100"}).status_code == 302
        assert "GPU board" not in client.get("/projects/").content.decode()
    client.force_login(factories.superuser())
    for url in urls:
        assert client.get(url).status_code == 200
    assert "GPU board" in client.get("/projects/").content.decode()


def test_a_project_sees_what_is_free_for_it_now(client: Client, fleet: Fleet, flavor: GpuFlavor, version_of: Any):
    fleet.nodes = [node("n1", 4), node("n2", 2)]
    version = version_of()
    project = version.deployment.project
    quota(flavor, project, 3)
    fleet.pass_()
    (offer,) = board.offers_for(project, world())
    assert (offer.free, offer.quota_left, offer.usable) == (5, 2, 2)
    assert offer.largest >= 3
    client.force_login(factories.member(project))
    page = client.get(f"/projects/{project.name}/gpus/").content.decode()
    assert claim_of(version).label in page
    assert "simulated" not in page


def test_names_of_other_projects_stay_hidden(client: Client, fleet: Fleet, flavor: GpuFlavor, version_of: Any):
    fleet.nodes = [node("n1", 1)]
    version_of()
    fleet.pass_()
    secret = version_of(factories.project("secret-lab"))
    fleet.pass_()
    mine = version_of()
    fleet.pass_(1)
    member = factories.member(mine.deployment.project)
    client.force_login(member)
    page = client.get(f"/projects/{mine.deployment.project.name}/gpus/").content.decode()
    assert "a claim of another project (1 device)" in page
    assert "secret-lab" not in page
    way = blockers(member, claim_of(mine), timezone.now())
    assert way is not None
    assert way.placeable
    assert not any("secret-lab" in name for name in way.running + way.waiting)
    known = blockers(factories.superuser(), claim_of(mine), timezone.now())
    assert known is not None
    assert any(claim_of(secret).label in name for name in known.waiting) or known.running


def test_the_level_is_chosen_on_the_page(client: Client, fleet: Fleet, flavor: GpuFlavor, version_of: Any):
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    project = version.deployment.project
    client.force_login(factories.member(project, "editor"))
    url = f"/projects/{project.name}/gpus/{claim_of(version).pk}/priority/"
    assert "at level batch" in client.post(url, {"level": "batch"}, follow=True).content.decode()
    fleet.pass_(1)
    assert claim_of(version).priority == 0
    assert "Unknown level" in client.post(url, {"level": "nope"}, follow=True).content.decode()
    client.post(url, {"level": ""})
    fleet.pass_(1)
    assert claim_of(version).priority == 50


def test_what_happened_is_among_the_events(client: Client, fleet: Fleet, flavor: GpuFlavor, version_of: Any):
    fleet.nodes = [node("n1", 1)]
    version_of()
    fleet.pass_()
    late = version_of()
    fleet.pass_(1)
    project = late.deployment.project
    client.force_login(factories.member(project))
    page = client.get(f"/projects/{project.name}/events/?kind=gpu").content.decode()
    assert "GPUs: waiting" in page
    assert claim_of(late).reason_message in page


def test_removing_the_named_blocker_places_the_claim(fleet: Fleet, flavor: GpuFlavor, version_of: Any):
    fleet.nodes = [node("n1", 2)]
    holders = [version_of(), version_of()]
    fleet.pass_()
    late = version_of(gpus=2)
    fleet.pass_()
    way = blockers(factories.superuser(), claim_of(late), timezone.now())
    assert way is not None
    assert len(way.running) == 2
    DeploymentVersion.objects.filter(pk__in=[one.pk for one in holders]).update(desired_instances=0)
    fleet.pass_(1)
    assert claim_of(late).state == "placed"


def test_devices_are_given_back_by_those_who_may(fleet: Fleet, flavor: GpuFlavor, version_of: Any, client: Client):
    fleet.nodes = [node("n1", 2)]
    version = version_of(gpus=2)
    project = version.deployment.project
    fleet.pass_()
    with pytest.raises(Forbidden):
        actions.release(factories.member(project), version)
    with pytest.raises(NotFound):
        actions.find_version(factories.user(), str(claim_of(version).pk))
    client.force_login(factories.member(project, "editor"))
    answer = client.post(f"/projects/{project.name}/gpus/{claim_of(version).pk}/release/", follow=True)
    assert "2 device(s)" in answer.content.decode()
    assert claim_of(version).state == "released"
    with pytest.raises(Conflict):
        actions.release(factories.superuser(), version)


def test_what_if_compares_before_anything_is_saved(root: Client, fleet: Fleet, flavor: GpuFlavor, version_of: Any):
    fleet.now = timezone.now() - dt.timedelta(hours=2)
    fleet.nodes = [node("n1", 4)]
    project = factories.project()
    row = quota(flavor, project, 1)
    versions = [version_of(project) for _ in range(3)]
    fleet.pass_()
    fleet.pass_(3600)
    DeploymentVersion.objects.filter(pk=versions[0].pk).update(desired_instances=0)
    fleet.pass_(60)
    changed = what_if.proposal(rules_of.load(), {}, {str(row.pk): {"nominal": 3}})
    found = what_if.compare(factories.superuser(), changed, timezone.now())
    assert found.claims == 3
    assert found.then.mean_wait < found.now.mean_wait
    assert GpuQuota.objects.get().nominal == 1
    settings = {name: getattr(GpuPolicy.objects.get(), name) for name in what_if.SETTINGS}
    form = {name: "on" if value is True else str(value) for name, value in settings.items() if value is not False}
    form |= {f"quota-{row.pk}-nominal": "3", f"quota-{row.pk}-borrowing_limit": "", f"quota-{row.pk}-lending_limit": ""}
    page = root.post("/gpus/what-if/", {**form, "compare": ""})
    assert page.status_code == 200
    assert "Compared over 3 claims" in page.content.decode()
    assert GpuQuota.objects.get().nominal == 1
    assert root.post("/gpus/what-if/", {**form, f"quota-{row.pk}-nominal": "-1", "save": ""}).status_code == 422
    assert root.post("/gpus/what-if/", {**form, "save": ""}).status_code == 302
    assert GpuQuota.objects.get().nominal == 3


def test_the_claim_is_on_the_api_with_its_reason(fleet: Fleet, flavor: GpuFlavor, version_of: Any, client: Client):
    fleet.nodes = [node("n1", 1)]
    version_of()
    fleet.pass_()
    late = version_of()
    fleet.pass_()
    project = late.deployment.project
    token = factories.token(factories.member(project))
    url = f"/api/v1/projects/{project.name}/deployments/{late.deployment.name}/versions/v1/claim?blockers=true"
    told = client.get(url, headers={"Authorization": f"Token {token}"}).json()
    assert (told["governed"], told["instances_wanted"], told["instances_placed"]) == (True, 1, 0)
    assert told["status_reason"]["code"] == "capacity"
    assert told["claims"][0]["position"] == 1
    assert told["claims"][0]["reason"]["message"]
    assert told["blockers"] == {"running": ["a claim of another project (1 device)"], "waiting": [], "placeable": True}


def test_the_board_is_quick_with_many_nodes_and_claims(fleet: Fleet, flavor: GpuFlavor, root: Client, version_of: Any):
    fleet.nodes = [node(f"n{number}", 8) for number in range(120)]
    version_of(instances=40, maximum_instances=40)
    fleet.pass_()
    with CaptureQueriesContext(connection) as few:
        root.get("/gpus/")
    for _ in range(10):
        version_of(gpus=16)
    fleet.pass_(1)
    with CaptureQueriesContext(connection) as many:
        assert root.get("/gpus/").status_code == 200
    assert len(many) <= len(few) + 3
