"""Environment variables: scopes, secrets, names, and who is rolled over."""

from typing import Any

import pytest

from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import AuditEvent
from deployments.models import DeploymentVersion, EnvironmentVariable, Revision, Rollout
from deployments.services import variables
from tests.app import factories
from tests.app.services.conftest import World


def _create(world: World, scope: Any, name: str = "KEY", value: str = "1", **fields: Any) -> variables.Variable:
    return variables.create_variable(world.editor, scope, name=name, value=value, **fields)


def test_the_nearest_scope_wins(world: World):
    other = factories.version(world.deployment, "v2")
    for scope, value in ((world.project, "project"), (world.deployment, "deployment"), (world.version, "version")):
        _create(world, scope, "NEAR", value)
    _create(world, world.project, "FAR", "project")
    _create(world, world.deployment, "MIDDLE", "deployment")
    assert variables.effective(world.version) == {"NEAR": "version", "FAR": "project", "MIDDLE": "deployment"}
    assert variables.effective(other) == {"NEAR": "deployment", "FAR": "project", "MIDDLE": "deployment"}
    assert variables.effective(factories.version(factories.deployment(world.project))) == {
        "NEAR": "project",
        "FAR": "project",
    }
    assert variables.effective(factories.version()) == {}


def test_variables_of_the_package_come_last(world: World):
    Revision.objects.filter(pk=world.revision.pk).update(environment_variables={"THREADS": "2", "KEY": "package"})
    _create(world, world.project)
    version = DeploymentVersion.objects.get(pk=world.version.pk)
    assert variables.effective(version) == {"THREADS": "2", "KEY": "1"}
    assert variables.effective(version, factories.revision(version)) == {"KEY": "1"}


def test_a_list_tells_where_each_comes_from(world: World):
    _create(world, world.project, "A")
    _create(world, world.project, "B")
    _create(world, world.deployment, "B", "2")
    _create(world, world.version, "C", "3")
    shown = [
        (v.name, v.value, v.inheritance_type, v.inheritance_name)
        for v in variables.list_variables(world.viewer, world.version)
    ]
    assert shown == [
        ("A", "1", "project", world.project.name),
        ("B", "2", "deployment", world.deployment.name),
        ("C", "3", None, None),
    ]
    assert [v.name for v in variables.list_variables(world.viewer, world.project)] == ["A", "B"]


def test_secrets_are_written_only(world: World):
    made = _create(world, world.version, "PASSWORD", "hunter2", secret=True)
    assert made.value is None
    assert variables.get_variable(world.admin, world.version, made.id).value is None
    assert [v.value for v in variables.list_variables(world.admin, world.version)] == [None]
    assert variables.effective(world.version) == {"PASSWORD": "hunter2"}
    variables.update_variable(world.editor, world.version, made.id, value="hunter3")
    assert "hunter" not in str([(event.old, event.new) for event in AuditEvent.objects.all()])
    raw = EnvironmentVariable.objects.extra(select={"raw": "value"}).values_list("raw", flat=True).get()
    assert "hunter" not in raw


def test_a_secret_is_made_readable_only_with_a_new_value(world: World):
    made = _create(world, world.version, "PASSWORD", "hunter2", secret=True)
    with pytest.raises(Invalid) as refusal:
        variables.update_variable(world.editor, world.version, made.id, secret=False)
    assert "new value" in refusal.value.fields["value"]
    shown = variables.update_variable(world.editor, world.version, made.id, secret=False, value="public")
    assert (shown.value, shown.secret) == ("public", False)


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("name", {"name": "1KEY"}, "not starting with a digit"),
        ("name", {"name": "KEY-A"}, "letters, digits and underscores"),
        ("name", {"name": "KEY\n"}, "letters, digits and underscores"),
        ("name", {"name": "K" * 201}, "at most 200"),
        ("name", {"name": ""}, "letters, digits"),
        ("name", {"name": None}, "letters, digits"),
        ("name", {"name": "PILOTHOUSE_URL"}, "set by the platform"),
        ("name", {"name": "KUBERNETES_SERVICE_HOST"}, "set by the platform"),
        ("name", {"name": "PATH"}, "set by the platform"),
        ("value", {"value": 3}, "Give a text"),
        ("value", {"value": "a\0b"}, "code 0"),
        ("value", {"value": "ä" * 40_000}, "at most 65536"),
        ("secret", {"secret": "yes"}, "neither true nor false"),
    ],
)
def test_a_bad_variable_is_refused_by_field(world: World, field: str, given: dict[str, Any], says: str):
    with pytest.raises(Invalid) as refusal:
        variables.create_variable(world.editor, world.project, **{"name": "KEY", "value": "1", **given})
    assert says in refusal.value.fields[field]
    assert not EnvironmentVariable.objects.exists()


