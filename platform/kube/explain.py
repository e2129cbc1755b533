"""The reason why: from what was observed to a code, a sentence, evidence and a next step. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from kube import placement
from kube.objects import mebibytes
from kube.reason import Reason
from kube.state import Container, Ended, Observed, Pod, Room, Workload

__all__ = ["Reason", "deadline", "explain", "explain_pod", "last_line", "refused", "unreachable"]

SLOW_PULL = datetime.timedelta(seconds=60)
# A start that fails the same way twice will fail a third time.
HOPELESS_RESTARTS = 1

_IMPORT = ("ModuleNotFoundError", "ImportError", "SyntaxError", "IndentationError")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Exit|Interrupt|Warning))(?::\s.*|)$")
# What the model server itself writes down: when it has loaded, and each request.
_OWN_LINE = re.compile(r'^\{"time": "[^"]*", "level": "\w+", "event": "(ready|request|draining|stopped)"')
_SERVED = ("ready", "request")
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}


def last_line(log: str) -> str:
    """The line of a log that says most: the last exception of a traceback, else the last line that is not empty."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not _OWN_LINE.match(line)]
    for line in reversed(lines):
        if _EXCEPTION.match(line):
            return line[:500]
    return lines[-1].strip()[:500] if lines else ""


def explain(
    observed: Observed,
    now: datetime.datetime,
    rooms: Sequence[Room] = (),
    revision_id: str = "",
) -> Reason | None:
    """The most telling reason why a version's new pods are not all ready; None when nothing is wrong.

    With ``revision_id`` only that revision's pods are looked at.
    """
    workload = observed.workload
    if workload is not None and workload.refused:
        return refused(workload.refused)
    pods = [pod for pod in observed.pods if not pod.deleting and (not revision_id or pod.revision_id == revision_id)]
    if workload is not None and workload.template:
        newest = [pod for pod in pods if pod.template == workload.template]
        pods = newest or pods
    reasons = [reason for pod in pods if (reason := explain_pod(pod, now, rooms)) is not None]
    hopeless = [reason for reason in reasons if reason.hopeless]
    if hopeless or reasons:
        return (hopeless or reasons)[0]
    if workload is not None and workload.deadline_exceeded:
        return deadline(workload)
    return None


def deadline(workload: Workload) -> Reason:
    return Reason(
        "deadline_passed",
        f"The new instances did not become ready in time: {workload.updated} of {workload.replicas} started, "
        f"{min(workload.ready, workload.updated)} ready.",
        "Look at the log of the new instance. A model that loads slowly needs a longer deadline; then deploy again.",
        hopeless=True,
    )


def refused(message: str) -> Reason:
    """Why the cluster does not let pods be created: quota, or an admission check."""
    if "exceeded quota" in message or "failed quota" in message:
        found = re.search(r"requested: (.*?), used: (.*?), limited: (.*)$", message)
        sentence = "The project's quota in the cluster is used up."
        if found:
            sentence = (
                f"The project's quota does not allow another instance: it asks for {found[1]}, "
                f"{found[2]} of {found[3]} are used."
            )
        return Reason(
            "quota_exceeded",
            sentence,
            "Stop another deployment of the project, choose a smaller instance type, or ask for more quota.",
            message,
        )
    return Reason(
        "admission_refused",
        f"The cluster refuses to create instances: {message}",
        "Show this sentence to the platform team: a rule of the cluster forbids the pod.",
        message,
    )


def explain_pod(pod: Pod, now: datetime.datetime, rooms: Sequence[Room] = ()) -> Reason | None:
    """Why one pod is not ready; None when it is, or is simply on its way."""
    if pod.ready:
        return None
    if pod.reason == "Evicted":
        return Reason(
            "evicted",
            f"Instance {pod.name} was evicted from its node: {pod.message or 'the node ran short of resources'}",
            "A new instance is started elsewhere. If it happens again, choose a larger instance type.",
            pod.message,
        )
    if _node_is_lost(pod):
        return Reason(
            "node_lost",
            f"The node {pod.node} of instance {pod.name} is not answering.",
            "A new instance is started on another node as soon as the cluster gives this one up.",
            pod.message,
        )
    if not pod.node:
        return placement.unscheduled(pod, rooms)
    for container in pod.containers:
        reason = _container(pod, container, now)
        if reason is not None:
            return reason
    return _volume(pod) or _pulling(pod, now) or _unready(pod)


