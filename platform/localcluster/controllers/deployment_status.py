"""Status and conditions of a Deployment: pure functions over API objects.

Source: kubernetes pkg/controller/deployment (progress.go, sync.go).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from localcluster.client import Object
from localcluster.controllers.rollout import max_unavailable, replicas, total_replicas, total_status
from localcluster.times import age, rfc3339

AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
_COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
_NO_DEADLINE = 2**31 - 1


def find(conditions: list[Object], kind: str) -> Object | None:
    return next((entry for entry in conditions if entry["type"] == kind), None)


def has_deadline(deployment: Object) -> bool:
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return seconds is not None and seconds != _NO_DEADLINE


def make(kind: str, status: str, reason: str, message: str, at: datetime) -> Object:
    stamp = rfc3339(at)
    return {
        "type": kind,
        "status": status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def put(conditions: list[Object], new: Object) -> list[Object]:
    """Conditions with `new`: unchanged when status and reason are the same, else moved to the end."""
    current = find(conditions, new["type"])
    if current and current["status"] == new["status"]:
        if current.get("reason") == new["reason"]:
            return conditions
        new = new | {"lastTransitionTime": current["lastTransitionTime"]}
    return [*drop(conditions, new["type"]), new]


def drop(conditions: list[Object], kind: str) -> list[Object]:
    return [entry for entry in conditions if entry["type"] != kind]


def paused_conditions(deployment: Object, at: datetime) -> list[Object] | None:
    """Conditions that tell of pausing or resuming, None when nothing is to be told."""
    conditions = deployment.get("status", {}).get("conditions") or []
    progressing = find(conditions, "Progressing")
    if not has_deadline(deployment) or (progressing and progressing.get("reason") == TIMED_OUT):
        return None
    told = bool(progressing and progressing.get("reason") == PAUSED)
    if bool(deployment["spec"].get("paused")) == told:
        return None
    if told:
        new = make("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", at)
    else:
        new = make("Progressing", "Unknown", PAUSED, "Deployment is paused", at)
    return put(conditions, new)


def counted(deployment: Object, sets: list[Object], new: Object | None, at: datetime) -> Object:
    """The status with fresh counts and the Available condition; zero counts are left out as in the API."""
    old = deployment.get("status") or {}
    available = total_status(sets, "availableReplicas")
    counts = {
        "replicas": total_status(sets, "replicas"),
        "updatedReplicas": total_status([new], "replicas") if new else 0,
        "readyReplicas": total_status(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total_replicas(sets) - available),
    }
    status: Object = {"observedGeneration": deployment["metadata"].get("generation", 0)}
    status |= {name: counts[name] for name in _COUNTS if counts[name]}
    status["terminatingReplicas"] = total_status(sets, "terminatingReplicas")
    if old.get("collisionCount") is not None:
        status["collisionCount"] = old["collisionCount"]
    if available >= replicas(deployment) - max_unavailable(deployment):
        condition = make("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", at)
    else:
        message = "Deployment does not have minimum availability."
        condition = make("Available", "False", "MinimumReplicasUnavailable", message, at)
    status["conditions"] = put(old.get("conditions") or [], condition)
    return status


def is_complete(deployment: Object, status: Object) -> bool:
    wanted = replicas(deployment)
    return all((status.get(name) or 0) == wanted for name in ("updatedReplicas", "replicas", "availableReplicas")) and (
        status.get("observedGeneration") or 0
    ) >= deployment["metadata"].get("generation", 0)


def is_progressing(old: Object, new: Object) -> bool:
    def count(status: Object, name: str) -> int:
        return status.get(name) or 0

    outdated = [count(status, "replicas") - count(status, "updatedReplicas") for status in (old, new)]
    return outdated[1] < outdated[0] or any(
        count(new, name) > count(old, name) for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def has_timed_out(deployment: Object, status: Object, at: datetime) -> bool:
    condition = find(status.get("conditions") or [], "Progressing")
    if condition is None or condition.get("reason") == AVAILABLE:
        return False
    if condition.get("reason") == TIMED_OUT:
        return True
    return age(condition["lastUpdateTime"], at) > deployment["spec"]["progressDeadlineSeconds"]


def rolled_out(deployment: Object, sets: list[Object], new: Object | None, at: datetime) -> Object:
    """The status during and after a rollout: counts, Available, Progressing and ReplicaFailure."""
    old = deployment.get("status") or {}
    status = counted(deployment, sets, new, at)
    conditions: list[Any] = status["conditions"]
    if not has_deadline(deployment):
        conditions = drop(conditions, "Progressing")
    else:
        conditions = _progress(deployment, old, status, conditions, new, at)
    failure = _failure(sets, new)
    if failure:
        stamped = make("ReplicaFailure", failure["status"], failure["reason"], failure["message"], at)
        stamped["lastTransitionTime"] = failure["lastTransitionTime"]
        stamped["lastUpdateTime"] = failure["lastTransitionTime"]
        conditions = put(conditions, stamped)
    else:
        conditions = drop(conditions, "ReplicaFailure")
    status["conditions"] = conditions
    return status


def _progress(
    deployment: Object, old: Object, status: Object, conditions: list[Object], new: Object | None, at: datetime
) -> list[Object]:
    current = find(old.get("conditions") or [], "Progressing")
    settled = (status.get("replicas") or 0) == (status.get("updatedReplicas") or 0)
    if settled and current and current.get("reason") == AVAILABLE:
        return conditions
    name = deployment["metadata"]["name"]
    subject = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{name}"'
    if is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        return put(conditions, make("Progressing", "True", AVAILABLE, message, at))
    if is_progressing(old, status):
        condition = make("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", at)
        if current and current["status"] == "True":
            condition["lastTransitionTime"] = current["lastTransitionTime"]
        return [*drop(conditions, "Progressing"), condition]
    if has_timed_out(deployment, status, at):
        message = f"{subject} has timed out progressing."
        return put(conditions, make("Progressing", "False", TIMED_OUT, message, at))
    return conditions


def _failure(sets: list[Object], new: Object | None) -> Object | None:
    """The failure of the new ReplicaSet, or else of any."""
    ordered = [new, *sets] if new else sets
    for rs in ordered:
        found = find(rs.get("status", {}).get("conditions") or [], "ReplicaFailure")
        if found:
            return found
    return None


def seconds_to_deadline(deployment: Object, status: Object, at: datetime) -> float | None:
    """When to look again at a rollout that may get stuck; None when it cannot."""
    condition = find(status.get("conditions") or [], "Progressing")
    if not has_deadline(deployment) or condition is None:
        return None
    if is_complete(deployment, status) or condition.get("reason") in (TIMED_OUT, AVAILABLE):
        return None
    left = deployment["spec"]["progressDeadlineSeconds"] - age(condition["lastUpdateTime"], at)
    return max(1.0, left + 1)
