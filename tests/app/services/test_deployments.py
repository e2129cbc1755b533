"""Deployments and versions: what is stored, what is refused, and what each change sets off."""

from typing import Any

import pytest

from accounts.errors import Conflict, Invalid
from accounts.models import AuditEvent, Project
from deployments.models import Deployment, DeploymentVersion, Rollout
from deployments.services import deployments, projects, revisions
from tests.app import factories
from tests.app.services.conftest import World, zipped

FIELDS = [{"name": "x", "data_type": "array_double"}, {"name": "petal length (cm)", "data_type": "string"}]


def test_a_deployment_is_stored_as_given(world: World):
    made = deployments.create_deployment(
        world.editor,
        world.project,
        name="ranker",
        description="Ranks",
        input_fields=FIELDS,
        output_type="plain",
        labels={"team": "search"},
    )
    stored = Deployment.objects.get(pk=made.pk)
    assert (stored.name, stored.description, stored.labels) == ("ranker", "Ranks", {"team": "search"})
    assert (stored.input_fields, stored.output_type, stored.output_fields) == (FIELDS, "plain", [])
    assert stored.default_version is None


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("name", {"name": "Ranker"}, "lower-case"),
        ("name", {"name": "-ranker"}, "lower-case"),
        ("name", {"name": "a" * 64}, "63"),
        ("name", {"name": "ranker\n"}, "lower-case"),
        ("name", {"name": ""}, "required"),
        ("name", {"name": None}, "required"),
        ("description", {"description": "x" * 10_001}, "at most 10000"),
        ("description", {"description": "a\0"}, "code 0"),
        ("input_type", {"input_type": "xml"}, "structured, plain"),
        ("input_fields", {"input_fields": [{"name": "x", "data_type": "float"}]}, "use one of int, double"),
        ("input_fields", {"input_fields": [{"name": "x"}]}, "unknown data_type None"),
        ("input_fields", {"input_fields": [{"name": "", "data_type": "int"}]}, "1 to 100 printable"),
        ("input_fields", {"input_fields": [{"name": " x", "data_type": "int"}]}, "1 to 100 printable"),
        ("input_fields", {"input_fields": [{"name": "x\ny", "data_type": "int"}]}, "1 to 100 printable"),
        ("input_fields", {"input_fields": [{"name": "x" * 101, "data_type": "int"}]}, "1 to 100 printable"),
        ("input_fields", {"input_fields": [{"name": 7, "data_type": "int"}]}, "1 to 100 printable"),
        ("input_fields", {"input_fields": [FIELDS[0], FIELDS[0]]}, "already a field named 'x'"),
        ("input_fields", {"input_fields": ["x"]}, "give an object"),
        ("input_fields", {"input_fields": "x"}, "Give a list"),
        ("output_fields", {"output_type": "plain", "output_fields": FIELDS}, "has no fields"),
        ("labels", {"labels": {"team": 3}}, "must be texts"),
        ("labels", {"labels": ["team"]}, "Give an object"),
        ("supports_request_format", {"supports_request_format": "yes"}, "neither true nor false"),
    ],
)
def test_a_bad_deployment_is_refused_by_field(world: World, field: str, given: dict[str, Any], says: str):
    with pytest.raises(Invalid) as refusal:
        deployments.create_deployment(world.editor, world.project, **{"name": "ranker", **given})
    assert says in refusal.value.fields[field]
    assert not Deployment.objects.filter(name="ranker").exists()
    assert not AuditEvent.objects.exists()


def test_all_problems_are_told_at_once(world: World):
    with pytest.raises(Invalid) as refusal:
        deployments.create_deployment(
            world.editor, world.project, name="No", labels={"a": 1}, input_fields=[{"name": "x", "data_type": "?"}]
        )
    assert set(refusal.value.fields) == {"name", "labels", "input_fields"}


def test_names_are_unique_in_a_project_only(world: World):
    with pytest.raises(Conflict, match="already a deployment named"):
        deployments.create_deployment(world.editor, world.project, name=world.deployment.name)
    other = factories.project()
    editor = factories.member(other, "editor")
    deployments.create_deployment(editor, other, name=world.deployment.name)
    with pytest.raises(Conflict):
        deployments.update_deployment(world.editor, factories.deployment(world.project), name=world.deployment.name)


def test_an_update_keeps_the_rest_and_is_audited_with_both_values(world: World):
    deployments.update_deployment(world.editor, world.deployment, description="New", input_fields=FIELDS)
    stored = Deployment.objects.get(pk=world.deployment.pk)
    assert (stored.name, stored.description, stored.input_fields) == (world.deployment.name, "New", FIELDS)
    event = AuditEvent.objects.get()
    assert (event.action, event.old["description"], event.new["description"]) == ("update", "", "New")