def _node_is_lost(pod: Pod) -> bool:
    """The node controller says it by the pod's reason when it takes the pod away, and by an event before."""
    if pod.reason in ("NodeLost", "NodeShutdown", "Terminated"):
        return True
    latest = pod.events[-1].reason if pod.events else ""
    return bool(pod.node) and latest in ("NodeNotReady", "TaintManagerEviction")


def _container(pod: Pod, container: Container, now: datetime.datetime) -> Reason | None:
    match container.waiting:
        case "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull":
            return _image(pod, container)
        case "CreateContainerConfigError" | "CreateContainerError":
            return Reason(
                "config_missing",
                f"The instance cannot be configured: {container.waiting_message}.",
                "Check the environment variables and the image's user, then deploy again.",
                container.waiting_message,
                hopeless="not found" in container.waiting_message or "runAsNonRoot" in container.waiting_message,
            )
        case "RunContainerError":
            return Reason(
                "start_failed",
                f"The command of the instance cannot be run: {_short(container.waiting_message)}",
                "Check the command, or rebuild the environment.",
                container.waiting_message,
                hopeless=container.restarts >= HOPELESS_RESTARTS,
            )
    failure = container.failure
    if failure is None or (container.ended is None and container.last is None):
        return None
    running_again = container.running_since is not None and container.started
    if running_again:
        return None
    return _died(pod, container, failure)


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _had_served(log: str) -> bool:
    """Whether a process had loaded before it ended: then its next start is likely to succeed as well."""
    return any(found[1] in _SERVED for found in map(_OWN_LINE.match, log.splitlines()) if found)


def _died(pod: Pod, container: Container, end: Ended) -> Reason:
    served = _had_served(end.message)
    hopeless = container.restarts >= HOPELESS_RESTARTS and not served
    line = last_line(end.message)
    if end.reason == "OOMKilled":
        limit = f"its limit of {mebibytes(container.memory_limit)}" if container.memory_limit else "its limit"
        used = f" ({mebibytes(pod.memory_peak)} were in use when last measured)" if pod.memory_peak else ""
        return Reason(
            "out_of_memory",
            f"The instance used more memory than {limit}{used} and was killed"
            + (f", restarted {_often(container.restarts)}." if container.restarts else "."),
            "Choose an instance type with more memory, or "
            + ("look at its log for the request that needed so much." if served else "load less at start."),
            end.message,
            hopeless=hopeless,
        )
    probe = _probe_failure(pod)
    if end.exit_code in (137, 143) and probe:
        return Reason(
            "probe_failing",
            f"The instance was restarted because its health check failed: {probe}.",
            "The model answers too slowly or hangs. Look at the log; give it more processes or CPU.",
            probe,
        )
    if container.init:
        return Reason(
            "package_failed",
            f"The package could not be put in place: {line or _exit(end)}",
            "If the platform was restarting, this passes by itself. Otherwise upload the package again.",
            end.message,
            hopeless=False,
        )
    times = f" and was restarted {_often(container.restarts)}" if container.restarts else ""
    words = f" Its last words: {line}" if line else ""
    if served:
        return Reason(
            "crash_loop",
            f"The instance ended with {_exit(end)} while it was serving{times}.{words}",
            "It is started again by itself. Look at its log for the request that ended it; if it goes on, roll back or "
            "upload a new revision.",
            end.message,
        )
    match = _EXCEPTION.match(line)
    if match and match[1] in _IMPORT:
        missing = re.search(r"No module named '([\w.]+)'", line)
        return Reason(
            "import_error",
            f"The package fails when it is imported: {line}",
            f"Add the package that provides '{missing[1]}' to requirements.txt and upload again."
            if missing
            else "Correct the import and upload a new revision.",
            end.message,
            hopeless=hopeless,
        )
    if match:
        return Reason(
            "start_failed",
            f"The package fails when it starts: {line}",
            "Correct the code that runs at import or in __init__, and upload a new revision.",
            end.message,
            hopeless=hopeless,
        )
    return Reason(
        "crash_loop",
        f"The instance ended with {_exit(end)}{times}.{words}",
        "Look at the log of the instance, correct the code and upload a new revision.",
        end.message,
        hopeless=hopeless,
    )


