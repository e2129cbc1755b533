"""Reading what a cluster holds of one deployment version."""

from __future__ import annotations

import datetime
from collections.abc import Set as AbstractSet
from typing import Any

from kube import specs
from kube.connect import Cluster, Object, path_of
from kube.errors import KubeError, NotFound
from kube.objects import labels_of, quantity
from kube.parsing import event_of, pod_of, requests_of, workload_of
from kube.state import BuildPod, Event, Holder, Observed, Pod, Room

_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


def events_of(cluster: Cluster, namespace: str, uid: str) -> tuple[Event, ...]:
    """Events about one object, oldest first."""
    found = cluster.find("Event", namespace, fields=f"involvedObject.uid={uid}")
    events = [event_of(obj) for obj in found]
    oldest = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return tuple(sorted(events, key=lambda event: event.last or oldest))


def _stamps(cluster: Cluster, kind: str, namespace: str, selector: str) -> tuple[tuple[str, str], ...]:
    """(name, content hash) of our objects of a kind; only metadata is read, so no secret travels."""
    answer = cluster.call("GET", path_of(kind, namespace), query={"labelSelector": selector}, accept=_METADATA_ONLY)
    return tuple(
        sorted(
            (item["metadata"]["name"], (item["metadata"].get("annotations") or {}).get(specs.APPLIED, ""))
            for item in answer.get("items") or ()
        )
    )


def observe(
    cluster: Cluster,
    namespace: str,
    version_id: str,
    *,
    build: tuple[str, str] | None = None,
    quiet: AbstractSet[str] = frozenset(),
    deep: bool = True,
) -> Observed:
    """Everything the cluster holds of a version, and the pod of ``build`` (namespace, environment hash).

    Events are not read for pods whose uid is in ``quiet`` while they are ready, nor Services and Secrets unless
    ``deep``: a rollout under way needs neither, and is what people wait for.
    Raises `ClusterUnreachable`, `KubeError`.
    """
    building = build_pod(cluster, *build) if build else None
    selector = f"{specs.VERSION_ID}={version_id}"
    deployments = sorted(
        cluster.find("Deployment", namespace, labels=selector), key=lambda obj: obj["metadata"]["creationTimestamp"]
    )
    workload, phase = None, "Active"
    if deployments:
        workload = workload_of(deployments[0], cluster.find("ReplicaSet", namespace, labels=selector))
    else:
        try:
            phase = (cluster.get("Namespace", None, namespace).get("status") or {}).get("phase") or "Active"
        except NotFound:
            return Observed(build=building)
    pods: list[Pod] = []
    for obj in cluster.find("Pod", namespace, labels=selector):
        pod = pod_of(obj)
        if not (pod.deleting or (pod.ready and pod.uid in quiet)):
            pod = pod_of(obj, events_of(cluster, namespace, pod.uid))
        pods.append(pod)
    look = deep or workload is None
    return Observed(
        namespace=phase,
        name=deployments[0]["metadata"]["name"] if deployments else "",
        duplicates=tuple(obj["metadata"]["name"] for obj in deployments[1:]),
        workload=workload,
        services=_stamps(cluster, "Service", namespace, selector) if look else None,
        secrets=_stamps(cluster, "Secret", namespace, selector) if look else None,
        pods=tuple(sorted(pods, key=lambda pod: (pod.created, pod.name))),
        build=building,
    )


def build_pod(cluster: Cluster, namespace: str, environment: str) -> BuildPod | None:
    try:
        obj = cluster.get("Pod", namespace, specs.build_name(environment))
    except NotFound:
        return None
    pod = pod_of(obj)
    if not pod.containers or pod.containers[0].running_since is None:
        pod = pod_of(obj, events_of(cluster, namespace, pod.uid))
    return BuildPod(
        uid=pod.uid,
        phase=pod.phase,
        attempt=int((obj["metadata"].get("annotations") or {}).get("pilothouse.io/attempt", 1)),
        deleting=pod.deleting,
        pod=pod,
        created=pod.created,
    )


def rooms(cluster: Cluster) -> list[Room]:
    """Free resources of every schedulable node and who holds the rest; empty when we may not read nodes."""
    try:
        nodes, pods = cluster.find("Node"), cluster.find("Pod", fields="status.phase!=Succeeded,status.phase!=Failed")
    except KubeError:
        return []
    held: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        holder = held.setdefault(node, {}).setdefault(_holder(pod), {})
        for name, value in requests_of(pod).items():
            holder[name] = holder.get(name, 0) + value
    result = []
    for node in nodes:
        if (node.get("spec") or {}).get("unschedulable"):
            continue
        name = node["metadata"]["name"]
        whole = {key: quantity(value) for key, value in ((node.get("status") or {}).get("allocatable") or {}).items()}
        holders = tuple(Holder(*who, resources) for who, resources in held.get(name, {}).items())
        free = {key: value - sum(one.resources.get(key, 0) for one in holders) for key, value in whole.items()}
        taints = tuple((node.get("spec") or {}).get("taints") or ())
        result.append(Room(name, free, whole, labels_of(node), taints, holders))
    return result


def _holder(pod: Object) -> tuple[str, str]:
    """Namespace and deployment/version of a pod; of pods that are not ours nothing."""
    labels = labels_of(pod)
    if specs.DEPLOYMENT not in labels:
        return "", ""
    return pod["metadata"].get("namespace", ""), f"{labels[specs.DEPLOYMENT]}/{labels.get(specs.VERSION, '')}"


def log_tail(
    cluster: Cluster, namespace: str, pod: str, container: str, *, lines: int = 200, previous: bool = False
) -> str:
    """The end of a container's log; empty when there is none (yet, or any more)."""
    query: dict[str, Any] = {"container": container, "tailLines": lines, "limitBytes": 1 << 20}
    if previous:
        query["previous"] = "true"
    try:
        raw = cluster.raw("GET", path_of("Pod", namespace, pod, "log"), query=query, accept="*/*")
    except KubeError:
        return ""
    return raw.decode("utf-8", "replace")