def test_names_are_unique_in_a_scope(world: World):
    _create(world, world.version)
    with pytest.raises(Conflict, match="already a variable named 'KEY'"):
        _create(world, world.version)
    other = _create(world, world.version, "OTHER")
    with pytest.raises(Conflict, match="already a variable named 'KEY'"):
        variables.update_variable(world.editor, world.version, other.id, name="KEY")


def test_all_variables_together_fit_into_a_secret(world: World):
    for number in range(14):
        _create(world, world.project, f"KEY_{number}", "x" * 65_000)
    with pytest.raises(Invalid, match="together would take"):
        _create(world, world.version, "LAST", "x" * 65_000)
    assert EnvironmentVariable.objects.count() == 14


def test_a_variable_of_another_scope_is_not_found(world: World):
    made = _create(world, world.project)
    for scope in (world.deployment, world.version):
        with pytest.raises(NotFound):
            variables.update_variable(world.editor, scope, made.id, value="2")
        with pytest.raises(NotFound):
            variables.delete_variable(world.editor, scope, made.id)
    with pytest.raises(NotFound):
        variables.get_variable(world.viewer, world.project, "no-uuid")


def test_a_change_rolls_over_the_versions_it_reaches(world: World, wake_ups: list[Any]):
    reached = factories.revision(factories.version(world.deployment, "v2")).version
    idle = factories.revision(factories.version(world.deployment, "v3")).version
    DeploymentVersion.objects.filter(pk=idle.pk).update(desired_instances=0)
    factories.version(world.deployment, "v4")
    factories.revision()
    EnvironmentVariable.objects.create(project=world.project, version=world.version, name="KEY", value="own")
    _create(world, world.deployment)
    assert list(Rollout.objects.values_list("version__version", "cause")) == [("v2", "variables")]
    assert sorted(str(version_id) for _, version_id in wake_ups) == sorted([str(reached.pk), str(idle.pk)])
    assert DeploymentVersion.objects.get(pk=idle.pk).generation == 2


def test_updates_and_deletions_roll_over_too(world: World, wake_ups: list[Any]):
    made = _create(world, world.version)
    variables.update_variable(world.editor, world.version, made.id, value="1")
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 2
    variables.update_variable(world.editor, world.version, made.id, secret=True)
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 2
    variables.update_variable(world.editor, world.version, made.id, name="RENAMED")
    variables.delete_variable(world.editor, world.version, made.id)
    assert DeploymentVersion.objects.get(pk=world.version.pk).generation == 4
    assert Rollout.objects.filter(state="in_progress").count() == 1
    assert variables.effective(world.version) == {}
    assert len(wake_ups) == 3


def test_copies_take_secrets_along_and_replace(world: World):
    other = factories.version(world.deployment, "v2")
    _create(world, world.version, "A", "1")
    _create(world, world.version, "B", "hidden", secret=True)
    _create(world, other, "A", "old")
    shown = variables.copy_variables(world.editor, other, world.version)
    assert [(v.name, v.value) for v in shown] == [("A", "1"), ("B", None)]
    assert variables.effective(other) == {"A": "1", "B": "hidden"}
    with pytest.raises(Invalid, match="within one project"):
        variables.copy_variables(world.editor, other, factories.version())
