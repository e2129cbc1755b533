"""Builds that nothing needs any more: what counts as needed, and what a new build of the same finds."""

import datetime as dt
import threading
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Project
from deployments.models import (
    DeploymentVersion,
    DiscardedEnvironment,
    Environment,
    EnvironmentBuild,
    Instance,
    Revision,
    Rollout,
)
from deployments.services import environments, projects, revisions
from deployments.tasks import desired
from deployments.tasks.environments import adopt, advance
from tests.app import factories
from tests.app.services.conftest import World

LONG_AGO = dt.timedelta(days=15)


def asked(project: Project, requirements: str = "", environment: Environment | None = None) -> EnvironmentBuild:
    """The build of a revision with these requirements in that environment of a new version in the project."""
    chosen = environment or factories.environment()
    version = factories.version(factories.deployment(project), environment=chosen)
    made = environments.build_for(version, factories.revision(version, requirements=requirements))
    assert made is not None
    return made


def build(**fields: Any) -> EnvironmentBuild:
    """A build that was last needed before the retention time."""
    fields = {"hash": f"{EnvironmentBuild.objects.count():064x}", "runtime": "python3.11", "state": "success", **fields}
    return EnvironmentBuild.objects.create(last_used_at=timezone.now() - LONG_AGO, **fields)


def discarded() -> set[str]:
    environments.discard_unused(timezone.now())
    return set(DiscardedEnvironment.objects.values_list("directory", flat=True))


def old_revision(world: World, made: EnvironmentBuild) -> Revision:
    return factories.revision(world.version, target=False, environment_build=made)


def test_what_nothing_needs_is_discarded(world: World) -> None:
    made = build()
    revision = old_revision(world, made)
    assert discarded() == {made.directory}
    revision.refresh_from_db()
    assert revision.environment_build is None
    assert discarded() == {made.directory}


def test_what_was_needed_lately_is_kept(world: World) -> None:
    made = build()
    EnvironmentBuild.objects.update(last_used_at=timezone.now() - dt.timedelta(days=13))
    old_revision(world, made)
    assert discarded() == set()


@pytest.mark.parametrize("use", ["target", "active", "rolling to", "rolling from", "instance", "queued", "building"])
def test_what_is_needed_is_kept_however_old(world: World, use: str) -> None:
    made = build(state=use if use in ("queued", "building") else "success")
    revision = old_revision(world, made)
    version = DeploymentVersion.objects.filter(pk=world.version.pk)
    match use:
        case "target":
            version.update(target_revision=revision)
        case "active":
            version.update(active_revision=revision)
        case "rolling to":
            factories.rollout(revision)
        case "rolling from":
            factories.rollout(world.revision, from_revision=revision)
        case "instance":
            factories.instance(revision, status=Instance.Status.PENDING, ready=False)
    assert discarded() == set()
    if use not in ("queued", "building"):
        # It counts as used from now on: the time runs from when it is needed no more.
        version.update(target_revision=None, active_revision=None)
        Rollout.objects.all().delete()
        Instance.objects.all().delete()
        assert discarded() == set()


def test_a_rollout_and_an_instance_that_are_over_need_nothing(world: World) -> None:
    made = build()
    revision = old_revision(world, made)
    factories.rollout(revision, state="complete")
    factories.instance(revision, deleted_at=timezone.now())
    assert discarded() == {made.directory}


def test_retention_can_be_switched_off(world: World, settings: Settings) -> None:
    settings.PILOTHOUSE_ENVIRONMENT_RETENTION_DAYS = 0
    build()
    assert discarded() == set()


def test_going_back_to_a_revision_makes_its_environment_again_elsewhere(world: World, wake_ups: object) -> None:
    first = environments.build_for(world.version, world.revision)
    assert first is not None
    Revision.objects.filter(pk=world.revision.pk).update(environment_build=first)
    newer = factories.revision(world.version, factories.package({"deployment.py": factories.ECHO + "# 2\n"}))
    Revision.objects.filter(pk=newer.pk).update(environment_build=build())
    EnvironmentBuild.objects.filter(pk=first.pk).update(state="success", last_used_at=timezone.now() - LONG_AGO)
    assert discarded() == {f"shared/{first.hash}"}

    world.revision.refresh_from_db()
    revisions.rollback(world.editor, world.version, world.revision)
    world.revision.refresh_from_db()
    again = world.revision.environment_build
    assert again is not None
    # Not where a pod may just now be removing the old one.
    assert (again.hash, again.directory, again.state) == (first.hash, f"shared/{first.hash}.1", "queued")
    EnvironmentBuild.objects.filter(pk=again.pk).delete()
    DiscardedEnvironment.objects.all().delete()
    last = environments.build_for(world.version, world.revision)
    assert last is not None
    assert last.directory == first.directory


