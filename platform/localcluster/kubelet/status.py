"""The status of a pod from the states of its containers: pure functions.

Source: kubernetes pkg/kubelet/kubelet_pods.go (getPhase) and pkg/kubelet/status/generate.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from localcluster.client import Object
from localcluster.quantity import format_binary, format_decimal, parse
from localcluster.times import rfc3339

_OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(slots=True)
class View:
    """What is known of one container. `state` is its ContainerState; ready and started as probes see it."""

    spec: Object
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0
    image_id: str = ""
    container_id: str = ""
    user: tuple[int, int] | None = None
    init: bool = False

    @property
    def name(self) -> str:
        return self.spec["name"]

    @property
    def is_sidecar(self) -> bool:
        return self.init and self.spec.get("restartPolicy") == "Always"

    @property
    def is_running(self) -> bool:
        return "running" in self.state

    @property
    def terminated(self) -> Object | None:
        return self.state.get("terminated")

    @property
    def succeeded(self) -> bool:
        ended = self.terminated
        return ended is not None and ended["exitCode"] == 0


def container_status(view: View) -> Object:
    status: Object = {
        "name": view.name,
        "state": view.state,
        "lastState": view.last_state,
        "ready": view.ready,
        "restartCount": view.restarts,
        "image": view.spec["image"],
        "imageID": view.image_id,
        "started": view.started,
    }
    if view.container_id:
        status["containerID"] = view.container_id
    if view.spec.get("volumeMounts"):
        status["volumeMounts"] = [_mount_status(mount) for mount in view.spec["volumeMounts"]]
    if view.user:  # known from the first start on
        uid, gid = view.user
        resources = view.spec.get("resources") or {}
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        status["resources"] = resources
        status["user"] = {"linux": {"uid": uid, "gid": gid, "supplementalGroups": [gid]}}
    return status


def _mount_status(mount: Object) -> Object:
    status = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        status |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
    return status


def phase(policy: str, init: list[View], main: list[View]) -> str:
    """Pending, Running, Succeeded or Failed, by restart policy and the containers' states."""
    for view in init:
        if view.is_sidecar:
            if not (view.started or view.terminated):
                return "Pending"
        elif view.terminated and view.terminated["exitCode"] != 0 and policy == "Never":
            return "Failed"
        elif not view.succeeded:
            return "Pending"
    running = sum(view.is_running for view in main)
    stopped = sum(bool(view.terminated or ("waiting" in view.state and view.last_state)) for view in main)
    if running + stopped < len(main):
        return "Pending"
    if running:
        return "Running"
    if policy == "Always":
        return "Running"
    if all(view.succeeded for view in main):
        return "Succeeded"
    finished = all(view.terminated for view in main)
    return "Failed" if policy == "Never" and finished else "Running"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything else a status says."""

    sandbox_ready: bool
    host_ip: str
    pod_ip: str | None
    start_time: str
    ended: bool = False  # the sandbox is gone and the phase may be final
    ending: bool = False  # being deleted: what has not finished by itself counts as failed


def pod_status(pod: Object, init: list[View], main: list[View], facts: Facts, at: datetime) -> Object:
    """The whole status object; conditions that did not change keep their transition times."""
    policy = pod["spec"].get("restartPolicy", "Always")
    inner = phase(policy, init, main)
    if facts.ending and all(view.terminated for view in [*main, *(v for v in init if v.is_sidecar)]):
        inner = "Succeeded" if all(view.succeeded for view in main) else "Failed"
    if any(view.is_sidecar and view.is_running for view in init):
        inner = "Running" if inner in ("Succeeded", "Failed") else inner  # sidecars have yet to end
    old = pod.get("status") or {}
    shown = inner
    if inner in ("Succeeded", "Failed") and not facts.ended:
        # The end is told only when everything is cleaned up; until then the pod looks as it did.
        shown = "Pending" if old.get("phase") == "Pending" and not _past_init(main) else "Running"
    status: Object = {
        "observedGeneration": pod["metadata"].get("generation", 1),
        "phase": shown,
        "conditions": _conditions(pod, init, main, inner, facts, at),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
    }
    if facts.pod_ip:
        status |= {"podIP": facts.pod_ip, "podIPs": [{"ip": facts.pod_ip}]}
    status["startTime"] = facts.start_time
    if init:
        status["initContainerStatuses"] = [container_status(view) for view in init]
    status["containerStatuses"] = [container_status(view) for view in main]
    status["qosClass"] = old.get("qosClass") or qos_class(pod)
    totals = pod_resources(pod)
    if totals.get("requests"):
        status["allocatedResources"] = totals["requests"]
    status["resources"] = totals
    return status


def pod_resources(pod: Object) -> Object:
    """Requests and limits of a whole pod: those that its containers name, summed up."""
    totals: dict[str, dict[str, Any]] = {}
    for container in pod["spec"]["containers"]:
        for kind in ("limits", "requests"):
            for name, text in ((container.get("resources") or {}).get(kind) or {}).items():
                amounts = totals.setdefault(kind, {})
                amounts[name] = amounts.get(name, 0) + parse(text)
    return {
        kind: {
            name: (format_binary if name.startswith(("memory", "hugepages", "ephemeral")) else format_decimal)(amount)
            for name, amount in amounts.items()
        }
        for kind, amounts in totals.items()
    }


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    resources = [entry.get("resources") or {} for entry in containers]
    if not any(entry.get("limits") or entry.get("requests") for entry in resources):
        return "BestEffort"
    for entry in resources:
        limits, requests = entry.get("limits") or {}, entry.get("requests") or {}
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                return "Burstable"
    return "Guaranteed"


def _conditions(
    pod: Object, init: list[View], main: list[View], inner: str, facts: Facts, at: datetime
) -> list[Object]:
    old = {entry["type"]: entry for entry in (pod.get("status") or {}).get("conditions") or []}
    unready = [view.name for view in [*(v for v in init if v.is_sidecar), *main] if not view.ready]
    containers: tuple[bool, str | None, str | None]
    if inner == "Succeeded":
        containers = (False, "PodCompleted", None)
    elif inner == "Failed" and not all(_never_ran(view) for view in main):
        containers = (False, "PodFailed", None)
    elif unready:
        text = f"containers with unready status: [{' '.join(unready)}]"
        containers = (False, "ContainersNotReady", text)
    else:
        containers = (True, None, None)
    ready = containers
    gates = _gates(pod, old)
    if containers[0] and gates:
        ready = (False, "ReadinessGatesNotReady", ", ".join(gates))
    incomplete = [view.name for view in init if not (view.started if view.is_sidecar else view.succeeded)]
    initialized: tuple[bool, str | None, str | None] = (True, None, None)
    if inner == "Succeeded":
        initialized = (True, "PodCompleted", None)
    elif incomplete and not _past_init(main):
        text = f"containers with incomplete status: [{' '.join(incomplete)}]"
        initialized = (False, "ContainersNotInitialized", text)
    values: dict[str, tuple[bool, str | None, str | None]] = {
        "PodReadyToStartContainers": (facts.sandbox_ready, None, None),
        "Initialized": initialized,
        "Ready": ready,
        "ContainersReady": containers,
        "PodScheduled": (True, None, None),
    }
    foreign = [entry for kind, entry in old.items() if kind not in _OWNED]
    generation = pod["metadata"].get("generation", 1)
    return foreign + [_condition(kind, values[kind], old.get(kind), generation, at) for kind in _OWNED]


def _never_ran(view: View) -> bool:
    return (view.terminated or {}).get("reason") == "ContainerStatusUnknown"


def _past_init(main: list[View]) -> bool:
    return any(view.is_running or view.terminated or view.last_state for view in main)


def _condition(
    kind: str, value: tuple[bool, str | None, str | None], old: Object | None, generation: int, at: datetime
) -> Object:
    status = "True" if value[0] else "False"
    stamp = old["lastTransitionTime"] if old and old["status"] == status else rfc3339(at)
    condition: dict[str, Any] = {
        "type": kind,
        "observedGeneration": generation,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": stamp,
    }
    if value[1]:
        condition["reason"] = value[1]
    if value[2]:
        condition["message"] = value[2]
    return condition


def _gates(pod: Object, old: dict[str, Object]) -> list[str]:
    """What keeps readiness gates closed."""
    problems = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in old:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif old[kind]["status"] != "True":
            have = old[kind]["status"]
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {have}')
    return problems
