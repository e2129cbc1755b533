"""Two at once: numbers are given once, one rollout is in progress, and a quota is spent once."""

import datetime as dt
import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from accounts.errors import Conflict, Invalid, NotFound, ServiceError
from accounts.models import AuditEvent, Project
from deployments.models import DeploymentVersion, EnvironmentBuild, Revision, Rollout
from deployments.services import artifacts, catalog, deployments, projects, revisions, variables
from tests.app import factories
from tests.app.services.conftest import World, zipped

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returned or raised, all begun together, each with a database connection of its own."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(place: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=30)
            results[place] = call()
        except ServiceError as refusal:
            results[place] = refusal
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(place, call)) for place, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def test_uploads_get_different_numbers_and_leave_one_rollout(world: World):
    made = at_once(*(lambda: revisions.upload_package(world.editor, world.version, zipped()) for _ in range(4)))
    assert sorted(revision.number for revision in made) == [2, 3, 4, 5]
    version = DeploymentVersion.objects.get(pk=world.version.pk)
    assert version.generation == 5
    rollout = Rollout.objects.get(state="in_progress")
    assert (rollout.to_revision, rollout.generation) == (version.target_revision, 5)
    assert Rollout.objects.filter(state="superseded").count() == 3
    assert EnvironmentBuild.objects.count() == 1


def test_a_rollback_and_an_upload_leave_one_of_the_two(world: World):
    old = factories.revision(world.version, target=False)
    at_once(
        lambda: revisions.rollback(world.editor, world.version, old),
        lambda: revisions.upload_package(world.editor, world.version, zipped()),
    )
    version = DeploymentVersion.objects.get(pk=world.version.pk)
    assert Rollout.objects.get(state="in_progress").to_revision == version.target_revision
    assert version.generation == 3


def test_model_versions_get_different_numbers(world: World):
    def add() -> Any:
        return catalog.create_model_version(
            world.editor, world.model, file=io.BytesIO(b"\x80\x04model"), framework="sklearn-joblib"
        )

    assert sorted(version.number for version in at_once(add, add, add)) == [2, 3, 4]


def test_the_last_of_a_quota_is_spent_once(world: World):
    Project.objects.filter(pk=world.project.pk).update(quota_memory=1024)
    versions = [factories.version(world.deployment, f"v{number}") for number in (2, 3)]
    results = at_once(
        *(lambda version=version: revisions.upload_package(world.editor, version, zipped()) for version in versions)
    )
    assert sorted(type(result) for result in results if isinstance(result, Invalid)) == [Invalid]
    assert Revision.objects.filter(version__in=versions).count() == 1


def test_a_name_is_given_once(world: World):
    results = at_once(
        *(lambda: deployments.create_deployment(world.editor, world.project, name="ranker") for _ in range(3))
    )
    assert sum(isinstance(result, Conflict) for result in results) == 2
    assert world.project.deployments.filter(name="ranker").count() == 1
    root = factories.superuser()
    results = at_once(*(lambda: projects.create_project(root, world.organization, name="twice") for _ in range(2)))
    assert sum(isinstance(result, Conflict) for result in results) == 1


def test_changes_of_different_columns_both_hold(world: World):
    at_once(
        lambda: deployments.update_version(world.editor, world.version, maximum_instances=7),
        lambda: deployments.update_version(world.editor, world.version, instance_type="1024mb"),
        lambda: variables.create_variable(world.editor, world.project, name="KEY", value="1"),
        lambda: deployments.update_deployment(world.editor, world.deployment, description="new"),
    )
    version = DeploymentVersion.objects.get(pk=world.version.pk)
    assert (version.maximum_instances, version.instance_type) == (7, factories.instance_type("1024mb"))
    assert version.generation == 4
    assert Rollout.objects.filter(state="in_progress").count() == 1
    assert AuditEvent.objects.count() == 4


def test_a_project_deleted_under_an_upload_leaves_nothing(world: World):
    results = at_once(
        lambda: projects.delete_project(world.admin, world.project),
        lambda: revisions.upload_package(world.editor, world.version, zipped()),
        lambda: deployments.update_version(world.editor, world.version, minimum_instances=1),
        lambda: variables.create_variable(world.editor, world.version, name="KEY", value="1"),
    )
    assert not isinstance(results[0], ServiceError)
    assert all(isinstance(result, NotFound) or result is not None for result in results[1:])
    assert not Project.objects.filter(pk=world.project.pk).exists()
    assert not Revision.objects.exists()


def test_a_file_is_not_removed_while_a_row_for_it_is_being_stored(world: World, monkeypatch: pytest.MonkeyPatch):
    """The collector finds the file without a row, waits for the upload's transaction, and looks again."""
    with artifacts.spool(zipped({"deployment.py": factories.ECHO, "n": "1"})) as spooled:
        artifacts.keep(spooled)
    in_transaction, collecting = threading.Event(), threading.Event()
    lock = artifacts._lock

    def watched_lock(key: str, *, shared: bool) -> None:
        if not shared:
            collecting.set()
        lock(key, shared=shared)

    monkeypatch.setattr(artifacts, "_lock", watched_lock)
    keep = artifacts.keep

    def slow_keep(spooled: artifacts.Spooled) -> None:
        keep(spooled)
        in_transaction.set()
        assert collecting.wait(timeout=30)

    monkeypatch.setattr(artifacts, "keep", slow_keep)

    def collect() -> int:
        assert in_transaction.wait(timeout=30)
        return artifacts.remove_unreferenced(grace=dt.timedelta(0))

    made, _ = at_once(
        lambda: revisions.upload_package(
            world.editor, world.version, zipped({"deployment.py": factories.ECHO, "n": "1"})
        ),
        collect,
    )
    with revisions.open_file(world.viewer, made).open() as file:
        assert file.read(2) == b"PK"
