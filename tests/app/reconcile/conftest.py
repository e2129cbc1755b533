"""The reconciler against an embedded cluster: real pods that fetch their packages from a real web server.

Passes are made by the tests themselves, so that they know when nothing is under way; what the worker, the watcher and
the sweep add is only when a pass is made.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from pytest_django import Settings

from accounts.models import Project, Role, User
from deployments import cluster as clusters
from deployments import valkey
from deployments.models import DeploymentVersion, Rollout
from deployments.tasks.reconciling import reconcile
from kube import apply
from kube.connect import Cluster
from tests.app import factories
from tests.support.cluster import running_cluster
from tests.support.web import serving

WAIT_SECONDS = 120


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    environments = Path(settings.PILOTHOUSE_ENVIRONMENTS_DIR)
    environments.mkdir(exist_ok=True)
    environments.chmod(0o1777)
    with running_cluster(tmp_path_factory) as path:
        yield path


@pytest.fixture
def web(transactional_db: None) -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def cluster(kubeconfig: Path, web: str, settings: Settings) -> Iterator[Cluster]:
    """The platform's connection to the embedded cluster, with the settings that belong to it."""
    settings.KUBECONFIG = str(kubeconfig)
    settings.PILOTHOUSE_ROUTE = "pods"
    settings.PILOTHOUSE_INTERNAL_URL = web
    settings.PILOTHOUSE_SERVING_PORT = 18080
    valkey.client().flushdb()
    connection = clusters.current()
    yield connection
    for project in Project.objects.all():
        apply.delete(connection, "Namespace", None, project.namespace)


@pytest.fixture
def project(cluster: Cluster) -> Project:
    return factories.project()


@pytest.fixture
def editor(project: Project) -> User:
    return factories.member(project, Role.EDITOR)


@pytest.fixture
def version(project: Project) -> DeploymentVersion:
    deployment = factories.deployment(project, input_fields=[], output_fields=[])
    return factories.version(deployment, instance_type=factories.instance_type("256mb"))


def passes_until(version: DeploymentVersion, happened: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Make passes over the version until ``happened()``; the version is fresh then."""
    deadline = time.monotonic() + seconds
    while True:
        reconcile(version.pk)
        version.refresh_from_db()
        if happened():
            return
        if time.monotonic() > deadline:
            pytest.fail(
                f"not within {seconds} s: phase {version.phase}, reason {version.reason_code} "
                f"{version.reason_message!r}, rollout {version.rollouts.order_by('-generation').first()}"
            )
        time.sleep(0.1)


def roll(version: DeploymentVersion, seconds: float = WAIT_SECONDS) -> Rollout:
    """Make passes until the newest rollout has ended; it is returned."""

    def ended() -> bool:
        return newest(version).state != Rollout.State.IN_PROGRESS

    passes_until(version, ended, seconds)
    reconcile(version.pk)
    version.refresh_from_db()
    return newest(version)


def newest(version: DeploymentVersion) -> Rollout:
    rollout = version.rollouts.order_by("-generation", "-queued_at").first()
    assert rollout is not None
    return rollout
