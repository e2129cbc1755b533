"""Arithmetic of Deployment rollouts: pure functions over numbers and API objects.

Source: kubernetes pkg/controller/deployment (util/deployment_util.go, rolling.go, sync.go).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from localcluster.client import Object
from localcluster.pods import created

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes


def scaled(value: int | str, total: int, round_up: bool) -> int:
    """An int-or-percent of `total`."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if round_up else math.floor(share)
    return int(value)


def replicas(obj: Object) -> int:
    """`spec.replicas`, 1 when it is missing."""
    count = obj["spec"].get("replicas")
    return 1 if count is None else count


def is_rolling(deployment: Object) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"


def fenceposts(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: surge rounded up, unavailable down, never both zero."""
    if not is_rolling(deployment):
        return 0, 0
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
    wanted = replicas(deployment)
    surge = scaled(rolling.get("maxSurge", "25%"), wanted, True)
    unavailable = scaled(rolling.get("maxUnavailable", "25%"), wanted, False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, unavailable


def max_surge(deployment: Object) -> int:
    return fenceposts(deployment)[0]


def max_unavailable(deployment: Object) -> int:
    wanted = replicas(deployment)
    return min(fenceposts(deployment)[1], wanted) if wanted else 0


def total_replicas(sets: Iterable[Object]) -> int:
    return sum(replicas(rs) for rs in sets)


def total_status(sets: Iterable[Object], name: str) -> int:
    return sum(rs.get("status", {}).get(name) or 0 for rs in sets)


def active(sets: Iterable[Object]) -> list[Object]:
    """ReplicaSets that want pods."""
    return [rs for rs in sets if replicas(rs) > 0]


def new_replicas(deployment: Object, everything: list[Object], new: Object) -> int:
    """How many replicas the new ReplicaSet may have now."""
    if not is_rolling(deployment):
        return replicas(deployment)
    room = replicas(deployment) + max_surge(deployment) - total_replicas(everything)
    if room <= 0:
        return replicas(new)
    return replicas(new) + min(room, replicas(deployment) - replicas(new))


def plan_scale_down(deployment: Object, new: Object, old: list[Object]) -> list[tuple[Object, int]]:
    """Which old ReplicaSets shrink to which size during a rolling update: unhealthy replicas first."""
    old = active(old)
    if not old:
        return []
    least = replicas(deployment) - max_unavailable(deployment)
    new_unavailable = replicas(new) - (new.get("status", {}).get("availableReplicas") or 0)
    budget = total_replicas([*old, new]) - least - new_unavailable
    if budget <= 0:
        return []
    old = sorted(old, key=created)
    sizes = {rs["metadata"]["uid"]: replicas(rs) for rs in old}
    removed = 0
    for rs in old:
        unhealthy = replicas(rs) - (rs.get("status", {}).get("availableReplicas") or 0)
        count = min(budget - removed, unhealthy)
        if count > 0:
            sizes[rs["metadata"]["uid"]] -= count
            removed += count
    spare = total_status([*old, new], "availableReplicas") - least
    for rs in old:
        if spare <= 0:
            break
        count = min(sizes[rs["metadata"]["uid"]], spare)
        sizes[rs["metadata"]["uid"]] -= count
        spare -= count
    return [(rs, sizes[rs["metadata"]["uid"]]) for rs in old if sizes[rs["metadata"]["uid"]] != replicas(rs)]


def active_or_latest(new: Object | None, old: list[Object]) -> Object | None:
    """The only active ReplicaSet, or the latest when none is active; None when several are."""
    everything = [*old, new] if new else list(old)
    running = active(everything)
    if len(running) == 1:
        return running[0]
    if running or not everything:
        return None
    return new or max(old, key=created)


def is_saturated(deployment: Object, new: Object | None) -> bool:
    """The new ReplicaSet has taken over everything."""
    if new is None:
        return False
    wanted = replicas(deployment)
    noted = annotation(new, DESIRED)
    return noted == wanted and replicas(new) == wanted and (new["status"].get("availableReplicas") or 0) == wanted


def annotation(obj: Object, name: str) -> int | None:
    try:
        return int((obj["metadata"].get("annotations") or {})[name])
    except (KeyError, ValueError):
        return None


def proportional_sizes(deployment: Object, sets: list[Object]) -> list[tuple[Object, int]]:
    """New sizes of all active ReplicaSets when a Deployment is scaled in the middle of a rollout."""
    wanted = replicas(deployment)
    allowed = wanted + max_surge(deployment) if wanted > 0 else 0
    sets = active(sets)
    to_add = allowed - total_replicas(sets)
    # The biggest takes what rounding leaves over; of equals the newest when growing, the oldest when shrinking.
    sets = sorted(sets, key=created, reverse=to_add > 0)
    sets.sort(key=replicas, reverse=True)
    added, sizes = 0, []
    for rs in sets:
        share = _proportion(deployment, rs, to_add, added)
        added += share
        sizes.append(replicas(rs) + share)
    if sets and to_add:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(sets, sizes, strict=True))


def _proportion(deployment: Object, rs: Object, to_add: int, added: int) -> int:
    if to_add == 0 or added == to_add:
        return 0
    share, rest = _fraction(deployment, rs), to_add - added
    return min(share, rest) if to_add > 0 else max(share, rest)


def _fraction(deployment: Object, rs: Object) -> int:
    if replicas(deployment) == 0:
        return -replicas(rs)
    before = annotation(rs, MAXIMUM) or deployment.get("status", {}).get("replicas") or 0
    if not before:
        return 0
    exact = replicas(rs) * (replicas(deployment) + max_surge(deployment)) / before
    return math.floor(exact + 0.5) - replicas(rs)


def template_hash(template: Object, collisions: int | None = None) -> str:
    """A short name for a pod template: FNV-1a of its content in an alphabet that spells no words."""
    digest = 0x811C9DC5
    content = json.dumps(bare_template(template), sort_keys=True, separators=(",", ":"))
    for byte in (content + (str(collisions) if collisions else "")).encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE[ord(char) % len(_SAFE)] for char in str(digest))


def bare_template(template: Object) -> Object:
    """The template without the hash label, and without fields that say nothing."""
    metadata: dict[str, Any] = {k: v for k, v in (template.get("metadata") or {}).items() if v}
    labels = {k: v for k, v in (metadata.pop("labels", None) or {}).items() if k != HASH_LABEL}
    if labels:
        metadata["labels"] = labels
    return {"metadata": metadata, "spec": template.get("spec") or {}}


def copied_annotations(deployment: Object) -> dict[str, str]:
    """The Deployment's annotations that its ReplicaSets carry too."""
    have = deployment["metadata"].get("annotations") or {}
    return {key: value for key, value in have.items() if key not in _NOT_COPIED}


def revise_annotations(deployment: Object, rs_annotations: dict[str, str], revision: int) -> dict[str, str]:
    """Annotations of the new ReplicaSet at `revision`; an older one it had moves to its history."""
    result = dict(rs_annotations) | copied_annotations(deployment)
    before = result.get(REVISION)
    if before is not None and before.isdigit() and int(before) < revision:
        history = [entry for entry in result.get(REVISION_HISTORY, "").split(",") if entry]
        result[REVISION_HISTORY] = ",".join([*history, before])
    if before is None or not before.isdigit() or int(before) < revision:
        result[REVISION] = str(revision)
    return result


def size_annotations(deployment: Object) -> dict[str, str]:
    wanted = replicas(deployment)
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + max_surge(deployment))}