def _exit(end: Ended) -> str:
    signal = _SIGNALS.get(end.exit_code)
    return f"exit code {end.exit_code}" + (f" ({signal})" if signal else "")


def _image(pod: Pod, container: Container) -> Reason:
    failed = [event for event in pod.events if event.reason in ("Failed", "InspectFailed", "ErrImageNeverPull")]
    pulls = [event.message for event in failed if "pull" in event.message.lower() and "Error: " not in event.message]
    text = container.waiting_message if container.waiting != "ImagePullBackOff" else ""
    text = text or (pulls[-1] if pulls else container.waiting_message)
    lower = text.lower()
    image = re.search(r'image "([^"]+)"', text)
    name = f"'{image[1]}' " if image else ""
    if any(word in lower for word in ("unauthorized", "denied", "forbidden", "authentication")):
        return Reason(
            "image_refused",
            f"The registry refuses to give out the image {name}".rstrip() + ".",
            "Check the spelling; for a private registry ask the platform team for pull credentials.",
            text,
            hopeless=True,
        )
    return Reason(
        "image_unknown",
        f"The image {name}cannot be pulled: {_short(text)}",
        "Check the image's name and tag, and that the cluster reaches its registry.",
        text,
        hopeless=container.waiting in ("InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff"),
    )


def _volume(pod: Pod) -> Reason | None:
    for event in reversed(pod.events):
        if event.reason in ("FailedMount", "FailedAttachVolume"):
            return Reason(
                "volume_failed",
                f"A volume of the instance cannot be mounted: {_short(event.message)}",
                "It is tried again by itself. If it stays, show this sentence to the platform team.",
                event.message,
            )
    return None


def _pulling(pod: Pod, now: datetime.datetime) -> Reason | None:
    for event in reversed(pod.events):
        if event.reason in ("Pulled", "Created", "Started"):
            return None
        if event.reason == "Pulling" and event.last and now - event.last > SLOW_PULL:
            seconds = int((now - event.last).total_seconds())
            return Reason(
                "image_pull_slow",
                f"The node {pod.node} has been pulling the image for {seconds} seconds.",
                "Large images take minutes the first time on a node. Nothing to do.",
                event.message,
            )
    return None


def _probe_failure(pod: Pod) -> str:
    for event in reversed(pod.events):
        if event.reason == "Unhealthy":
            return _short(event.message)
    return ""


def _unready(pod: Pod) -> Reason | None:
    """Running, but its probe fails; while it starts that is simply not ready yet."""
    serving = pod.serving
    if serving is None or serving.running_since is None or not serving.started:
        return None
    probe = _probe_failure(pod)
    if not probe:
        return None
    return Reason(
        "probe_failing",
        f"Instance {pod.name} runs but is not ready: {probe}.",
        "Look at its log: the model answers its health check too slowly or with an error.",
        probe,
    )


def _short(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def unreachable(error: str) -> Reason:
    return Reason(
        "cluster_unreachable",
        "The cluster's API cannot be reached. What runs keeps running; changes wait.",
        "Nothing to do if the cluster restarts. Otherwise the platform team checks the connection.",
        error,
    )
