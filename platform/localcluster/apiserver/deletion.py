"""What deleting an object means: preconditions, propagation and grace."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from localcluster import resources as r
from localcluster import times
from localcluster.apiserver import status
from localcluster.apiserver.registry import Kind

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How an object is to be deleted."""

    grace_seconds: int | None = None
    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


def check_preconditions(kind: Kind, obj: Object, options: DeleteOptions) -> None:
    """StatusError 409 unless the object is the one that is meant."""
    metadata, resource = obj["metadata"], kind.resource
    problem = ""
    if options.uid and options.uid != metadata["uid"]:
        problem = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record "
            f"({metadata['uid']}). The object might have been deleted and then recreated"
        )
    elif options.resource_version and options.resource_version != metadata["resourceVersion"]:
        problem = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have been modified"
        )
    if problem:
        # This failure names the kind where others name the resource.
        named = r.Resource(resource.group, resource.version, resource.kind, resource.kind)
        raise status.conflict(named, metadata["name"], problem)


def propagate(kind: Kind, metadata: Object, policy: str | None) -> None:
    """Write the finalizer that makes the garbage collector treat dependents as asked."""
    finalizers = list(metadata.get("finalizers") or ())
    kept = [one for one in finalizers if one not in ("orphan", "foregroundDeletion")]
    if policy is None and len(kept) != len(finalizers):
        return  # an earlier request decided
    if policy is None and kind.resource == r.JOBS:
        policy = "Orphan"
    if policy == "Orphan":
        kept.append("orphan")
    elif policy == "Foreground":
        kept.append("foregroundDeletion")
    if kept:
        metadata["finalizers"] = kept
    else:
        metadata.pop("finalizers", None)


def grace_of(kind: Kind, obj: Object, wanted: int | None) -> int:
    """The seconds an object has left: only pods on a node have any."""
    if kind.resource != r.PODS:
        return 0
    spec = obj["spec"]
    if not spec.get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if wanted is None:
        wanted = obj["metadata"].get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30))
    return 1 if wanted < 0 else wanted


def mark(metadata: Object, grace: int) -> None:
    """Give an object its deletion time; a later request may only shorten it."""
    already = metadata.get("deletionGracePeriodSeconds")
    if metadata.get("deletionTimestamp") is not None and already is not None and grace >= already:
        return
    if metadata.get("deletionTimestamp") is not None and already is not None:
        # A second, shorter request counts from the first one.
        start = times.parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=already)
    else:
        start = datetime.now(UTC)
        if metadata.get("generation"):
            metadata["generation"] += 1
    metadata["deletionTimestamp"] = (start + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["deletionGracePeriodSeconds"] = grace
