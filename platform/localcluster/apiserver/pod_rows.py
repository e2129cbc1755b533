"""The row of a pod: its readiness, restarts, and the one word for its state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from localcluster import times

Object = dict[str, Any]

_NONE = "<none>"


def _is_sidecar(container: Object) -> bool:
    return container.get("restartPolicy") == "Always"


def _condition(state: Object, kind: str) -> Object:
    return next((one for one in state.get("conditions") or () if one["type"] == kind), {})


def _init_reason(spec: Object, state: Object) -> str | None:
    """What holds the init containers up; None when they are through."""
    containers = {one["name"]: one for one in spec.get("initContainers") or ()}
    for index, found in enumerate(state.get("initContainerStatuses") or ()):
        now = found.get("state") or {}
        terminated, waiting = now.get("terminated"), now.get("waiting")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if _is_sidecar(containers.get(found["name"], {})) and found.get("started"):
            continue
        if terminated is not None:
            if terminated.get("reason"):
                return f"Init:{terminated['reason']}"
            if terminated.get("signal"):
                return f"Init:Signal:{terminated['signal']}"
            return f"Init:ExitCode:{terminated['exitCode']}"
        if waiting is not None and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(containers)}"
    return None


def _container_reason(state: Object, reason: str) -> tuple[str, bool]:
    running = False
    for found in reversed(state.get("containerStatuses") or []):
        now = found.get("state") or {}
        waiting, terminated = now.get("waiting"), now.get("terminated")
        if waiting is not None and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            if terminated.get("reason"):
                reason = terminated["reason"]
            elif terminated.get("signal"):
                reason = f"Signal:{terminated['signal']}"
            else:
                reason = f"ExitCode:{terminated.get('exitCode', 0)}"
        elif found.get("ready") and now.get("running") is not None:
            running = True
    return reason, running


def pod_status(obj: Object) -> str:
    """The STATUS column."""
    spec, state = obj["spec"], obj.get("status", {})
    reason = state.get("reason") or state.get("phase", "Unknown")
    scheduled = _condition(state, "PodScheduled")
    if scheduled.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    held = _init_reason(spec, state)
    if held is not None:
        reason = held
    if held is None or _condition(state, "Initialized").get("status") == "True":
        reason, running = _container_reason(state, reason)
        if reason == "Completed" and running:
            reason = "Running" if _condition(state, "Ready").get("status") == "True" else "NotReady"
    if obj["metadata"].get("deletionTimestamp"):
        if state.get("reason") == "NodeLost":
            return "Unknown"
        if state.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return reason


def _restarts(spec: Object, state: Object) -> tuple[int, datetime | None]:
    sidecars = {one["name"] for one in spec.get("initContainers") or () if _is_sidecar(one)}
    statuses = list(state.get("containerStatuses") or ())
    waiting_for_init = _init_reason(spec, state) is not None
    for found in state.get("initContainerStatuses") or ():
        if waiting_for_init or found["name"] in sidecars:
            statuses.append(found)
    count, last = 0, None
    for found in statuses:
        count += found.get("restartCount", 0)
        finished = ((found.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        if finished:
            when = times.parse_time(finished)
            last = when if last is None or when > last else last
    return count, last


def pod_row(obj: Object, created: str, age: Callable[[str | None], str]) -> list[Any]:
    """Name, ready, status, restarts, age, IP, node, nominated node, readiness gates."""
    spec, state = obj["spec"], obj.get("status", {})
    sidecars = {one["name"] for one in spec.get("initContainers") or () if _is_sidecar(one)}
    statuses = list(state.get("containerStatuses") or ())
    statuses += [one for one in state.get("initContainerStatuses") or () if one["name"] in sidecars]
    ready = sum(1 for one in statuses if one.get("ready"))
    count, last = _restarts(spec, state)
    restarts = str(count)
    if count and last is not None:
        restarts = f"{count} ({age(last.strftime('%Y-%m-%dT%H:%M:%SZ'))} ago)"
    gates = spec.get("readinessGates") or []
    shown_gates = _NONE
    if gates:
        met = sum(1 for one in gates if _condition(state, one["conditionType"]).get("status") == "True")
        shown_gates = f"{met}/{len(gates)}"
    return [
        obj["metadata"]["name"],
        f"{ready}/{len(spec['containers']) + len(sidecars)}",
        pod_status(obj),
        restarts,
        created,
        state.get("podIP") or _NONE,
        spec.get("nodeName") or _NONE,
        state.get("nominatedNodeName") or _NONE,
        shown_gates,
    ]
