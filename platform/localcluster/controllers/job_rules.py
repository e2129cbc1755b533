"""Rules of Jobs: pure functions over API objects. Source: kubernetes pkg/controller/job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from localcluster.client import Object
from localcluster.pods import is_deleting
from localcluster.times import age, rfc3339

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_FIRST_BACKOFF = 10.0
_LAST_BACKOFF = 600.0


def has_finalizer(pod: Object) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or [])


def phase(pod: Object) -> str:
    return pod.get("status", {}).get("phase") or "Pending"


def is_indexed(job: Object) -> bool:
    return job["spec"].get("completionMode") == "Indexed"


def pod_index(pod: Object) -> int | None:
    text = (pod["metadata"].get("annotations") or {}).get(INDEX)
    return int(text) if text is not None and text.isdigit() else None


def condition(job: Object, kind: str) -> Object | None:
    for entry in job.get("status", {}).get("conditions") or []:
        if entry["type"] == kind and entry["status"] == "True":
            return entry
    return None


def is_finished(job: Object) -> bool:
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def make_condition(kind: str, status: str, reason: str, message: str, at: datetime) -> Object:
    stamp = rfc3339(at)
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def put_condition(conditions: list[Object], new: Object) -> list[Object]:
    for place, entry in enumerate(conditions):
        if entry["type"] == new["type"]:
            if entry["status"] == new["status"]:
                return conditions
            return [*conditions[:place], new, *conditions[place + 1 :]]
    return [*conditions, new]


def wanted_active(job: Object, succeeded: int, active: int) -> int:
    """How many pods should run now."""
    parallelism = _number(job, "parallelism", 1)
    completions = job["spec"].get("completions")
    if completions is None:
        return active if succeeded else parallelism
    return max(0, min(parallelism, completions - succeeded))


def _number(job: Object, name: str, default: int) -> int:
    value = job["spec"].get(name)
    return default if value is None else value


def has_succeeded(job: Object, succeeded: int, active: int) -> bool:
    completions = job["spec"].get("completions")
    if completions is None:
        return succeeded > 0 and active == 0
    return succeeded >= completions


def failure(job: Object, pods: list[Object], failed: int, at: datetime) -> tuple[str, str] | None:
    """(reason, message) when the job has failed for good."""
    limit = _number(job, "backoffLimit", 6)
    verdict = policy_verdict(job, pods)
    if verdict is not None:
        return "PodFailurePolicy", verdict
    on_failure = job["spec"]["template"]["spec"].get("restartPolicy") == "OnFailure"
    restarts = sum(
        entry.get("restartCount", 0)
        for pod in pods
        if phase(pod) in ("Running", "Pending")
        for key in ("initContainerStatuses", "containerStatuses")
        for entry in pod.get("status", {}).get(key) or []
    )
    if failed > limit or (on_failure and restarts > 0 and restarts >= limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    deadline = job["spec"].get("activeDeadlineSeconds")
    started = job.get("status", {}).get("startTime")
    if deadline is not None and started and age(started, at) >= deadline and not job["spec"].get("suspend"):
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    return None


def policy_verdict(job: Object, pods: list[Object]) -> str | None:
    """The message of a FailJob rule that a failed pod matches."""
    for pod in pods:
        action, text = policy_action(job, pod)
        if action == "FailJob":
            return text
    return None


def policy_action(job: Object, pod: Object) -> tuple[str | None, str]:
    """(action, text) of the first rule of podFailurePolicy that a failed pod matches."""
    if phase(pod) != "Failed":
        return None, ""
    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for place, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        if rule.get("onExitCodes"):
            found = _exit_code_match(rule["onExitCodes"], pod)
            if found:
                name, code = found
                text = (
                    f"Container {name} for pod {where} failed with exit code {code} "
                    f"matching {rule['action']} rule at index {place}"
                )
                return rule["action"], text
        for pattern in rule.get("onPodConditions") or []:
            for entry in pod.get("status", {}).get("conditions") or []:
                if entry["type"] == pattern["type"] and entry["status"] == pattern.get("status", "True"):
                    text = f"Pod {where} has condition {entry['type']} matching {rule['action']} rule at index {place}"
                    return rule["action"], text
    return None, ""


def _exit_code_match(requirement: Object, pod: Object) -> tuple[str, int] | None:
    wanted = requirement.get("containerName")
    for key in ("initContainerStatuses", "containerStatuses"):
        for entry in pod.get("status", {}).get(key) or []:
            ended = (entry.get("state") or {}).get("terminated")
            if ended is None or ended["exitCode"] == 0 or (wanted and wanted != entry["name"]):
                continue
            inside = ended["exitCode"] in requirement["values"]
            if inside == (requirement["operator"] == "In"):
                return entry["name"], ended["exitCode"]
    return None


def backoff_left(pods: list[Object], failures: int, at: datetime) -> float:
    """Seconds until a pod may be made again after failures: 10 s doubling with each, from the last one's end."""
    if failures <= 0:
        return 0.0
    ends = [
        ended["finishedAt"]
        for pod in pods
        if phase(pod) == "Failed"
        for entry in pod.get("status", {}).get("containerStatuses") or []
        if (ended := (entry.get("state") or {}).get("terminated")) and ended.get("finishedAt")
    ]
    if not ends:
        return 0.0
    pause = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2 ** (failures - 1))
    return max(0.0, pause - age(max(ends), at))


def format_indexes(indexes: Iterable[int]) -> str:
    """0,1,2,5 as "0-2,5": runs of three and more are shortened, pairs are not."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    parts = []
    for first, last in runs:
        if last == first:
            parts.append(str(first))
        else:
            parts.append(f"{first},{last}" if last == first + 1 else f"{first}-{last}")
    return ",".join(parts)


def parse_indexes(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def with_index(template_spec: Object, index: int, name: str) -> Object:
    """The pod spec of one index: JOB_COMPLETION_INDEX in every container and a stable host name."""
    reference = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": reference}

    def containers(entries: list[Object]) -> list[Object]:
        return [entry | {"env": [*(entry.get("env") or []), variable]} for entry in entries]

    spec = dict(template_spec)
    spec["containers"] = containers(spec["containers"])
    if spec.get("initContainers"):
        spec["initContainers"] = containers(spec["initContainers"])
    spec["hostname"] = f"{name}-{index}"
    return spec


def is_active(pod: Object) -> bool:
    return phase(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)
