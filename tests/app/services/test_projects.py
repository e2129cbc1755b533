"""Projects: names and namespaces, changes, quotas, suspension, deletion, use."""

from typing import Any

import pytest

from accounts.errors import Conflict, Invalid
from accounts.models import AuditEvent, Project
from deployments.models import Deployment, DeploymentVersion, ModelVersion, Rollout
from deployments.services import instance_types, projects, quotas
from tests.app import factories
from tests.app.services.conftest import World


def test_a_project_has_a_namespace_and_its_creator_as_admin(world: World):
    root = factories.superuser()
    made = projects.create_project(
        root, world.organization, name="search", labels={"a": "b"}, cors_origins=["https://app.example.com"]
    )
    stored = Project.objects.get(pk=made.pk)
    assert (stored.namespace, stored.labels, stored.cors_origins) == (
        "ph-search",
        {"a": "b"},
        ["https://app.example.com"],
    )
    assert list(stored.memberships.values_list("user", "role")) == [(root.pk, "admin")]
    with pytest.raises(Conflict, match="already a project named 'search'"):
        projects.create_project(root, world.organization, name="search")


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("name", {"name": "Not Good"}, "lower-case"),
        ("name", {"name": "x" * 64}, "at most 63"),
        ("labels", {"labels": {"a": 1}}, "must be texts"),
        ("credits", {"credits": -1}, "out of range"),
        ("credits", {"credits": float("nan")}, "out of range"),
        ("cors_origins", {"cors_origins": ["example.com"]}, "no origin"),
        ("cors_origins", {"cors_origins": ["https://a.example/path"]}, "no origin"),
        ("cors_origins", {"cors_origins": ["https://a b"]}, "no origin"),
        ("cors_origins", {"cors_origins": "https://a.example"}, "Give a list"),
        ("advanced_permissions", {"advanced_permissions": 1}, "neither true nor false"),
    ],
)
def test_a_bad_project_is_refused_by_field(world: World, field: str, given: dict[str, Any], says: str):
    root = factories.superuser()
    with pytest.raises(Invalid) as refusal:
        projects.create_project(root, world.organization, **{"name": "search", **given})
    assert says in refusal.value.fields[field]
    assert not Project.objects.filter(name="search").exists()


def test_namespaces_are_dns_labels_and_never_collide(world: World, settings: Any):
    root = factories.superuser()
    first = projects.create_project(root, world.organization, name="x" * 63)
    second = projects.create_project(root, world.organization, name="x" * 62 + "y")
    assert first.namespace != second.namespace
    assert max(len(first.namespace), len(second.namespace)) <= 63
    renamed = projects.create_project(root, world.organization, name="old")
    projects.update_project(root, renamed, name="new")
    again = projects.create_project(root, world.organization, name="old")
    assert Project.objects.get(name="new").namespace == "ph-old"
    assert again.namespace.startswith("ph-old-")
    settings.PILOTHOUSE_NAMESPACE_PREFIX = ""
    assert projects.namespace_name("kube-system") not in ("kube-system", "system")
    assert projects.namespace_name("default") != "default"


def test_renaming_reaches_the_pods_by_a_rollout(world: World):
    projects.update_project(world.admin, world.project, name="renamed", description="New")
    assert Project.objects.get(pk=world.project.pk).namespace == world.project.namespace
    assert Rollout.objects.get().version == world.version
    with pytest.raises(Conflict, match="already a project named"):
        projects.update_project(world.admin, world.project, name=factories.project().name)


def test_suspending_and_resuming_wake_the_reconciler(world: World, wake_ups: list[Any]):
    projects.update_project(world.admin, world.project, suspend=True, suspended_reason="Unpaid")
    projects.update_project(world.admin, world.project, suspend=False)
    stored = Project.objects.get(pk=world.project.pk)
    assert (stored.suspended, stored.suspended_reason) == (False, "")
    assert wake_ups == [("reconcile", world.version.pk)] * 2
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 3


def test_deleting_a_project_takes_all_of_it_but_the_trail(world: World, wake_ups: list[Any]):
    base = factories.environment()
    own = world.project.environments.create(name="own", base=base, runtime=base.runtime)
    group = instance_types.create_group(world.editor, world.project, name="sizes", instance_types=[{"id": "512mb"}])
    factories.revision(
        factories.version(world.deployment, "v2", environment=own, instance_type_group=group),
        kind="model",
        model_version=world.model_version,
    )
    factories.request(world.version, instance=factories.instance(world.revision))
    projects.delete_project(world.admin, world.project)
    assert not Project.objects.filter(pk=world.project.pk).exists()
    assert not Deployment.objects.exists()
    assert not ModelVersion.objects.exists()
    assert wake_ups == [("collect_garbage",)]
    event = AuditEvent.objects.filter(action="delete").get()
    assert (event.project, event.project_name, event.old["deployments"]) == (
        None,
        world.project.name,
        [world.deployment.name],
    )
    assert AuditEvent.objects.filter(project_name=world.project.name).count() == 2


def test_resource_usage_counts_and_compares_with_quotas(world: World):
    projects.set_quotas(factories.superuser(), world.project, cpu=4, memory=4096, accelerators=None)
    factories.version(world.deployment, "v2", minimum_instances=2)
    usage = projects.resource_usage(world.viewer, Project.objects.get(pk=world.project.pk))
    assert (usage["deployments"], usage["deployment_versions"], usage["models"]) == (1, 2, 1)
    assert usage["cpu"] == {"used": 0.25, "quota": 4}
    assert usage["memory"] == {"used": 512, "quota": 4096}
    assert usage["accelerators"] == {"used": 0, "quota": None}


@pytest.mark.parametrize("given", [{"cpu": -1}, {"memory": 1.5}, {"accelerators": "2"}])
def test_nonsense_is_no_quota(world: World, given: dict[str, Any]):
    with pytest.raises(Invalid) as refusal:
        projects.set_quotas(
            factories.superuser(), world.project, **{"cpu": None, "memory": None, "accelerators": None, **given}
        )
    assert set(refusal.value.fields) == set(given)


def test_room_is_what_quotas_leave(world: World):
    assert quotas.room(world.version, 7) == 7
    Project.objects.filter(pk=world.project.pk).update(quota_cpu=1, quota_memory=1300)
    version = DeploymentVersion.objects.select_related("deployment__project", "instance_type").get(pk=world.version.pk)
    assert quotas.room(version, 7) == 2
    gpu = factories.instance_type("gpu", accelerator=1, cpu=0.1, memory=100)
    Project.objects.filter(pk=world.project.pk).update(quota_cpu=None, quota_memory=None, quota_accelerators=0)
    other = factories.version(world.deployment, "v2", instance_type=gpu)
    other.deployment.project.refresh_from_db()
    assert quotas.room(other, 7) == 0
