"""Builds that nothing needs any more: what counts as needed, and what a new build of the same finds."""

import datetime as dt
import threading
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from deployments.models import (
    DeploymentVersion,
    DiscardedEnvironment,
    EnvironmentBuild,
    Instance,
    Revision,
    Rollout,
)
from deployments.services import environments, revisions
from deployments.tasks.environments import advance
from tests.app import factories
from tests.app.services.conftest import World

LONG_AGO = dt.timedelta(days=15)


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
    assert discarded() == {first.hash}

    world.revision.refresh_from_db()
    revisions.rollback(world.editor, world.version, world.revision)
    world.revision.refresh_from_db()
    again = world.revision.environment_build
    assert again is not None
    # Not where a pod may just now be removing the old one.
    assert (again.hash, again.directory, again.state) == (first.hash, f"{first.hash}.1", "queued")
    EnvironmentBuild.objects.filter(pk=again.pk).delete()
    DiscardedEnvironment.objects.all().delete()
    last = environments.build_for(world.version, world.revision)
    assert last is not None
    assert last.directory == first.hash


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
    assert found[0].directory == f"{first.hash}.1"
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
