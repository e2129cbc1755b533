"""Reading what a cluster holds of one deployment version into frozen values."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from kube import specs
from kube.connect import Cluster, Object, path_of
from kube.errors import KubeError, NotFound
from kube.objects import condition, labels_of, quantity, time_of

Time = datetime.datetime
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container's process ended."""

    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: Time | None = None


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    init: bool = False
    ready: bool = False
    started: bool = False
    restarts: int = 0
    waiting: str = ""  # reason, such as CrashLoopBackOff
    waiting_message: str = ""
    running_since: Time | None = None
    ended: Ended | None = None
    last: Ended | None = None
    memory_limit: float = 0  # bytes; 0 is none

    @property
    def failure(self) -> Ended | None:
        """The latest end with a failure, of this run or the one before."""
        for end in (self.ended, self.last):
            if end is not None and (end.exit_code != 0 or end.reason == "OOMKilled"):
                return end
        return None


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event, repeats folded by the cluster into ``count``."""

    kind: str
    reason: str
    message: str
    count: int = 1
    first: Time | None = None
    last: Time | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    uid: str
    name: str
    created: Time
    revision_id: str = ""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    node: str = ""
    address: str = ""
    deleting: bool = False
    ready: bool = False
    ready_at: Time | None = None
    scheduled_at: Time | None = None
    unschedulable: str = ""  # the scheduler's sentence
    gated: bool = False  # waits for the GPU pass
    assigned: str = ""  # the node that the GPU pass chose
    yields: bool = False  # goes first when fewer are wanted
    template: str = ""  # pod-template-hash
    containers: tuple[Container, ...] = ()
    events: tuple[Event, ...] = ()
    requests: tuple[tuple[str, float], ...] = ()

    @property
    def serving(self) -> Container | None:
        return next((c for c in self.containers if not c.init), None)

    @property
    def package_at(self) -> Time | None:
        """When the last init container was done: the package is there and the server may start."""
        ended = [c.ended for c in self.containers if c.init]
        times = [one.finished_at for one in ended if one is not None and one.exit_code == 0 and one.finished_at]
        return max(times) if ended and len(times) == len(ended) else None

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment: what it was told and how far it is."""

    replicas: int
    applied: str = ""
    revision_id: str = ""
    generation: int = 1
    observed_generation: int = 0
    current: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    deadline_exceeded: bool = False
    refused: str = ""  # why pods cannot be created: quota, admission
    # pod-template-hash of the newest ReplicaSet; empty until the controller has made it.
    template: str = ""

    @property
    def settled(self) -> bool:
        """The controller has seen the latest spec and every wanted pod is a new one and available."""
        return (
            self.observed_generation >= self.generation
            and self.updated == self.replicas
            and self.current == self.replicas
            and self.available >= self.replicas
        )


@dataclass(frozen=True, slots=True)
class BuildPod:
    uid: str
    phase: str
    attempt: int
    deleting: bool
    pod: Pod
    created: Time


@dataclass(frozen=True, slots=True)
class Room:
    """Free resources of one node, by resource name (cpu in cores, memory in bytes)."""

    node: str
    free: dict[str, float]
    allocatable: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    namespace: str = ""  # "", "Active" or "Terminating"
    # Name of the version's Deployment and Service; it stays when the version is renamed.
    name: str = ""
    # Further Deployments of the same version; there should be none.
    duplicates: tuple[str, ...] = ()
    workload: Workload | None = None
    # name -> content hash, of our Services and Secrets for this version; None when they were not looked at
    services: tuple[tuple[str, str], ...] | None = ()
    secrets: tuple[tuple[str, str], ...] | None = ()
    pods: tuple[Pod, ...] = ()
    build: BuildPod | None = None


def _ended(state: Object | None) -> Ended | None:
    ended = (state or {}).get("terminated")
    if not ended:
        return None
    return Ended(
        exit_code=int(ended.get("exitCode", 0)),
        reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        finished_at=time_of(ended.get("finishedAt")),
    )


def _container(status: Object, spec: Object, init: bool) -> Container:
    state = status.get("state") or {}
    limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
    return Container(
        name=status["name"],
        init=init,
        ready=bool(status.get("ready")),
        started=bool(status.get("started")),
        restarts=int(status.get("restartCount", 0)),
        waiting=(state.get("waiting") or {}).get("reason") or "",
        waiting_message=(state.get("waiting") or {}).get("message") or "",
        running_since=time_of((state.get("running") or {}).get("startedAt")),
        ended=_ended(state),
        last=_ended(status.get("lastState")),
        memory_limit=quantity(limit) if limit else 0,
    )


