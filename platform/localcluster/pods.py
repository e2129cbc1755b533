"""What all parts need to know about pods and owners: pure functions over API objects."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from localcluster.client import Object
from localcluster.times import age, parse_time

TERMINAL = ("Succeeded", "Failed")


def condition(obj: Object, kind: str) -> Object | None:
    """The status condition of type `kind`."""
    for entry in obj.get("status", {}).get("conditions") or []:
        if entry["type"] == kind:
            return entry
    return None


def is_terminal(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in TERMINAL


def is_deleting(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_active(pod: Object) -> bool:
    """Counts towards the replicas of its owner: neither finished nor being deleted."""
    return not is_terminal(pod) and not is_deleting(pod)


def is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def seconds_to_available(pod: Object, min_ready_seconds: int, at: datetime | None = None) -> float | None:
    """0 when available, the seconds that are left until then, None when the pod is not ready."""
    ready = condition(pod, "Ready")
    if ready is None or ready["status"] != "True":
        return None
    if not min_ready_seconds:
        return 0.0
    return max(0.0, min_ready_seconds - age(ready.get("lastTransitionTime"), at))


def controller_of(obj: Object) -> Object | None:
    """The owner reference that has `controller: true`."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return owner
    return None


def is_controlled_by(obj: Object, owner: Object) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference["uid"] == owner["metadata"]["uid"]


def controller_reference(owner: Object, api_version: str, kind: str) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def matches(selector: Object | None, labels: dict[str, str] | None) -> bool:
    """Whether a LabelSelector chooses these labels; None chooses nothing, an empty one everything."""
    if selector is None:
        return False
    labels = labels or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(matches_expression(entry, labels) for entry in selector.get("matchExpressions") or [])


def matches_expression(expression: Object, labels: dict[str, str]) -> bool:
    """One requirement of a label or node selector: In, NotIn, Exists, DoesNotExist, Gt, Lt."""
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    if key not in labels or not values:
        return False
    try:
        have, bound = int(labels[key]), int(values[0])
    except ValueError:
        return False
    return have > bound if operator == "Gt" else have < bound


def from_template(owner: Object, template: Object, reference: Object) -> Object:
    """A pod made from a pod template of `owner`, to be named by the API server."""
    metadata = template.get("metadata") or {}
    made: dict[str, Any] = {
        "generateName": owner["metadata"]["name"] + "-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [reference],
    }
    for key in ("labels", "annotations", "finalizers"):
        if metadata.get(key):
            made[key] = metadata[key]
    return {"metadata": made, "spec": template["spec"]}


def restarts(pod: Object) -> int:
    """The most restarts of any of its containers."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return max((entry.get("restartCount", 0) for entry in statuses), default=0)


def deletion_order(candidates: list[Object], related: Iterable[Object], at: datetime) -> list[Object]:
    """Pods in the order in which scaling down removes them: least useful first.

    Unassigned, pending, not ready, cheap to delete, crowded on one node, recently ready, often restarted, young.
    Source: kubernetes pkg/controller ActivePodsWithRanks.
    """
    crowd: dict[str, int] = {}
    for pod in related:
        if is_active(pod):
            node = pod["spec"].get("nodeName", "")
            crowd[node] = crowd.get(node, 0) + 1

    def rank(pod: Object) -> tuple[Any, ...]:
        node = pod["spec"].get("nodeName", "")
        ready = is_ready(pod)
        since = (condition(pod, "Ready") or {}).get("lastTransitionTime") if ready else None
        return (
            bool(node),
            {"Pending": 0, "Unknown": 1, "Running": 2}.get(pod.get("status", {}).get("phase", "Pending"), 0),
            ready,
            deletion_cost(pod),
            -crowd.get(node, 0),
            _magnitude(age(since, at)) if ready else 0,
            -restarts(pod),
            _magnitude(age(pod["metadata"].get("creationTimestamp"), at)),
            pod["metadata"].get("uid", ""),
        )

    return sorted(candidates, key=rank)


def deletion_cost(pod: Object) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", 0))
    except ValueError:
        return 0


def _magnitude(seconds: float) -> int:
    # Ages are compared by powers of two so that nearly equal pods are chosen at random, not by a second.
    return math.floor(math.log2(seconds)) if seconds >= 1 else 0


def created(obj: Object) -> tuple[datetime, str]:
    """Sort key: oldest first, names break ties."""
    metadata = obj["metadata"]
    return parse_time(metadata["creationTimestamp"]), metadata["name"]
