"""What is lost is made good: the cluster's API, a worker in the middle of a pass, rows, pods, messages."""

import datetime as dt
import io
import socket
from pathlib import Path

import pytest
import yaml
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Project, User
from deployments import triggers, valkey
from deployments.models import DeploymentVersion, EnvironmentBuild, Instance, Rollout
from deployments.services import deployments, projects, revisions
from deployments.tasks import garbage, lease, sweeping
from deployments.tasks.observation import save_version
from deployments.tasks.reconciling import reconcile
from kube import apply, specs
from kube.connect import Cluster
from tests.app import factories
from tests.app.reconcile.conftest import newest, passes_until, roll


def upload(editor: User, version: DeploymentVersion, **files: str) -> None:
    content = factories.package({"deployment.py": factories.ECHO, **files})
    revisions.upload_package(editor, version, io.BytesIO(content), file_name="package.zip")


@pytest.fixture
def nowhere(tmp_path: Path, kubeconfig: Path) -> str:
    """A kubeconfig whose server does not answer."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{closed.getsockname()[1]}"
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = address
    path = tmp_path / "nowhere"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_cluster_that_does_not_answer_is_said_so_and_then_forgotten(
    cluster: Cluster, editor: User, version: DeploymentVersion, settings: Settings, nowhere: str
) -> None:
    upload(editor, version)
    there, settings.KUBECONFIG = settings.KUBECONFIG, nowhere
    reconcile(version.pk)
    version.refresh_from_db()
    assert version.reason_code == "cluster_unreachable"
    assert version.lease_owner == ""
    assert newest(version).state == Rollout.State.IN_PROGRESS
    assert str(version.pk) in sweeping.due(timezone.now())

    settings.KUBECONFIG = there
    assert roll(version).state == Rollout.State.COMPLETE
    assert (version.phase, version.reason_code) == ("serving", "")


def test_a_short_outage_is_not_worth_a_word(
    cluster: Cluster, editor: User, version: DeploymentVersion, settings: Settings, nowhere: str
) -> None:
    upload(editor, version)
    reconcile(version.pk)
    settings.KUBECONFIG = nowhere
    reconcile(version.pk)
    version.refresh_from_db()
    assert version.reason_code == ""


def test_a_pass_that_died_is_taken_over_when_its_lease_is_over(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    upload(editor, version)
    later = timezone.now() + lease.LENGTH
    DeploymentVersion.objects.filter(pk=version.pk).update(lease_owner="killed", lease_until=later)
    reconcile(version.pk)
    assert cluster.find("Namespace", labels=specs.SELECTOR) == [] or not cluster.find(
        "Deployment", version.deployment.project.namespace
    )
    # Who came too late has left a mark for the holder to see.
    assert lease.again(version.pk)
    assert not lease.again(version.pk)
    DeploymentVersion.objects.filter(pk=version.pk).update(lease_until=timezone.now() - dt.timedelta(seconds=1))
    assert roll(version).state == Rollout.State.COMPLETE


def test_an_observation_by_somebody_whose_lease_was_taken_over_is_not_saved(
    transactional_db: None,
) -> None:
    version = factories.version()
    with lease.hold(version.pk) as owner:
        DeploymentVersion.objects.filter(pk=version.pk).update(lease_owner="somebody else")
        save_version(version, owner, {"phase": "serving"}, timezone.now())
    row = DeploymentVersion.objects.get(pk=version.pk)
    assert (row.phase, row.lease_owner) == ("empty", "somebody else")


def test_a_build_whose_pod_vanishes_is_built_again(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    upload(editor, version, **{"requirements.txt": "six\n"})
    build = EnvironmentBuild.objects.get()
    passes_until(version, lambda: bool(cluster.find("Pod", version.deployment.project.namespace)))
    apply.delete(cluster, "Pod", version.deployment.project.namespace, specs.build_name(build.hash), grace=0)
    assert roll(version).state == Rollout.State.COMPLETE
    build.refresh_from_db()
    assert build.state == EnvironmentBuild.State.SUCCESS
    # Its pod and its files are gone; the log is in the row.
    assert "six" in build.log
    assert not cluster.find("ConfigMap", version.deployment.project.namespace, labels=specs.SELECTOR)


def test_a_pod_that_dies_is_replaced_and_kept_in_the_records(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    upload(editor, version)
    roll(version)
    first = version.instances.get(deleted_at=None)
    apply.delete(cluster, "Pod", version.deployment.project.namespace, first.pod_name, grace=0)
    passes_until(version, lambda: version.instances.filter(deleted_at=None, ready=True).exclude(pk=first.pk).exists())
    first.refresh_from_db()
    assert first.deleted_at is not None or first.status == Instance.Status.STOPPING


def test_deleting_a_version_and_a_project_leaves_nothing_in_the_cluster(
    cluster: Cluster, project: Project, version: DeploymentVersion
) -> None:
    admin = factories.member(project, "admin")
    upload(admin, version)
    roll(version)
    other = factories.version(version.deployment, "v2")
    upload(admin, other)
    roll(other)
    deployments.delete_version(admin, version)
    reconcile(version.pk)  # a late message about it is a clean end
    garbage.collect(cluster, timezone.now())
    kept = cluster.find("Deployment", project.namespace)
    assert [obj["metadata"]["labels"][specs.VERSION_ID] for obj in kept] == [str(other.pk)]
    assert all(
        obj["metadata"]["labels"][specs.VERSION_ID] == str(other.pk)
        for kind in ("Service", "Secret")
        for obj in cluster.find(kind, project.namespace, labels=specs.SELECTOR)
    )
    namespace = project.namespace
    projects.delete_project(admin, project)
    assert garbage.collect(cluster, timezone.now()) >= 1
    left = [obj for obj in cluster.find("Namespace") if obj["metadata"]["name"] == namespace]
    assert all(obj["metadata"].get("deletionTimestamp") for obj in left)


def test_garbage_of_others_is_left_alone(cluster: Cluster, project: Project) -> None:
    for name, labels in (("ph-by-hand", {}), ("theirs", {specs.MANAGED_BY: specs.MANAGER})):
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        apply.apply(cluster, manifest)
    assert garbage.collect(cluster, timezone.now()) == 0
    for name in ("ph-by-hand", "theirs"):
        assert not cluster.get("Namespace", None, name)["metadata"].get("deletionTimestamp")
        apply.delete(cluster, "Namespace", None, name)


def test_the_sweep_finds_what_no_message_told_of(transactional_db: None) -> None:
    now = timezone.now()
    fresh = {"observed_at": now, "observed_generation": 1, "phase": "serving"}
    quiet = factories.version(**fresh)
    behind = factories.version(**fresh | {"generation": 2})
    unseen = factories.version(**fresh | {"observed_at": None})
    rolling = factories.version(**fresh)
    factories.rollout(factories.revision(rolling))
    stale = factories.version(**fresh | {"observed_at": now - sweeping.STALE_RUNNING * 2, "desired_instances": 1})
    resting = factories.version(**fresh | {"observed_at": now - sweeping.STALE_RUNNING * 2, "phase": "idle"})
    due = set(sweeping.due(now))
    assert {str(v.pk) for v in (behind, unseen, rolling, stale)} <= due
    assert not {str(v.pk) for v in (quiet, resting)} & due


def test_wakes_while_one_is_queued_are_one(transactional_db: None) -> None:
    valkey.client().flushdb()
    version = factories.version()
    assert triggers.wake(version.pk)
    assert not triggers.wake(version.pk)
    triggers.started(version.pk)
    assert triggers.wake(version.pk)
