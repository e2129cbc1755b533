"""The collector as a process, against an embedded cluster, killed again and again while pods write."""

import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from deployments.models import DeploymentVersion, Instance
from kube import specs
from kube.connect import Cluster, path_of
from monitoring.keeping import LOCK
from monitoring.logs import query_logs
from monitoring.models import LogLine, LogSource
from tests.app import factories
from tests.contract.conftest import ROOT
from tests.support.cluster import running_cluster

pytestmark = pytest.mark.django_db(transaction=True)

WRITE = """
import sys, time
for number in range({count}):
    sys.stdout.buffer.write(b"line %d\\n" % number)
    if number % 5 == 0:
        sys.stdout.flush()
        time.sleep(0.02)
sys.stdout.flush()
time.sleep({rest})
{end}
"""


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_cluster(tmp_path_factory) as path:
        yield path


@pytest.fixture
def version() -> DeploymentVersion:
    made = factories.version(factories.deployment(factories.project(), "writer"))
    factories.revision(made)
    return made


@pytest.fixture
def cluster(kubeconfig: Path, version: DeploymentVersion, settings: Settings) -> Iterator[Cluster]:
    settings.KUBECONFIG = str(kubeconfig)
    found = Cluster.load(kubeconfig)
    namespace = version.deployment.project.namespace
    found.call("POST", path_of("Namespace"), body={"metadata": {"name": namespace}})
    yield found
    found.call("DELETE", path_of("Namespace", None, namespace))
    found.close()


class Collecting:
    """The process, which can be killed."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        database = connection.settings_dict
        url = "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
        self._environment = {
            **os.environ, "DATABASE_URL": url, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": f"{ROOT / 'platform'}",
        }  # fmt: skip
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "collect_logs"], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    def end(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def said(self) -> str:
        return self._log.read_text()


@pytest.fixture
def collecting(kubeconfig: Path, tmp_path: Path) -> Iterator[Collecting]:
    made = Collecting(kubeconfig, tmp_path / "log")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def until(happened: Callable[[], Any], what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def _kept(count: int) -> bool:
    return LogLine.objects.count() >= count


def cut_off() -> bool:
    """End the collector's connection from the database's side, as its restart does; False when it has none yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", [LOCK]
        )
        return cursor.fetchall() == [(True,)]


def start_pod(cluster: Cluster, version: DeploymentVersion, code: str, package: str = "") -> str:
    """A pod as the reconciler makes them, with its row; its name. ``package`` is the code that brings its package."""
    name, namespace = f"writer-{uuid.uuid4().hex[:6]}", version.deployment.project.namespace
    labels = {
        specs.MANAGED_BY: specs.MANAGER,
        specs.VERSION_ID: str(version.pk),
        specs.REVISION_ID: str(version.target_revision_id),
    }
    container = {"name": "serving", "image": "python:3.11-slim", "command": ["python", "-c", code]}
    spec: dict[str, Any] = {"containers": [container]}
    if package:
        place = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        spec["initContainers"] = [{**container, **place, "name": "package", "command": ["python", "-c", package]}]
        spec["volumes"] = [{"name": "data", "emptyDir": {}}]
    body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    made = cluster.call("POST", path_of("Pod", namespace), body=body)
    assert version.target_revision is not None
    factories.instance(version.target_revision, id=uuid.UUID(made["metadata"]["uid"]), pod_name=name)
    return name


