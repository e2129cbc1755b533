"""From Kubernetes objects to our values. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kube import specs
from kube.connect import Object
from kube.objects import condition, labels_of, quantity, time_of
from kube.state import Container, Ended, Event, Pod, Workload


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
        namespace=metadata.get("namespace") or "",
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
