"""Reasons that are not a pod's: of builds, of a namespace that goes, of what the cluster forbids, of suspension."""

import datetime as dt
import io
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from django.utils import timezone

from accounts.models import User
from deployments.models import DeploymentVersion, EnvironmentBuild
from deployments.services import projects, revisions
from deployments.services.gpu.demand import Holding
from deployments.tasks import environments
from deployments.tasks.gates import better_reason
from deployments.tasks.reconciling import _refusal
from kube.connect import Cluster
from kube.errors import KubeError, NotFound
from kube.explain import Reason
from kube.state import BuildPod, Container, Ended, Observed, Pod
from tests.app import factories
from tests.app.reconcile.conftest import passes_until, roll

NOW = timezone.now()


@pytest.mark.parametrize(
    ("error", "code", "hopeless"),
    [
        (NotFound(404, "NotFound", 'namespaces "x" not found'), "namespace_terminating", False),
        (KubeError(403, "Forbidden", "no", {"causes": [{"reason": "NamespaceTerminating"}]}),
         "namespace_terminating", False),
        (KubeError(403, "Forbidden", "deployments is forbidden: User cannot create"), "cluster_forbids", False),
        (KubeError(403, "Forbidden", "exceeded quota: q, requested: pods=1"), "admission_refused", False),
        (KubeError(422, "Invalid", "spec.template: Invalid value"), "admission_refused", True),
    ],
)  # fmt: skip
def test_what_the_cluster_refuses_is_told_with_its_words(error: KubeError, code: str, hopeless: bool) -> None:
    reason = _refusal(error)
    assert (reason.code, reason.hopeless) == (code, hopeless)
    assert reason.evidence == error.message
    assert reason.next


def test_an_instance_that_waits_for_the_one_before_it_says_so() -> None:
    ending = Pod(uid="1", name="old", created=NOW, node="gpu-1", deleting=True)
    coming = Pod(uid="2", name="new", created=NOW, assigned="gpu-1")
    lacks, held = Reason("does_not_fit", "no room", ""), Holding(1)
    reason = better_reason(lacks, held, Observed(pods=(ending, coming)), short=False)
    assert reason is not None
    assert (reason.code, "gpu-1" in reason.message) == ("handing_over", True)
    assert better_reason(lacks, held, Observed(pods=(coming,)), short=False) == lacks


def test_who_waits_for_devices_is_told_so_unless_the_cluster_knows_more() -> None:
    held, crash = Holding(0, code="gpu_queued", message="waits"), Reason("crash_loop", "ends", "")
    reason = better_reason(None, held, Observed(), short=True)
    assert reason is not None
    assert reason.code == "gpu_queued"
    assert better_reason(crash, held, Observed(), short=True) == crash
    assert better_reason(None, held, Observed(), short=False) is None


class Silent(Cluster):
    """A cluster without logs that lets everything be deleted."""

    def __init__(self) -> None:
        pass

    def raw(self, method: str, path: str, **options: object) -> bytes:
        return b"{}" if method == "DELETE" else b""


def build(**fields: object) -> EnvironmentBuild:
    return EnvironmentBuild.objects.create(
        **{"hash": "a" * 64, "runtime": "python3.11", "project": factories.project(), "state": "building", **fields}
    )


def pod_of(*, phase: str, reason: str = "", ended: Ended | None = None) -> BuildPod:
    container = Container("build", ended=ended, running_since=None if ended else NOW)
    pod = Pod(uid="u", name="env-a", created=NOW, phase=phase, reason=reason, node="n", containers=(container,))
    return BuildPod(uid="u", phase=phase, attempt=1, deleting=False, pod=pod, created=NOW)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pod", "deadline", "code", "words"),
    [
        (pod_of(phase="Failed", ended=Ended(137, "OOMKilled")), 60, "build_out_of_memory", "ran out of memory"),
        (pod_of(phase="Failed", reason="DeadlineExceeded"), 60, "build_deadline", "not built within 30 minutes"),
        (pod_of(phase="Running"), -1, "build_deadline", "not built within 30 minutes"),
        (pod_of(phase="Failed", ended=Ended(1, "Error", "no such package")), 60, "environment_failed",
         "no such package"),
    ],
)  # fmt: skip
def test_why_a_build_failed(pod: BuildPod, deadline: int, code: str, words: str) -> None:
    row = build(deadline_at=NOW + dt.timedelta(seconds=deadline))
    assert environments.advance(Silent(), row, pod, NOW)
    row.refresh_from_db()
    assert (row.state, row.reason_code) == ("failed", code)
    reason = environments.reason(row, None, NOW)
    assert reason is not None
    assert words in reason.message
    assert reason.hopeless


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("code", "state", "told"),
    [(75, "queued", ""), (1, "failed", "uv, the installer, cannot be installed.")],
)
def test_what_goes_before_a_build_ends_it_as_the_build_itself_would(code: int, state: str, told: str) -> None:
    row = build(attempt=1)
    before = Container("prepare", init=True, ended=Ended(code, "Error", "uv, the installer, cannot be installed."))
    waiting = Container("build", waiting="PodInitializing")
    failed = pod_of(phase="Failed")
    assert environments.advance(
        Silent(), row, replace(failed, pod=replace(failed.pod, containers=(before, waiting))), NOW
    )
    row.refresh_from_db()
    assert (row.state, row.attempt) == (state, 2 if code == 75 else 1)
    assert told in row.error_message


def test_the_log_of_what_goes_before_a_build_is_told_until_the_build_begins(db: None) -> None:
    class Logs(Silent):
        told: ClassVar[dict[str, bytes]] = {"prepare": b"Installing uv", "build": b""}

        def raw(self, method: str, path: str, **options: Any) -> bytes:
            return self.told[options["query"]["container"]]

    row, logs = build(), Logs()
    assert environments.read_log(logs, row) == "Installing uv"
    logs.told["build"] = b"Making an environment"
    assert environments.read_log(logs, row) == "Making an environment"


def test_a_suspended_project_says_so_and_runs_nothing(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    content = factories.package({"deployment.py": "class Deployment:\n    def request(self, data): return 1\n"})
    revisions.upload_package(editor, version, io.BytesIO(content), file_name="package.zip")
    roll(version)
    projects.update_project(factories.superuser(), version.deployment.project, suspend=True)
    passes_until(version, lambda: version.reason_code == "project_suspended" and not version.ready_instances)
    assert "suspended" in version.reason_message
