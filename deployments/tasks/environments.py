"""Driving the build of an environment: its pod's state becomes the build's state, log and reason."""

import datetime as dt

from django.conf import settings
from django.db.models import F

from accounts.models import Project
from deployments.models import DeploymentVersion, EnvironmentBuild, Revision
from deployments.tasks import observation
from kube import apply, specs
from kube.builds import BUILD, EXIT_RETRY, PREPARE
from kube.connect import Cluster
from kube.explain import Reason, explain_pod, last_line
from kube.observe import log_tail
from kube.specs import build_name
from kube.state import BuildPod

State = EnvironmentBuild.State

ATTEMPTS = 3
LOG_LINES = 5000
_NEXT = "Correct the requirements and upload again. The build log has the details."


def adopt(build: EnvironmentBuild, project: Project) -> None:
    """A build without anything of a user's whose project was deleted goes on in the namespace of one that needs it."""
    if build.tree != specs.SHARED:
        return
    if build.project is None and EnvironmentBuild.objects.filter(pk=build.pk, project=None).update(project=project):
        build.project = project


def advance(cluster: Cluster, build: EnvironmentBuild, pod: BuildPod | None, now: dt.datetime) -> bool:
    """Move the build's row to what its pod shows. Tells whether the build has ended or changed."""
    if build.project is None or build.state in (State.SUCCESS, State.FAILED):
        return False
    if build.deadline_at is None:
        # From the queueing: a pod that cannot even be made must not be waited for without end.
        deadline = now + dt.timedelta(seconds=settings.PILOTHOUSE_BUILD_DEADLINE_SECONDS)
        _move(build, build.state, deadline_at=deadline)
    if pod is None or pod.attempt < build.attempt or pod.deleting:
        return _late(cluster, build, None, now)
    changed = False
    if build.state == State.QUEUED:
        changed = _move(build, State.QUEUED, state=State.BUILDING, started_at=now)
        observation.mark_building(build)
    if pod.phase == "Succeeded":
        return _end(cluster, build, State.SUCCESS, None, now)
    if pod.phase == "Failed":
        return _failed(cluster, build, pod, now)
    log = read_log(cluster, build)
    if log and log != build.log:
        EnvironmentBuild.objects.filter(pk=build.pk).update(log=log)
        build.log, changed = log, True
    return _late(cluster, build, pod, now) or changed


def reason(build: EnvironmentBuild, pod: BuildPod | None, now: dt.datetime) -> Reason | None:
    """Why the build has not begun, or why it failed."""
    if build.state == State.FAILED:
        message = build.error_message or "The environment could not be built."
        return Reason(build.reason_code or "environment_failed", message, _NEXT, build.log[-2000:], hopeless=True)
    return explain_pod(pod.pod, now) if pod is not None and not pod.deleting else None


def read_log(cluster: Cluster, build: EnvironmentBuild) -> str:
    """The log of the build; of what goes before it while it has not begun."""
    if build.project is None:
        return ""
    namespace, name = build.project.namespace, build_name(build.hash)
    log = log_tail(cluster, namespace, name, BUILD, lines=LOG_LINES)
    return (log or log_tail(cluster, namespace, name, PREPARE, lines=LOG_LINES)).replace("\x00", "")


def failure_of(log: str) -> str:
    """The part of a build's log that says why it failed: from its last "Build failed" to the end."""
    lines = log.rstrip().splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("Build failed:"):
            return "\n".join(lines[number:]).removeprefix("Build failed:").strip()[:4000]
    return last_line(log)


def _failed(cluster: Cluster, build: EnvironmentBuild, pod: BuildPod, now: dt.datetime) -> bool:
    # A build does not begin when what goes before it fails.
    ends = [container.ended for container in pod.pod.containers if container.ended is not None]
    ended = next((end for end in ends if end.exit_code != 0), None)
    code = ended.exit_code if ended else None
    if pod.pod.reason == "DeadlineExceeded":
        minutes = settings.PILOTHOUSE_BUILD_DEADLINE_SECONDS // 60
        why = Reason("build_deadline", f"The environment was not built within {minutes} minutes.", _NEXT)
        return _end(cluster, build, State.FAILED, why, now)
    if ended is not None and ended.reason == "OOMKilled":
        why = Reason("build_out_of_memory", "The build of the environment ran out of memory.", _NEXT)
        return _end(cluster, build, State.FAILED, why, now)
    # No exit code, or one of a signal: evicted, or its node went away. Not the fault of the requirements.
    passing = code is None or code == EXIT_RETRY or code >= 128 or code < 0
    if passing and build.attempt < ATTEMPTS:
        log = read_log(cluster, build)
        return _move(
            build, State.BUILDING, state=State.QUEUED, attempt=F("attempt") + 1, log=log or build.log, started_at=None
        )
    text = failure_of(read_log(cluster, build)) or (ended.message if ended else "") or pod.pod.message
    why = Reason("environment_failed", f"The environment cannot be built: {text}".strip(), _NEXT)
    return _end(cluster, build, State.FAILED, why, now)


def _late(cluster: Cluster, build: EnvironmentBuild, pod: BuildPod | None, now: dt.datetime) -> bool:
    if build.deadline_at is None or now <= build.deadline_at:
        return False
    waiting = explain_pod(pod.pod, now) if pod is not None else None
    minutes = settings.PILOTHOUSE_BUILD_DEADLINE_SECONDS // 60
    text = f"The environment was not built within {minutes} minutes." + (f" {waiting.message}" if waiting else "")
    return _end(cluster, build, State.FAILED, Reason("build_deadline", text, _NEXT), now)


def _move(build: EnvironmentBuild, old: str, **columns: object) -> bool:
    moved = EnvironmentBuild.objects.filter(pk=build.pk, state=old, attempt=build.attempt).update(**columns)
    if moved:
        build.refresh_from_db()
    return bool(moved)


def _end(cluster: Cluster, build: EnvironmentBuild, state: str, why: Reason | None, now: dt.datetime) -> bool:
    log = read_log(cluster, build) or build.log
    columns: dict[str, object] = {"state": state, "finished_at": now, "log": log}
    if why is not None:
        columns |= {"reason_code": why.code, "error_message": why.message}
    if not _move(build, build.state, **columns):
        build.refresh_from_db()
        return True
    if state == State.FAILED:
        Revision.objects.filter(
            environment_build=build, status__in=[Revision.Status.QUEUED, Revision.Status.BUILDING]
        ).update(status=Revision.Status.FAILED, error_message=build.error_message)
    remove_pod(cluster, build)
    return True


def remove_pod(cluster: Cluster, build: EnvironmentBuild) -> None:
    """Take away the pod and its files; the log is in the row by now."""
    if build.project is not None:
        name = build_name(build.hash)
        apply.delete(cluster, "Pod", build.project.namespace, name)
        apply.delete(cluster, "ConfigMap", build.project.namespace, name)


def waiting_versions(build: EnvironmentBuild) -> list[str]:
    """Ids of the versions whose target waits for the build."""
    found = DeploymentVersion.objects.filter(target_revision__environment_build=build).values_list("id", flat=True)
    return [str(key) for key in found]