def test_an_update_that_changes_nothing_leaves_no_trace(world: World):
    deployments.update_deployment(world.editor, world.deployment, name=world.deployment.name)
    deployments.update_version(world.editor, world.version, minimum_instances=world.version.minimum_instances)
    assert not AuditEvent.objects.exists()
    assert not Rollout.objects.exists()


def test_unknown_settings_and_versions_are_refused(world: World):
    with pytest.raises(Invalid) as refusal:
        deployments.update_deployment(world.editor, world.deployment, default_version="v9", colour="red")
    assert "this deployment's versions: v1" in refusal.value.fields["default_version"]
    assert "unknown" in refusal.value.fields["colour"]


def test_renaming_rolls_the_running_versions_over(world: World, wake_ups: list[Any]):
    factories.version(world.deployment, "empty")
    deployments.update_deployment(world.editor, world.deployment, name="renamed")
    rollout = Rollout.objects.get()
    assert (rollout.version, rollout.cause) == (world.version, "settings")
    assert wake_ups == [("reconcile", world.version.pk)]


def test_another_schema_rolls_the_running_versions_over(world: World):
    deployments.update_deployment(world.editor, world.deployment, output_fields=FIELDS)
    assert Rollout.objects.get().version == world.version


def test_deleting_takes_all_below_and_has_the_cluster_cleaned(world: World, wake_ups: list[Any]):
    factories.request(world.version)
    factories.instance(world.revision)
    deployments.delete_deployment(world.editor, world.deployment)
    assert not Deployment.objects.exists()
    assert wake_ups == [("collect_garbage",)]
    assert AuditEvent.objects.get().old == {"name": world.deployment.name, "versions": ["v1"]}


def test_the_first_version_becomes_the_default(world: World):
    deployment = factories.deployment(world.project)
    first = deployments.create_version(world.editor, deployment, version="v1")
    deployments.create_version(world.editor, deployment, version="v2")
    deployment.refresh_from_db()
    assert deployment.default_version == first
    deployments.update_deployment(world.editor, deployment, default_version="v2")
    deployment.refresh_from_db()
    assert deployment.default_version is not None
    assert deployment.default_version.version == "v2"


def test_a_version_has_sensible_defaults(world: World):
    made = deployments.create_version(world.editor, world.deployment, version="v2")
    stored = DeploymentVersion.objects.get(pk=made.pk)
    assert (stored.environment.name, stored.instance_type, stored.instance_type_group) == (
        "python3-11",
        factories.instance_type("512mb"),
        None,
    )
    assert (stored.minimum_instances, stored.maximum_instances, stored.desired_instances) == (0, 5, 0)


