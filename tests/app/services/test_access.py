"""Who may do what: every service, asked by an admin, an editor, a viewer and an outsider of the project."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from accounts.access import Permission
from accounts.errors import Forbidden, NotFound
from accounts.models import AuditEvent, User
from deployments.models import EnvironmentVariable
from deployments.services import (
    catalog,
    deployments,
    instance_types,
    lookup,
    projects,
    revisions,
    variables,
)
from tests.app import factories
from tests.app.services.conftest import World, zipped

Call = Callable[[User, World], Any]


def _variable(world: World, **fields: Any) -> EnvironmentVariable:
    return EnvironmentVariable.objects.create(project=world.project, name="KEY", value="1", **fields)


def _group(world: World) -> Any:
    group = world.project.instance_type_groups.create(name="sizes")
    group.items.create(instance_type=factories.instance_type())
    return group


def _idle_model(world: World) -> Any:
    return factories.model(world.project)


def _old_revision(world: World) -> Any:
    return factories.revision(world.version, target=False)


READS: dict[str, Call] = {
    "get_deployment": lambda user, w: lookup.get_deployment(user, w.project, w.deployment.name),
    "get_version": lambda user, w: lookup.get_version(user, w.deployment, w.version.version),
    "get_default_version": lambda user, w: lookup.get_default_version(user, w.deployment),
    "get_revision": lambda user, w: lookup.get_revision(user, w.version, w.revision.pk),
    "get_model": lambda user, w: lookup.get_model(user, w.project, w.model.name),
    "get_model_version": lambda user, w: lookup.get_model_version(user, w.model, w.model_version.number),
    "get_environment": lambda user, w: lookup.get_environment(user, w.project, "python3-11"),
    "get_instance": lambda user, w: lookup.get_instance(user, w.version, factories.instance(w.revision).pk),
    "get_request": lambda user, w: lookup.get_request(user, w.version, factories.request(w.version).pk),
    "get_instance_type_group": lambda user, w: lookup.get_instance_type_group(user, w.project, _group(w).pk),
    "resource_usage": lambda user, w: projects.resource_usage(user, w.project),
    "open_file": lambda user, w: revisions.open_file(user, w.revision),
    "open_model": lambda user, w: catalog.open_file(user, w.model_version),
    "diff": lambda user, w: revisions.diff(user, w.revision, w.revision),
    "list_variables": lambda user, w: variables.list_variables(user, w.version),
    "get_variable": lambda user, w: variables.get_variable(user, w.project, _variable(w).pk),
}
EDITS: dict[str, Call] = {
    "create_deployment": lambda user, w: deployments.create_deployment(user, w.project, name="new"),
    "update_deployment": lambda user, w: deployments.update_deployment(user, w.deployment, description="new"),
    "delete_deployment": lambda user, w: deployments.delete_deployment(user, w.deployment),
    "create_version": lambda user, w: deployments.create_version(user, w.deployment, version="v2"),
    "update_version": lambda user, w: deployments.update_version(user, w.version, maximum_instances=3),
    "delete_version": lambda user, w: deployments.delete_version(user, w.version),
    "upload_package": lambda user, w: revisions.upload_package(user, w.version, zipped()),
    "copy_package": lambda user, w: revisions.copy_package(user, w.version, w.revision),
    "deploy_model": lambda user, w: revisions.deploy_model(user, w.version, w.model_version),
    "deploy_image": lambda user, w: revisions.deploy_image(
        user, factories.version(w.deployment, "img", environment=factories.environment("container-image")), "nginx:1"
    ),
    "rollback": lambda user, w: revisions.rollback(user, w.version, _old_revision(w)),
    "rebuild": lambda user, w: revisions.rebuild(user, w.revision),
    "restart": lambda user, w: revisions.restart(user, w.version),
    "create_model": lambda user, w: catalog.create_model(user, w.project, name="new"),
    "update_model": lambda user, w: catalog.update_model(user, w.model, description="new"),
    "delete_model": lambda user, w: catalog.delete_model(user, _idle_model(w)),
    "create_model_version": lambda user, w: catalog.create_model_version(
        user, w.model, file=io.BytesIO(b"\x80\x04."), framework="sklearn-joblib"
    ),
    "delete_model_version": lambda user, w: catalog.delete_model_version(user, w.model_version),
    "create_variable": lambda user, w: variables.create_variable(user, w.project, name="KEY", value="1"),
    "update_variable": lambda user, w: variables.update_variable(user, w.project, _variable(w).pk, value="2"),
    "delete_variable": lambda user, w: variables.delete_variable(user, w.project, _variable(w).pk),
    "copy_variables": lambda user, w: variables.copy_variables(
        user, w.version, _variable(w, deployment=w.deployment).deployment
    ),
    "create_group": lambda user, w: instance_types.create_group(
        user, w.project, name="sizes", instance_types=[{"id": "512mb"}]
    ),
    "update_group": lambda user, w: instance_types.update_group(user, _group(w), name="other"),
    "delete_group": lambda user, w: instance_types.delete_group(user, _group(w)),
}
ADMINISTERS: dict[str, Call] = {
    "update_project": lambda user, w: projects.update_project(user, w.project, description="new"),
    "delete_project": lambda user, w: projects.delete_project(user, w.project),
}


@pytest.mark.parametrize("standing", ["admin", "editor", "viewer"])
@pytest.mark.parametrize("name", READS)
def test_every_member_reads(world: World, name: str, standing: str):
    READS[name](world.person(standing), world)


@pytest.mark.parametrize("standing", ["admin", "editor"])
@pytest.mark.parametrize("name", EDITS)
def test_editors_and_admins_change_and_leave_an_audit_event(world: World, name: str, standing: str):
    EDITS[name](world.person(standing), world)
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.actor, event.project) == (world.person(standing), world.project)


@pytest.mark.parametrize("name", ADMINISTERS)
def test_admins_administer_and_leave_an_audit_event(world: World, name: str):
    ADMINISTERS[name](world.admin, world)
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.actor, event.project_name) == (world.admin, world.project.name)


@pytest.mark.parametrize("name", [*EDITS, *ADMINISTERS])
def test_a_viewer_is_told_which_role_it_takes(world: World, name: str):
    with pytest.raises(Forbidden, match="needs the role"):
        {**EDITS, **ADMINISTERS}[name](world.viewer, world)
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("name", ADMINISTERS)
def test_an_editor_may_not_administer(world: World, name: str):
    with pytest.raises(Forbidden, match="needs the role 'admin'"):
        ADMINISTERS[name](world.editor, world)


@pytest.mark.parametrize("name", [*READS, *EDITS, *ADMINISTERS])
def test_an_outsider_cannot_tell_that_it_exists(world: World, name: str):
    with pytest.raises(NotFound):
        {**READS, **EDITS, **ADMINISTERS}[name](world.outsider, world)
    assert not AuditEvent.objects.exists()


def test_looking_up_for_a_change_asks_for_the_right_to_change(world: World):
    with pytest.raises(Forbidden):
        lookup.get_version(world.viewer, world.deployment, world.version.version, Permission.PROJECT_EDIT)


@pytest.mark.parametrize(
    "call",
    [
        lambda w: lookup.get_deployment(w.viewer, w.project, "absent"),
        lambda w: lookup.get_version(w.viewer, w.deployment, "absent"),
        lambda w: lookup.get_revision(w.viewer, w.version, "no-uuid"),
        lambda w: lookup.get_revision(w.viewer, factories.version(w.deployment, "v2"), w.revision.pk),
        lambda w: lookup.get_model_version(w.viewer, w.model, "99999999999999"),
        lambda w: lookup.get_environment(w.viewer, w.project, "python2-7"),
        lambda w: lookup.get_default_version(w.viewer, factories.deployment(w.project)),
    ],
)
def test_what_is_not_there_is_not_found(world: World, call: Callable[[World], Any]):
    with pytest.raises(NotFound):
        call(world)


def test_packages_are_copied_only_from_where_one_may_look(world: World):
    foreign = factories.revision()
    with pytest.raises(NotFound):
        revisions.copy_package(world.editor, world.version, foreign)


def test_a_project_is_created_by_members_of_its_organization_only(world: World):
    creator = factories.user()
    world.organization.members.create(user=creator, role="member")
    made = projects.create_project(creator, world.organization, name="mine")
    assert made.memberships.get().role == "admin"
    with pytest.raises(Forbidden):
        projects.create_project(world.outsider, world.organization, name="theirs")


def test_only_the_platform_team_sets_quotas(world: World):
    with pytest.raises(Forbidden):
        projects.set_quotas(world.admin, world.project, cpu=100, memory=None, accelerators=None)
    changed = projects.set_quotas(factories.superuser(), world.project, cpu=2, memory=2048, accelerators=0)
    assert (changed.quota_cpu, changed.quota_memory, changed.quota_accelerators) == (2, 2048, 0)
