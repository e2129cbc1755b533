"""Environments that nothing needs leave the volume, by a real pod, while others go on being used."""

import datetime as dt
import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from accounts.models import Role, User
from deployments.models import DeploymentVersion, DiscardedEnvironment, EnvironmentBuild, Rollout
from deployments.services import projects, revisions
from deployments.tasks import cleaning
from kube.builds import cleaning_pod
from kube.connect import Cluster
from kube.specs import CleaningSpec
from tests.app import factories
from tests.app.reconcile.conftest import roll


def clean_until_done(cluster: Cluster) -> None:
    deadline = time.monotonic() + 120
    while True:
        cleaning.clean(cluster, timezone.now())
        if not DiscardedEnvironment.objects.exists():
            return
        assert time.monotonic() < deadline, cluster.find("Pod", labels=cleaning.SELECTOR)
        time.sleep(0.3)


def unused(directory: str, like: os.stat_result, **fields: Any) -> Path:
    """A build that was last needed before the retention time, with its folder as the pod that built it left it."""
    EnvironmentBuild.objects.create(
        hash=hashlib.sha256(directory.encode()).hexdigest(),
        directory=directory,
        runtime="python3.11",
        state="success",
        last_used_at=timezone.now() - dt.timedelta(days=15),
        **fields,
    )
    return planted(directory, like)


def planted(directory: str, like: os.stat_result) -> Path:
    """A folder with something in it on the volume, belonging to whom ``like`` belongs to."""
    volume = Path(settings.PILOTHOUSE_ENVIRONMENTS_DIR)
    place = volume / directory
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text("")
    for path in (place / "bin" / "python", place / "bin", place, *place.parents):
        if path == volume:
            break
        os.chown(path, like.st_uid, like.st_gid)
    return place


def served(editor: User, version: DeploymentVersion) -> tuple[EnvironmentBuild, Path, os.stat_result]:
    """The one environment that is in use, the volume, and whose the environment's folder is."""
    revisions.upload_package(editor, version, io.BytesIO(factories.package()), file_name="package.zip")
    assert roll(version).state == Rollout.State.COMPLETE
    used, folder = EnvironmentBuild.objects.get(), Path(settings.PILOTHOUSE_ENVIRONMENTS_DIR)
    return used, folder, (folder / used.directory).stat()


def test_unused_environments_leave_the_volume_tree_by_tree(
    cluster: Cluster, editor: User, version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, folder, owner = served(editor, version)
    project = version.deployment.project
    gone = [unused(f"shared/{'f' * 64}", owner), unused(f"{project.pk.hex}/{'e' * 64}.1", owner, project=project)]
    gone.append(unused("d" * 64, owner))  # of before there were trees
    kept = planted(f"{project.pk.hex}/.cache", owner)
    made: list[CleaningSpec] = []
    monkeypatch.setattr(cleaning.builds, "cleaning_pod", lambda spec: made.append(spec) or cleaning_pod(spec))

    monkeypatch.setattr(cleaning, "TREE_GRACE", dt.timedelta(0))
    clean_until_done(cluster)
    assert [place.exists() for place in gone] == [False, False, False]
    assert kept.exists()
    assert {spec.tree for spec in made} == {"shared", project.pk.hex, ""}
    assert EnvironmentBuild.objects.get() == used
    assert (folder / used.directory / ".complete").exists()
    assert not cluster.find("Pod", labels=cleaning.SELECTOR)
    assert not cluster.find("ConfigMap", labels=cleaning.SELECTOR)


def test_the_tree_of_a_deleted_project_goes_as_a_whole(
    cluster: Cluster, editor: User, version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, folder, owner = served(editor, version)
    project = factories.project()
    tree = project.pk.hex
    for name in ("e" * 64, ".cache/uv", ".tools/python3.11"):
        planted(f"{tree}/{name}", owner)
    projects.delete_project(factories.member(project, Role.ADMIN), project)

    cleaning.clean(cluster, timezone.now())
    assert not cluster.find("Pod", labels=cleaning.SELECTOR)  # its instances may still be answering
    monkeypatch.setattr(cleaning, "TREE_GRACE", dt.timedelta(0))
    clean_until_done(cluster)
    assert not (folder / tree).exists()
    assert (folder / used.directory / ".complete").exists()


def test_a_tree_that_cannot_be_cleaned_does_not_keep_the_others(db: None) -> None:
    for directory in ("a/1", "a/2", "b/1"):
        DiscardedEnvironment.objects.create(directory=directory)
    asked = {tuple(cleaning.choose(timezone.now())) for _ in range(200)}
    assert asked == {("a/1", "a/2"), ("b/1",)}