def test_a_version_is_stored_as_given(world: World):
    group = world.project.instance_type_groups.create(name="sizes")
    group.items.create(instance_type=factories.instance_type())
    made = deployments.create_version(
        world.editor,
        world.deployment,
        version="v2.1_beta",
        environment="r4-2:v1",
        instance_type_group_name="sizes",
        minimum_instances=1,
        maximum_instances=3,
        maximum_idle_time=60,
        request_retention_mode="metadata",
        request_retention_time=3600,
        instance_processes=2,
        scaling_strategy="moderate",
        ports=[{"public_port": 9000, "deployment_port": 90}],
        health_check={"path": "/live", "port": 90},
        command=["serve"],
        args=[],
        labels={"stage": "test"},
    )
    stored = DeploymentVersion.objects.get(pk=made.pk)
    assert (stored.environment.name, stored.environment_tag) == ("r4-2", "v1")
    assert (stored.instance_type, stored.instance_type_group) == (None, group)
    assert stored.ports == [{"public_port": 9000, "deployment_port": 90, "protocol": "tcp"}]
    assert stored.health_check == {"interval": 10, "timeout": 2, "failure_threshold": 3, "port": 90, "path": "/live"}
    assert (stored.command, stored.args, stored.labels) == (["serve"], None, {"stage": "test"})


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("version", {"version": "V2"}, "lower-case"),
        ("version", {"version": "preflight"}, "choose another"),
        ("version", {"version": "v" * 41}, "at most 40"),
        ("environment", {"environment": "python2-7"}, "choose one of"),
        ("environment_tag", {"environment": "python3-11", "environment_tag": "v9"}, "its tags: v1"),
        ("environment_tag", {"environment_name": "python3-11:v9"}, "its tags: v1"),
        ("instance_type", {"instance_type": "huge"}, "choose one of: 256mb"),
        ("instance_type", {"instance_type": "512mb", "instance_type_group_name": "sizes"}, "not both"),
        ("instance_type_group_id", {"instance_type_group_id": "no-uuid"}, "this project's groups: none yet"),
        ("minimum_instances", {"minimum_instances": 3, "maximum_instances": 2}, "above maximum_instances 2"),
        ("minimum_instances", {"minimum_instances": 6}, "above maximum_instances 5"),
        ("minimum_instances", {"minimum_instances": -1}, "from 0"),
        ("minimum_instances", {"minimum_instances": "2"}, "not a whole number"),
        ("minimum_instances", {"minimum_instances": True}, "not a whole number"),
        ("maximum_instances", {"maximum_instances": 0}, "from 1"),
        ("maximum_instances", {"maximum_instances": 2**40}, "from 1 to 1000"),
        ("maximum_idle_time", {"maximum_idle_time": -5}, "from 1"),
        ("request_retention_mode", {"request_retention_mode": "all"}, "none, metadata, full"),
        ("scaling_strategy", {"scaling_strategy": "wild"}, "default, moderate"),
        ("instance_processes", {"instance_processes": 0}, "from 1 to 64"),
        ("ports", {"ports": [{"public_port": 70000, "deployment_port": 80}]}, "from 1 to 65535"),
        ("ports", {"ports": [{"public_port": 1, "deployment_port": 80}] * 2}, "once for a protocol"),
        ("ports", {"ports": [{"public_port": 1, "deployment_port": 80, "protocol": "icmp"}]}, "tcp, udp"),
        ("health_check", {"health_check": {"path": "live"}}, "begin with a slash"),
        ("health_check.colour", {"health_check": {"colour": "red"}}, "unknown"),
        ("command", {"command": "serve"}, "list of texts"),
        ("labels", {"labels": {"a": None}}, "must be texts"),
        ("colour", {"colour": "red"}, "unknown"),
    ],
)
def test_a_bad_version_is_refused_by_field(world: World, field: str, given: dict[str, Any], says: str):
    with pytest.raises(Invalid) as refusal:
        deployments.create_version(world.editor, world.deployment, **{"version": "v2", **given})
    assert says in refusal.value.fields[field]
    assert DeploymentVersion.objects.count() == 1


def test_version_names_are_unique_in_a_deployment(world: World):
    with pytest.raises(Conflict, match="already a version 'v1'"):
        deployments.create_version(world.editor, world.deployment, version="v1")
    other = factories.version(world.deployment, "v2")
    with pytest.raises(Conflict, match="already a version 'v1'"):
        deployments.update_version(world.editor, other, version="v1")


def test_a_version_with_a_revision_is_renamed_by_a_rollout(world: World):
    version = factories.version(world.deployment, "v2", desired_instances=1)
    revision = factories.revision(version)
    DeploymentVersion.objects.filter(pk=version.pk).update(target_revision=revision)
    deployments.update_version(world.editor, version, version="v3")
    version.refresh_from_db()
    assert version.version == "v3"
    assert version.rollouts.get().cause == "settings"


def test_an_environment_of_another_project_is_unknown(world: World):
    base = factories.environment()
    factories.project().environments.create(name="theirs", base=base, runtime=base.runtime)
    with pytest.raises(Invalid) as refusal:
        deployments.create_version(world.editor, world.deployment, version="v2", environment="theirs")
    assert "theirs" not in refusal.value.fields["environment"].split("choose")[1]


def test_a_change_of_the_pod_is_a_rollout(world: World, wake_ups: list[Any]):
    changed = deployments.update_version(world.editor, world.version, instance_type="1024mb", instance_processes=2)
    rollout = Rollout.objects.get()
    assert (rollout.cause, rollout.to_revision, rollout.generation) == ("settings", world.revision, 2)
    stored = DeploymentVersion.objects.get(pk=world.version.pk)
    assert (stored.generation, stored.instance_type, changed.instance_processes) == (
        2,
        factories.instance_type("1024mb"),
        2,
    )
    assert wake_ups == [("reconcile", world.version.pk)]


def test_another_environment_queues_its_build_and_is_proven_even_when_idle(world: World):
    DeploymentVersion.objects.filter(pk=world.version.pk).update(desired_instances=0)
    deployments.update_version(world.editor, world.version, environment="python3-12")
    world.revision.refresh_from_db()
    assert world.revision.environment_build is not None
    assert (world.revision.environment_build.runtime, world.revision.status) == ("python3.12", "queued")
    assert Rollout.objects.get().state == "in_progress"
    assert DeploymentVersion.objects.get(pk=world.version.pk).desired_instances == 1