def requests_of(pod: Object) -> dict[str, float]:
    """Resources that a pod holds on its node: the sum of its containers, at least the largest init container."""
    total: dict[str, float] = {}
    spec = pod.get("spec") or {}
    for container in spec.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, 0) + quantity(value)
    for container in spec.get("initContainers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = max(total.get(name, 0), quantity(value))
    return total


def pod_of(obj: Object, events: Iterable[Event] = ()) -> Pod:
    """A Pod object in our words."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    scheduled, ready = condition(obj, "PodScheduled"), condition(obj, "Ready")
    containers = []
    for key, states, init in (
        ("initContainers", "initContainerStatuses", True),
        ("containers", "containerStatuses", False),
    ):
        by_name = {container["name"]: container for container in spec.get(key) or ()}
        containers += [_container(s, by_name.get(s["name"], {}), init) for s in status.get(states) or ()]
    created = time_of(metadata.get("creationTimestamp"))
    assert created is not None
    is_ready = ready.get("status") == "True"
    return Pod(
        uid=metadata["uid"],
        name=metadata["name"],
        created=created,
        revision_id=labels_of(obj).get(specs.REVISION_ID, ""),
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        node=spec.get("nodeName") or "",
        address=status.get("podIP") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        ready=is_ready,
        ready_at=time_of(ready.get("lastTransitionTime")) if is_ready else None,
        scheduled_at=time_of(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        unschedulable=_verdict(scheduled),
        gated=any(gate.get("name") == specs.GATE for gate in spec.get("schedulingGates") or ()),
        assigned=(metadata.get("annotations") or {}).get(specs.NODE, ""),
        yields=(metadata.get("annotations") or {}).get(specs.DELETION_COST, "").startswith("-"),
        template=labels_of(obj).get("pod-template-hash", ""),
        containers=tuple(containers),
        events=tuple(events),
        requests=tuple(sorted(requests_of(obj).items())),
    )


def _verdict(scheduled: Object) -> str:
    """Why the scheduler found no node; a pod behind a gate was not looked at."""
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return ""
    return scheduled.get("message") or ""


def event_of(obj: Object) -> Event:
    """Both shapes: kubelet and controllers count, the scheduler keeps a series."""
    series = obj.get("series") or {}
    first = time_of(obj.get("firstTimestamp")) or time_of(obj.get("eventTime"))
    first = first or time_of(obj["metadata"].get("creationTimestamp"))
    return Event(
        kind=obj.get("type") or "Normal",
        reason=obj.get("reason") or "",
        message=obj.get("message") or "",
        count=int(series.get("count") or obj.get("count") or 1),
        first=first,
        last=time_of(series.get("lastObservedTime")) or time_of(obj.get("lastTimestamp")) or first,
    )


def workload_of(obj: Object, replica_sets: Iterable[Object] = ()) -> Workload:
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    newest, template = -1, ""
    for replica_set in replica_sets:
        number = int((replica_set["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", 0))
        if number > newest:
            newest, template = number, labels_of(replica_set).get("pod-template-hash", "")
    failure = condition(obj, "ReplicaFailure")
    progress = condition(obj, "Progressing")
    return Workload(
        replicas=int(spec.get("replicas", 1)),
        applied=(metadata.get("annotations") or {}).get(specs.APPLIED, ""),
        revision_id=labels_of(spec["template"]).get(specs.REVISION_ID, ""),
        generation=int(metadata.get("generation", 1)),
        observed_generation=int(status.get("observedGeneration", 0)),
        current=int(status.get("replicas", 0)),
        updated=int(status.get("updatedReplicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        deadline_exceeded=progress.get("reason") == "ProgressDeadlineExceeded",
        refused=failure.get("message", "") if failure.get("status") == "True" else "",
        template=template,
    )


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
    pods = []
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
    """Free resources of every schedulable node; empty when we may not read nodes."""
    try:
        nodes, pods = cluster.find("Node"), cluster.find("Pod", fields="status.phase!=Succeeded,status.phase!=Failed")
    except KubeError:
        return []
    held: dict[str, dict[str, float]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        for name, value in requests_of(pod).items():
            on_node = held.setdefault(node, {})
            on_node[name] = on_node.get(name, 0) + value
    result = []
    for node in nodes:
        if (node.get("spec") or {}).get("unschedulable"):
            continue
        name = node["metadata"]["name"]
        whole = {key: quantity(value) for key, value in ((node.get("status") or {}).get("allocatable") or {}).items()}
        free = {key: value - held.get(name, {}).get(key, 0) for key, value in whole.items()}
        taints = tuple((node.get("spec") or {}).get("taints") or ())
        result.append(Room(name, free, whole, labels_of(node), taints))
    return result


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