def test_nothing_is_lost_or_repeated_over_kills(
    cluster: Cluster, version: DeploymentVersion, collecting: Collecting
) -> None:
    count, namespace = 4000, version.deployment.project.namespace
    name = start_pod(cluster, version, WRITE.format(count=count, rest=600, end=""))
    collecting.start()
    for quarter in (1000, 2000):
        until(functools.partial(_kept, quarter), collecting.said)
        collecting.end()
        collecting.start()
    until(functools.partial(_kept, 3000), collecting.said)
    until(cut_off, collecting.said)
    until(functools.partial(_kept, count), collecting.said)
    lines = list(LogLine.objects.order_by("time", "ordinal").values_list("text", flat=True))
    assert lines == [f"line {number}" for number in range(count)]

    # One log with what runs, with neither a gap nor a repetition where the two meet.
    found = query_logs(version.deployment.project, limit=count, start=1)
    assert [entry.text for entry in found] == lines

    # And all of it when the pod and its row are gone.
    cluster.call("DELETE", path_of("Pod", namespace, name) + "?gracePeriodSeconds=0")
    until(lambda: LogSource.objects.get().ended_at, collecting.said)
    assert collecting.end(signal.SIGTERM) == 0
    Instance.objects.all().delete()
    found = query_logs(version.deployment.project, '{deployment_name="writer"} |= "line 29"', limit=500)
    assert [entry.text for entry in found] == [
        f"line {number}" for number in (29, *range(290, 300), *range(2900, 3000))
    ]
    assert found[0].labels["deployment_version"] == "v1"
    assert found[0].labels["deployment_version_revision_id"] == str(version.target_revision_id)


def test_what_a_container_said_before_its_restart_is_kept(
    cluster: Cluster, version: DeploymentVersion, collecting: Collecting
) -> None:
    code = "import os, time; print('begin'); print('x' * 20000); os.write(1, b'\\xff\\x00<b>\\n'); exit(3)"
    name, namespace = start_pod(cluster, version, code), version.deployment.project.namespace

    def restarts() -> int:
        statuses = cluster.get("Pod", namespace, name)["status"].get("containerStatuses") or [{}]
        return int(statuses[0].get("restartCount", 0))

    # It has ended and was started again before anybody looked.
    until(lambda: restarts() == 1, collecting.said)
    collecting.start()
    until(lambda: LogLine.objects.filter(text="begin").count() >= 2, collecting.said)
    lines = list(LogLine.objects.order_by("time", "ordinal").values_list("text", flat=True)[:3])
    assert lines == ["begin", "x" * 16384 + " [cut]", "\ufffd<b>"]


def test_what_brings_the_package_is_kept_before_the_server(
    cluster: Cluster, version: DeploymentVersion, collecting: Collecting
) -> None:
    # The first attempt fails, the second succeeds: a file in the package's place tells them apart.
    package = (
        "import os, sys, time\n"
        "print('attempt', flush=True); time.sleep(1)\n"
        "first = not os.path.exists('/data/tried')\n"
        "open('/data/tried', 'w').close()\n"
        "sys.exit('the storage answered 503' if first else 0)\n"
    )
    collecting.start()
    start_pod(cluster, version, WRITE.format(count=3, rest=600, end=""), package)
    until(lambda: _kept(6), lambda: (list(LogLine.objects.values_list("text", flat=True)), collecting.said()))
    lines = list(LogLine.objects.order_by("time", "ordinal").values_list("text", flat=True))
    assert lines == [
        "[package] attempt", "[package] the storage answered 503", "[package] attempt", "line 0", "line 1", "line 2",
    ]  # fmt: skip
    found = query_logs(version.deployment.project, limit=100, start=1)
    assert [entry.text for entry in found] == lines


def test_an_instance_that_never_gets_its_package_has_a_log_too(
    cluster: Cluster, version: DeploymentVersion, collecting: Collecting
) -> None:
    start_pod(cluster, version, "print('never')", "import sys; sys.exit('The package cannot be fetched')")
    # Without the collector what runs is read as it is.
    until(
        lambda: "[package] The package cannot be fetched" in [e.text for e in query_logs(version.deployment.project)],
        lambda: query_logs(version.deployment.project),
    )
    collecting.start()
    until(lambda: _kept(1), collecting.said)
    assert LogLine.objects.first().text == "[package] The package cannot be fetched"  # type: ignore[union-attr]