def test_a_package_cannot_move_to_an_environment_for_images(world: World):
    with pytest.raises(Invalid) as refusal:
        deployments.update_version(world.editor, world.version, environment="container-image")
    assert "runs container images" in refusal.value.fields["environment"]
    assert DeploymentVersion.objects.get(pk=world.version.pk).environment.name == "python3-11"


def test_a_package_cannot_move_to_an_environment_of_another_language(world: World):
    made = revisions.upload_package(world.editor, world.version, zipped())
    with pytest.raises(Invalid) as refusal:
        deployments.update_version(world.editor, world.version, environment="r4-2")
    assert f"is for R; revision {made.number} needs one for Python" in refusal.value.fields["environment"]


def test_an_idle_version_takes_settings_with_its_next_start(world: World, wake_ups: list[Any]):
    DeploymentVersion.objects.filter(pk=world.version.pk).update(desired_instances=0)
    deployments.update_version(world.editor, world.version, instance_type="1024mb")
    assert not Rollout.objects.exists()
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 2
    assert wake_ups == [("reconcile", world.version.pk)]


def test_bounds_move_the_wanted_instances_without_a_rollout(world: World, wake_ups: list[Any]):
    for given, desired in (
        ({"minimum_instances": 2}, 2),
        ({"minimum_instances": 0}, 2),
        ({"maximum_instances": 1}, 1),
    ):
        deployments.update_version(world.editor, world.version, **given)
        assert DeploymentVersion.objects.get(pk=world.version.pk).desired_instances == desired
    assert not Rollout.objects.exists()
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 4
    assert len(wake_ups) == 3


def test_a_version_without_revision_wants_no_instances(world: World):
    empty = factories.version(world.deployment, "v2")
    deployments.update_version(world.editor, empty, minimum_instances=2)
    assert DeploymentVersion.objects.get(pk=empty.pk).desired_instances == 0


def test_words_about_a_version_disturb_nothing(world: World, wake_ups: list[Any]):
    deployments.update_version(world.editor, world.version, description="New", labels={"a": "b"})
    stored = DeploymentVersion.objects.get(pk=world.version.pk)
    assert (stored.description, stored.labels, stored.generation) == ("New", {"a": "b"}, 1)
    assert wake_ups == []


def test_deleting_the_default_version_leaves_the_deployment_without(world: World, wake_ups: list[Any]):
    deployments.delete_version(world.editor, world.version)
    world.deployment.refresh_from_db()
    assert world.deployment.default_version is None
    assert wake_ups == [("collect_garbage",)]


def test_quotas_refuse_growth_with_the_numbers(world: World):
    # 0.25 cores and 512 MiB run already.
    Project.objects.filter(pk=world.project.pk).update(quota_cpu=1, quota_memory=1024)
    with pytest.raises(Invalid) as refusal:
        deployments.create_version(world.editor, world.deployment, version="v2", minimum_instances=2)
    assert "2 instance(s) need 1024 MiB of memory" in refusal.value.fields["minimum_instances"]
    assert "uses 512 of its quota of 1024, 512 left" in refusal.value.fields["minimum_instances"]
    deployments.create_version(world.editor, world.deployment, version="v2", minimum_instances=1)
    with pytest.raises(Invalid, match="MiB of memory"):
        deployments.update_version(world.editor, world.version, minimum_instances=3)
    with pytest.raises(Invalid, match="MiB of memory") as refusal:
        deployments.update_version(world.editor, world.version, instance_type="2048mb")
    assert list(refusal.value.fields) == ["instance_type"]
    assert not Rollout.objects.exists()


def test_a_quota_below_what_runs_refuses_growth_but_not_shrinking(world: World):
    deployments.update_version(world.editor, world.version, minimum_instances=4)
    projects.set_quotas(factories.superuser(), world.project, cpu=0.5, memory=None, accelerators=None)
    with pytest.raises(Invalid, match="CPU cores"):
        deployments.update_version(world.editor, world.version, minimum_instances=5)
    deployments.update_version(world.editor, world.version, minimum_instances=0, maximum_instances=3)
    assert DeploymentVersion.objects.get(pk=world.version.pk).desired_instances == 3


def test_a_suspended_project_takes_no_new_work(world: World):
    projects.update_project(world.admin, world.project, suspend=True, suspended_reason="Unpaid")
    with pytest.raises(Conflict, match="is suspended: Unpaid"):
        deployments.create_deployment(world.editor, world.project, name="new")
    with pytest.raises(Conflict, match="is suspended: Unpaid"):
        deployments.update_version(world.editor, world.version, instance_type="1024mb")
