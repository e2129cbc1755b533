"""The facts that a preflight looks at: nodes by selector and taint, quota, recent starts, groups."""

import datetime as dt

import pytest
from django.utils import timezone

from accounts.errors import Forbidden, Invalid, NotFound
from deployments.services import preflight as service
from deployments.services.preflight import preflight
from kube.errors import ClusterUnreachable
from kube.state import Room
from tests.app import factories

pytestmark = pytest.mark.django_db
GIB = 2**30


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    nodes = [Room("plain", {"cpu": 2, "memory": 4 * GIB}, {"cpu": 4, "memory": 8 * GIB})]
    monkeypatch.setattr(service.clusters, "current", lambda: None)
    monkeypatch.setattr(service, "rooms", lambda cluster: nodes)
    return nodes


def test_roles(here: list[Room]):
    project = factories.project()
    people = factories.people(project)
    kind = factories.instance_type().name
    assert preflight(people["editor"], project, instance_type=kind).fits is True
    with pytest.raises(Forbidden):
        preflight(people["viewer"], project, instance_type=kind)
    with pytest.raises(NotFound):
        preflight(people["outsider"], project, instance_type=kind)


def test_selector_and_taints_leave_nodes_out(here: list[Room]):
    project = factories.project()
    editor = factories.member(project, "editor")
    kind = factories.instance_type("picky", node_selector={"disk": "fast"})
    assert preflight(editor, project, instance_type="picky").fits is False
    taint = {"key": "team", "value": "a", "effect": "NoSchedule"}
    here.append(Room("fast", {"cpu": 8, "memory": GIB}, {"cpu": 8, "memory": GIB}, {"disk": "fast"}, (taint,)))
    assert preflight(editor, project, instance_type="picky").fits is False
    kind.tolerations = [{"key": "team", "operator": "Exists"}]
    kind.save()
    assert preflight(editor, project, instance_type="picky").nodes_now == ("fast",)


def test_quota_leaves_out_the_version_that_is_changed(here: list[Room]):
    project = factories.project(quota_memory=1024)
    editor = factories.member(project, "editor")
    kind = factories.instance_type("512", memory=512)
    version = factories.version(
        factories.deployment(project), instance_type=kind, minimum_instances=2, desired_instances=2
    )
    factories.revision(version)
    version.target_revision = version.revisions.get()
    version.save()
    assert preflight(editor, project, instance_type="512").within_quota is False
    assert preflight(editor, project, instance_type="512", instances=2, version=version).within_quota is True


def test_the_usual_start_is_the_median_of_recent_ones(here: list[Room]):
    project = factories.project()
    editor = factories.member(project, "editor")
    revision = factories.revision(factories.version(factories.deployment(project)))
    kind = revision.version.instance_type.name
    assert preflight(editor, project, instance_type=kind).wait_seconds is None
    created = timezone.now() - dt.timedelta(hours=1)
    for seconds in (2, 4, 60):
        factories.instance(revision, time_created=created, ready_at=created + dt.timedelta(seconds=seconds))
    assert preflight(editor, project, instance_type=kind).wait_seconds == 4


def test_wrong_names_and_numbers_are_refused_by_field(here: list[Room]):
    project = factories.project()
    editor = factories.member(project, "editor")
    with pytest.raises(Invalid) as refused:
        preflight(editor, project, instance_type="nope")
    assert "instance_type" in refused.value.fields
    with pytest.raises(Invalid) as refused:
        preflight(editor, project, group="nope")
    assert "instance_type_group_name" in refused.value.fields
    with pytest.raises(Invalid) as refused:
        preflight(editor, project, instance_type=factories.instance_type().name, instances=-1)
    assert "minimum_instances" in refused.value.fields


def test_without_the_cluster_only_the_quota_is_judged(monkeypatch: pytest.MonkeyPatch):
    def away() -> None:
        raise ClusterUnreachable("no answer")

    monkeypatch.setattr(service.clusters, "current", away)
    project = factories.project()
    verdict = preflight(factories.member(project, "editor"), project, instance_type=factories.instance_type().name)
    assert verdict.fits is None
    assert "cannot be asked" in verdict.reasons[0]
