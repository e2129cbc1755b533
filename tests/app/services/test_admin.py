"""The platform team's panel."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, Project, User
from deployments.models import DeploymentVersion, Environment, EnvironmentBuild, InstanceType, Revision
from deployments.services import revisions
from tests.app import factories
from tests.app.services.conftest import World, zipped

INSTANCE_TYPE: dict[str, Any] = {
    "name": "gpu-small",
    "display_name": "Small GPU",
    "enabled": "on",
    "cpu": "2",
    "memory": "4096",
    "storage": "10240",
    "accelerator": "1",
    "accelerator_resource": "nvidia.com/gpu",
    "node_selector": '{"gpu": "a10"}',
    "tolerations": '[{"key": "gpu", "operator": "Exists"}]',
    "credit_rate": "1.5",
}
TAGS = {"tags-TOTAL_FORMS": "0", "tags-INITIAL_FORMS": "0"}


@pytest.fixture
def root(world: World) -> User:
    return factories.superuser()


@pytest.fixture
def panel(client: Client, root: User) -> Client:
    client.force_login(root)
    return client


@pytest.mark.parametrize("name", ["instancetype", "environment", "environmentbuild"])
def test_lists_and_forms_open(panel: Client, world: World, name: str):
    revisions.upload_package(world.editor, world.version, zipped())
    assert panel.get(reverse(f"admin:deployments_{name}_changelist")).status_code == 200
    model = {"instancetype": InstanceType, "environment": Environment, "environmentbuild": EnvironmentBuild}[name]
    row = model.objects.first()
    assert row is not None
    assert panel.get(reverse(f"admin:deployments_{name}_change", args=[row.pk])).status_code == 200


@pytest.mark.parametrize("standing", ["admin", "viewer", "outsider"])
def test_others_are_kept_out(client: Client, world: World, standing: str):
    client.force_login(world.person(standing))
    response = client.get(reverse("admin:deployments_instancetype_changelist"))
    assert response.status_code == 302
    assert "login" in response["Location"]


def test_an_instance_type_is_made_and_audited(panel: Client, root: User):
    assert panel.post(reverse("admin:deployments_instancetype_add"), INSTANCE_TYPE).status_code == 302
    made = InstanceType.objects.get(name="gpu-small")
    assert (made.accelerator_resource, made.node_selector) == ("nvidia.com/gpu", {"gpu": "a10"})
    change = reverse("admin:deployments_instancetype_change", args=[made.pk])
    assert panel.post(change, {**INSTANCE_TYPE, "memory": "8192"}).status_code == 302
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.actor, event.action, event.old, event.new) == (root, "update", {"memory": 4096}, {"memory": 8192})


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "Big One", "lower-case"),
        ("cpu", "-1", "at least 0.001"),
        ("memory", "1", "at least 16"),
        ("accelerator_resource", "", "nvidia.com/gpu"),
        ("node_selector", '{"a": 1}', "must be texts"),
        ("tolerations", '{"a": 1}', "Give a list"),
    ],
)
def test_a_bad_instance_type_is_refused(panel: Client, field: str, value: str, says: str):
    response = panel.post(reverse("admin:deployments_instancetype_add"), {**INSTANCE_TYPE, field: value})
    assert response.status_code == 200
    assert any(says in text for text in response.context["adminform"].form.errors[field])
    assert not InstanceType.objects.filter(storage=10240, accelerator=1).exists()


def test_what_is_in_use_is_not_deleted(panel: Client, world: World):
    for name, row in (("instancetype", world.version.instance_type), ("environment", world.version.environment)):
        assert row is not None
        response = panel.post(reverse(f"admin:deployments_{name}_delete", args=[row.pk]), {"post": "yes"})
        assert (response.status_code, type(row).objects.filter(pk=row.pk).exists()) == (200, True)


def test_a_base_environment_needs_a_known_runtime(panel: Client):
    url = reverse("admin:deployments_environment_add")
    given = {"name": "python3-11-gpu", "display_name": "GPU", "runtime": "python3.11", **TAGS}
    response = panel.post(url, {**given, "runtime": "python2.7"})
    assert "PILOTHOUSE_RUNTIME_IMAGES has" in response.context["adminform"].form.errors["runtime"][0]
    assert panel.post(url, given).status_code == 302
    assert Environment.objects.get(name="python3-11-gpu").project is None


def test_failed_builds_are_queued_again(panel: Client, world: World):
    made = revisions.upload_package(world.editor, world.version, zipped())
    EnvironmentBuild.objects.update(state="failed", error_message="no index")
    Revision.objects.filter(pk=made.pk).update(status="failed")
    panel.post(
        reverse("admin:deployments_environmentbuild_changelist"),
        {"action": "retry", "_selected_action": [made.environment_build_id]},
    )
    assert EnvironmentBuild.objects.get().state == "queued"
    assert Revision.objects.get(pk=made.pk).status == "queued"
    assert world.version.rollouts.filter(cause="rebuild", state="in_progress").exists()


def test_quotas_and_suspension_are_intent(panel: Client, world: World, root: User, wake_ups: list[Any]):
    url = reverse("admin:accounts_project_change", args=[world.project.pk])
    assert panel.get(url).status_code == 200
    given = {
        "quota_cpu": "4",
        "quota_memory": "",
        "quota_accelerators": "0",
        "suspended": "on",
        "suspended_reason": "Unpaid",
        "memberships-TOTAL_FORMS": "0",
        "memberships-INITIAL_FORMS": "0",
    }
    assert panel.post(url, given).status_code == 302
    stored = Project.objects.get(pk=world.project.pk)
    assert (stored.quota_cpu, stored.quota_memory, stored.quota_accelerators) == (4, None, 0)
    assert (stored.suspended, stored.suspended_reason) == (True, "Unpaid")
    assert wake_ups == [("reconcile", world.version.pk)]
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 2
    assert {event.actor for event in AuditEvent.objects.filter(project=world.project)} == {root}
    refused = panel.post(url, {**given, "quota_cpu": "-1"})
    assert "at least 0" in refused.context["adminform"].form.errors["quota_cpu"][0]
