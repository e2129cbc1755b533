"""Writing to the cluster: server-side apply under our field manager, and deleting by label."""

from __future__ import annotations

import contextlib
from typing import Any

from kube import specs
from kube.connect import APPLY, FIELD_MANAGER, MERGE, Cluster, Object, path_of
from kube.errors import Conflict, NotFound


def apply(cluster: Cluster, manifest: Object) -> Object:
    """Make the object as the manifest says, whoever set those fields before; returns it as stored."""
    metadata = manifest["metadata"]
    path = path_of(manifest["kind"], metadata.get("namespace"), metadata["name"])
    query = {"fieldManager": FIELD_MANAGER, "force": "true"}
    return cluster.call("PATCH", path, query=query, body=manifest, content_type=APPLY)


def create(cluster: Cluster, manifest: Object) -> Object | None:
    """Create an object that is never changed afterwards (a pod); None when it exists already."""
    metadata = manifest["metadata"]
    try:
        return cluster.call(
            "POST",
            path_of(manifest["kind"], metadata.get("namespace")),
            query={"fieldManager": FIELD_MANAGER},
            body=manifest,
        )
    except Conflict as error:
        if error.reason == "AlreadyExists":
            return None
        raise


def scale(cluster: Cluster, namespace: str, name: str, replicas: int) -> None:
    """Set the number of pods of a Deployment and nothing else."""
    cluster.call(
        "PATCH",
        path_of("Deployment", namespace, name),
        query={"fieldManager": FIELD_MANAGER},
        body={"spec": {"replicas": replicas}},
        content_type=MERGE,
    )


def open_gate(cluster: Cluster, namespace: str, name: str, node: str) -> bool:
    """Send a pod that waits behind our gate to a node; the scheduler still binds it. False when it is gone."""
    try:
        pod = cluster.get("Pod", namespace, name)
        gates = [gate for gate in pod["spec"].get("schedulingGates") or () if gate["name"] != specs.GATE]
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        cluster.call(
            "PATCH",
            path_of("Pod", namespace, name),
            query={"fieldManager": FIELD_MANAGER},
            body={
                "metadata": {"annotations": {specs.NODE: node}, "resourceVersion": pod["metadata"]["resourceVersion"]},
                "spec": {"schedulingGates": gates, "affinity": {"nodeAffinity": required}},
            },
            content_type=MERGE,
        )
    except (NotFound, Conflict):  # it ended, or somebody changed it: the next pass looks again
        return False
    return True


def yield_first(cluster: Cluster, namespace: str, name: str) -> None:
    """Let a pod be the first to go when its ReplicaSet is scaled down."""
    with contextlib.suppress(NotFound):
        cluster.call(
            "PATCH",
            path_of("Pod", namespace, name),
            query={"fieldManager": FIELD_MANAGER},
            body={"metadata": {"annotations": {specs.DELETION_COST: "-100"}}},
            content_type=MERGE,
        )


def delete(cluster: Cluster, kind: str, namespace: str | None, name: str, *, grace: int | None = None) -> bool:
    """Delete one object and what it owns; False when it is gone already."""
    options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    try:
        cluster.call("DELETE", path_of(kind, namespace, name), body=options)
    except (NotFound, Conflict):  # a namespace that is being deleted answers 409
        return False
    return True
