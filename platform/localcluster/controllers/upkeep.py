"""Upkeep of the cluster itself: old events, silent nodes, pods whose node is gone."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from localcluster import indexes
from localcluster.client import ApiError, Object
from localcluster.controllers.context import Context
from localcluster.pods import condition, is_deleting
from localcluster.resources import EVENTS, LEASES, NODES, PODS
from localcluster.times import age, rfc3339
from localcluster.workqueue import WorkQueue

log = logging.getLogger(__name__)

_EVENT_SECONDS = 3600.0
_NODE_GRACE = 50.0
_LOOK = 5.0
_SWEEP = 60.0
_UNREACHABLE = "node.kubernetes.io/unreachable"
_NOT_READY = "node.kubernetes.io/not-ready"


class EventExpiry:
    """Deletes events an hour after they were last seen (a real API server leases them in etcd)."""

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.queue: WorkQueue[str] = WorkQueue("event-expiry", self.sync, workers=1)
        self.queue.add_after("sweep", _SWEEP)

    async def sync(self, key: str) -> None:
        self.queue.add_after("sweep", _SWEEP)
        for event in await self.client.list(EVENTS, page_size=500):
            if age(last_seen(event)) > _EVENT_SECONDS:
                metadata = event["metadata"]
                try:
                    await self.client.delete(EVENTS, metadata["name"], metadata["namespace"])
                except ApiError as error:
                    if not error.is_not_found:
                        raise


def last_seen(event: Object) -> str:
    """The newest of an event's times."""
    times = [
        event.get("lastTimestamp"),
        event.get("eventTime"),
        (event.get("series") or {}).get("lastObservedTime"),
        event["metadata"].get("creationTimestamp"),
    ]
    return max(filter(None, times))


class NodeLifecycleController:
    """Marks nodes whose kubelet is silent, and ends pods that no kubelet will end."""

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.nodes = context.watcher(NODES)
        self.leases = context.watcher(LEASES)
        self.pods = context.watcher(PODS)
        self.pods_on = self.pods.index(indexes.node_name)
        self.events = context.recorder("node-controller")
        self.queue: WorkQueue[str] = WorkQueue("node-lifecycle", self.sync, workers=4)
        self.nodes.add_handler(self._on_node)

    def _on_node(self, change: str, node: Object, old: Object | None) -> None:
        self.queue.add(node["metadata"]["name"])

    async def sync(self, name: str) -> None:
        node = self.nodes.get("", name)
        if node is None:
            await self._forget_pods(name)
            return
        self.queue.add_after(name, _LOOK)
        ready = condition(node, "Ready")
        if ready is None and age(node["metadata"]["creationTimestamp"]) < _NODE_GRACE:
            return  # a new node has not reported yet
        silent = self._silence(node) > self._grace(name)
        if silent and (ready is None or ready["status"] != "Unknown"):
            node = await self._mark_unknown(node)
            ready = condition(node, "Ready")
        await self._taint(node, ready)
        if ready is not None and ready["status"] != "True":
            await self._evict(name, ready)

    def _silence(self, node: Object) -> float:
        lease = self.leases.get("kube-node-lease", node["metadata"]["name"])
        renewed = (lease or {}).get("spec", {}).get("renewTime")
        return age(renewed or node["metadata"]["creationTimestamp"])

    def _grace(self, name: str) -> float:
        lease = self.leases.get("kube-node-lease", name)
        return max(_NODE_GRACE, 1.25 * ((lease or {}).get("spec", {}).get("leaseDurationSeconds") or 0))

    async def _mark_unknown(self, node: Object) -> Object:
        stamp = rfc3339()
        conditions = [
            {
                "type": kind,
                "status": "Unknown",
                "lastTransitionTime": stamp,
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
            for kind in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
        ]
        name = node["metadata"]["name"]
        self.events.normal(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        patch = {"status": {"conditions": conditions}}
        answer = await self.client.patch(NODES, name, None, patch, kind="strategic", subresource="status")
        for pod in self.pods_on.of(name):
            if condition(pod, "Ready"):
                await self._unready(pod)
        return answer

    async def _unready(self, pod: Object) -> None:
        entry = {"type": "Ready", "status": "False", "lastTransitionTime": rfc3339()}
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [entry]}}
        metadata = pod["metadata"]
        self.events.warning(pod, "NodeNotReady", "Node is not ready")
        try:
            await self.client.patch(
                PODS, metadata["name"], metadata["namespace"], patch, kind="strategic", subresource="status"
            )
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise

    async def _taint(self, node: Object, ready: Object | None) -> None:
        """Taints that say what the Ready condition says."""
        status = ready["status"] if ready else "False"
        wanted = {"Unknown": _UNREACHABLE, "False": _NOT_READY}.get(status)
        have = node.get("spec", {}).get("taints") or []
        kept = [taint for taint in have if taint["key"] not in (_UNREACHABLE, _NOT_READY)]
        cordon = "node.kubernetes.io/unschedulable"
        kept = [taint for taint in kept if taint["key"] != cordon]
        if node.get("spec", {}).get("unschedulable"):
            before = next((taint for taint in have if taint["key"] == cordon), None)
            kept.append(before or {"key": cordon, "effect": "NoSchedule", "timeAdded": rfc3339()})
        if wanted:
            for effect in ("NoSchedule", "NoExecute"):
                same = [t for t in have if t["key"] == wanted and t["effect"] == effect]
                kept += same or [{"key": wanted, "effect": effect, "timeAdded": rfc3339()}]
        if kept != have:
            patch = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}}
            await self.client.patch(NODES, node["metadata"]["name"], None, patch | {"spec": {"taints": kept or None}})

    async def _evict(self, name: str, ready: Object) -> None:
        """Delete pods that tolerate the silence no longer."""
        silent = age(ready["lastTransitionTime"])
        key = _UNREACHABLE if ready["status"] == "Unknown" else _NOT_READY
        for pod in self.pods_on.of(name):
            if is_deleting(pod):
                continue
            limit = _toleration(pod, key)
            if limit is not None and silent > limit:
                metadata = pod["metadata"]
                try:
                    await self.client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
                except ApiError as error:
                    if not (error.is_not_found or error.is_conflict):
                        raise
                self.events.normal(pod, "TaintManagerEviction", f"Marking for deletion Pod {'/'.join(_key(pod))}")

    async def _forget_pods(self, name: str) -> None:
        """A node was deleted: its pods are deleted without waiting for a kubelet."""
        await asyncio.sleep(_LOOK)
        if self.nodes.get("", name) is not None:
            return
        for pod in self.pods_on.of(name):
            metadata = pod["metadata"]
            try:
                await self.client.delete(
                    PODS, metadata["name"], metadata["namespace"], grace_seconds=0, uid=metadata["uid"]
                )
            except ApiError as error:
                if not (error.is_not_found or error.is_conflict):
                    raise
            except (aiohttp.ClientError, TimeoutError) as error:
                log.info("pod %s of the deleted node %s: %s", metadata["name"], name, error)


def _key(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _toleration(pod: Object, key: str) -> float | None:
    """Seconds a pod bears a NoExecute taint; None for ever."""
    limits: list[float] = []
    for entry in pod["spec"].get("tolerations") or []:
        covers = entry.get("key") in (key, None, "") and entry.get("effect") in ("NoExecute", None, "")
        if covers and (entry.get("operator") == "Exists" or entry.get("key") == key):
            if entry.get("tolerationSeconds") is None:
                return None
            limits.append(float(entry["tolerationSeconds"]))
    return min(limits) if limits else 0.0