@pytest.mark.django_db(transaction=True)
def test_a_build_that_is_asked_for_while_it_is_discarded_is_made_again(transactional_db: None) -> None:
    version = factories.version()
    revision = factories.revision(version)
    first = environments.build_for(version, revision)
    assert first is not None
    EnvironmentBuild.objects.update(state="success", last_used_at=timezone.now() - LONG_AGO)
    found: list[EnvironmentBuild | None] = []

    def ask() -> None:
        try:
            with transaction.atomic():
                found.append(environments.build_for(version, revision))
        finally:
            connection.close()

    asking = threading.Thread(target=ask)
    with transaction.atomic():
        assert environments.discard_unused(timezone.now()) == 1
        asking.start()
        asking.join(0.5)
        assert asking.is_alive()  # it waits for what becomes of the row
    asking.join(60)
    assert found[0] is not None
    assert found[0].pk != first.pk
    assert found[0].directory == f"shared/{first.hash}.1"
    assert EnvironmentBuild.objects.get() == found[0]


def test_a_build_that_never_begins_fails_at_its_deadline(world: World) -> None:
    """Its pod may be refused by a quota, for example."""
    made = build(state="queued", project=world.project)
    revision = old_revision(world, made)
    Revision.objects.filter(pk=revision.pk).update(status="queued")
    now = timezone.now()
    cluster: Any = None  # is not asked: there is no pod

    def again(after: dt.timedelta) -> EnvironmentBuild:
        made.refresh_from_db()
        advance(cluster, made, None, now + after)
        return made

    assert again(dt.timedelta(0)).state == "queued"
    assert again(dt.timedelta(minutes=29)).state == "queued"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deployments.tasks.environments.read_log", lambda *_: "")
        patch.setattr("deployments.tasks.environments.remove_pod", lambda *_: None)
        assert again(dt.timedelta(minutes=31)).state == "failed"
    assert "within 30 minutes" in made.error_message
    revision.refresh_from_db()
    assert revision.status == "failed"


def test_builds_with_anything_of_a_project_are_in_its_own_tree(world: World) -> None:
    other = factories.project()
    mine, theirs = asked(world.project, "numpy\n"), asked(other, "numpy\n")
    assert (mine.tree, theirs.tree) == (world.project.pk.hex, other.pk.hex)
    assert (mine.folder, theirs.folder) == (mine.hash, theirs.hash)
    assert mine.hash != theirs.hash
    assert asked(world.project, "# again\nNumPy\n") == mine
    r = factories.environment("r4-2")
    assert asked(other, "install.packages('zoo')\n", r).tree == other.pk.hex
    own = Environment.objects.create(project=other, name="own", runtime="python3.11", base=factories.environment())
    assert asked(other, "", own).tree == other.pk.hex
    upon = Environment.objects.create(project=None, name="upon", runtime="python3.11", base=own)
    assert asked(other, "", upon).tree == other.pk.hex


def test_builds_without_anything_of_a_project_are_shared_by_all(world: World) -> None:
    other = factories.project()
    assert asked(world.project) == asked(other, "# nothing\n")
    base = Environment.objects.create(name="base", runtime="python3.11", requirements="six\n")
    shared = asked(world.project, "", base)
    assert shared == asked(other, "", base)
    assert shared.directory == f"shared/{shared.hash}"


def test_a_shared_build_goes_on_in_another_project_and_one_of_a_project_does_not(world: World) -> None:
    for made, adopted in ((asked(world.project), True), (asked(world.project, "six\n"), False)):
        EnvironmentBuild.objects.filter(pk=made.pk).update(project=None)
        made.refresh_from_db()
        adopt(made, factories.project())
        made.refresh_from_db()
        assert (made.project is not None) is adopted


def test_a_deleted_projects_builds_are_forgotten_and_its_tree_is_noted(world: World, wake_ups: object) -> None:
    own, shared, other = asked(world.project, "six\n"), asked(world.project), asked(factories.project(), "six\n")
    DiscardedEnvironment.objects.create(directory=f"{own.tree}/old")
    projects.delete_project(world.admin, world.project)
    assert set(EnvironmentBuild.objects.all()) == {shared, other}
    assert discarded() == {own.tree}


def test_what_was_asked_for_before_there_were_trees_is_built_in_one(world: World) -> None:
    old = build(state="queued", project=world.project, directory="f" * 64)
    assert desired._build(old) is None
    revision = old_revision(world, old)
    made = environments.in_tree(world.version, revision, old)
    assert (made.tree, made.state) == ("shared", "queued")
    assert Revision.objects.get(pk=revision.pk).environment_build == made
    assert not EnvironmentBuild.objects.filter(pk=old.pk).exists()
    assert discarded() == {"f" * 64}
    assert environments.in_tree(world.version, revision, made) == made


@pytest.mark.parametrize("state", ["success", "failed"])
def test_what_was_built_before_there_were_trees_stays_until_it_is_asked_for_again(world: World, state: str) -> None:
    old = build(state=state, project=world.project, directory="f" * 64)
    assert environments.in_tree(world.version, old_revision(world, old), old) == old
    assert old.tree == ""
