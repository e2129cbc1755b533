"""The scheduling loop: one pod at a time against a cache of nodes, bindings written in the background."""

from __future__ import annotations

import asyncio
import logging
import socket

import aiohttp

from localcluster.client import ApiError, Client, Object
from localcluster.events import Recorder
from localcluster.pods import condition, is_deleting, is_terminal
from localcluster.resources import NODES, PDBS, PODS
from localcluster.scheduler.filters import Refusal, check, failure_message, missing_claim, preemption_message
from localcluster.scheduler.placement import Preemption, best, plan_preemption
from localcluster.scheduler.waiting import Queue, Waiting
from localcluster.scheduler.world import NodeInfo, PodInfo, World
from localcluster.times import rfc3339
from localcluster.watcher import Key, Watcher, key_of

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_AGAIN = 1.0  # seconds until a pod is tried again after a request of ours has failed
_SWEEP = 60.0  # unschedulable pods are looked at again after this long even when nothing is known to have changed


class Scheduler:
    """Keeps `nodes` (what is where) and works off the queue of pods without a node."""

    def __init__(self, client: Client, name: str = NAME) -> None:
        self.client = client
        self.name = name
        self.events = Recorder(client, name, socket.gethostname())
        self.nodes: dict[str, NodeInfo] = {}
        self.nominated: dict[str, tuple[str, PodInfo]] = {}
        self._orphans: dict[str, dict[str, PodInfo]] = {}
        self._assumed: dict[str, str] = {}
        self._queue = Queue()
        self._waiting = Waiting()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.node_watch = Watcher(client, NODES, handler=self._on_node)
        self.pod_watch = Watcher(client, PODS, handler=self._on_pod)
        self.budget_watch = Watcher(client, PDBS)

    async def run(self) -> None:
        """Schedule until cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in (self.node_watch, self.pod_watch, self.budget_watch, self.events):
                group.create_task(part.run())
            await asyncio.gather(self.node_watch.synced(), self.pod_watch.synced())
            group.create_task(self._sweep())
            await self._work()

    # What changed

    def _on_node(self, change: str, node: Object, old: Object | None) -> None:
        name = node["metadata"]["name"]
        if change == "DELETED":
            info = self.nodes.pop(name, None)
            if info is not None and info.pods:
                self._orphans[name] = info.pods
            return
        if name in self.nodes:
            self.nodes[name].update(node)
        else:
            self.nodes[name] = NodeInfo(node)
            for pod in self._orphans.pop(name, {}).values():
                self.nodes[name].add(pod)
        if old is None or _may_help(old, node):
            self._retry_waiting()

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        uid, key = pod["metadata"]["uid"], key_of(pod)
        node = pod["spec"].get("nodeName")
        gone = change == "DELETED" or is_terminal(pod)
        if node:
            self._forget(key)
            self.nominated.pop(uid, None)
            if gone:
                self._release(uid, node)
                self._retry_waiting()
            else:
                self._occupy(pod, node)
                if old is None or not old["spec"].get("nodeName"):
                    self._retry_waiting(only_affine=True)
            return
        if gone or is_deleting(pod):
            self._forget(key)
            self.nominated.pop(uid, None)
            self._release(uid, self._assumed.get(uid, ""))
            return
        if pod["spec"].get("schedulerName", NAME) != self.name or pod["spec"].get("schedulingGates"):
            return
        spec_changed = old is None or old["spec"] != pod["spec"]
        if uid not in self._assumed and (spec_changed or change == "ADDED"):
            self._waiting.leave(key)
            self._enqueue(key, pod)

    def _enqueue(self, key: Key, pod: Object) -> None:
        self._queue.add(key, pod["spec"].get("priority") or 0)
        self._wake.set()

    def _occupy(self, pod: Object, node: str) -> None:
        uid = pod["metadata"]["uid"]
        assumed = self._assumed.pop(uid, None)
        if assumed and assumed != node:
            self._release(uid, assumed)
        if node in self.nodes:
            self.nodes[node].add(PodInfo(pod))
        else:
            self._orphans.setdefault(node, {})[uid] = PodInfo(pod)

    def _release(self, uid: str, node: str) -> None:
        self._assumed.pop(uid, None)
        if node in self.nodes:
            self.nodes[node].remove(uid)
        else:
            self._orphans.get(node, {}).pop(uid, None)

    def _forget(self, key: Key) -> None:
        self._queue.discard(key)
        self._waiting.forget(key)

    def _retry_waiting(self, only_affine: bool = False) -> None:
        """Something changed that may let a waiting pod run: each is tried again once its back-off is over."""
        self._waiting.release(self._again_after, only_affine=only_affine)

    def _again_after(self, key: Key, seconds: float) -> None:
        if seconds <= 0:
            self._requeue(key)
        else:
            asyncio.get_running_loop().call_later(seconds, self._requeue, key)

    def _requeue(self, key: Key) -> None:
        pod = self.pod_watch.objects.get(key)
        if pod and not pod["spec"].get("nodeName") and not is_deleting(pod):
            self._enqueue(key, pod)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self._retry_waiting()

    # One pod

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            key = self._queue.pop()
            pod = self.pod_watch.objects.get(key)
            if pod is None or pod["spec"].get("nodeName") or pod["metadata"]["uid"] in self._assumed:
                continue
            try:
                await self._schedule(PodInfo(pod))
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.info("scheduling %s/%s failed: %s", *key, error)
                self._later(self._again_soon(key))
            # Events must be read between pods even when the queue never runs dry.
            await asyncio.sleep(0)

    async def _again_soon(self, key: Key) -> None:
        await asyncio.sleep(_AGAIN)
        self._requeue(key)

    async def _schedule(self, pod: PodInfo) -> None:
        claim = missing_claim(pod.object)
        if claim is not None:
            text = f'0/{len(self.nodes)} nodes are available: persistentvolumeclaim "{claim}" not found. not found'
            await self._refuse(pod, text, None)
            return
        refusals: dict[str, Refusal] = {}
        fitting = []
        world, coming = World(pod, self.nodes.values()), self._coming(pod)
        for info in world.nodes:
            refusal = check(world, _with(info, coming[info.name]) if info.name in coming else info)
            if refusal is None:
                fitting.append(info)
            else:
                refusals[info.name] = refusal
        nominated = self.nominated.get(pod.uid)
        if fitting:
            chosen = best(pod, fitting)
            if nominated and nominated[0] in {info.name for info in fitting}:
                chosen = self.nodes[nominated[0]]
            self._assume(pod, chosen)
            self._later(self._bind(pod.object, chosen.name))
            return
        await self._make_room(pod, refusals)

    def _coming(self, pod: PodInfo) -> dict[str, list[PodInfo]]:
        """By node the pods of at least this priority that were promised room there."""
        found: dict[str, list[PodInfo]] = {}
        for uid, (node, other) in self.nominated.items():
            if uid != pod.uid and other.priority >= pod.priority:
                found.setdefault(node, []).append(other)
        return found

    def _assume(self, pod: PodInfo, info: NodeInfo) -> None:
        info.add(pod)
        self._assumed[pod.uid] = info.name

    def _later(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bind(self, pod: Object, node: str) -> None:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
            "target": {"kind": "Node", "name": node},
        }
        try:
            await self.client.create_subresource(PODS, name, namespace, "binding", binding)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            if self._assumed.get(metadata["uid"]) == node:
                self._release(metadata["uid"], node)
            log.info("binding %s/%s to %s failed: %s", namespace, name, node, error)
            await self._again_soon((namespace, name))
            return
        text = f"Successfully assigned {namespace}/{name} to {node}"
        self.events.action(pod, "Normal", "Scheduled", "Binding", text, None)

    async def _make_room(self, pod: PodInfo, refusals: dict[str, Refusal]) -> None:
        if pod.spec.get("preemptionPolicy") == "Never":
            text = failure_message(refusals, "not eligible due to preemptionPolicy=Never.")
            await self._refuse(pod, text, None)
            return
        promised = self.nominated.get(pod.uid)
        if promised and self._victims_are_leaving(pod, promised[0]):
            text = failure_message(refusals, "not eligible due to a terminating pod on the nominated node.")
            await self._refuse(pod, text, promised[0])
            return
        plan = plan_preemption(pod, self.nodes.values(), refusals, self._protected())
        if plan is None:
            await self._refuse(pod, failure_message(refusals, preemption_message(refusals)), None)
            return
        self.nominated[pod.uid] = (plan.node, pod)
        await self._evict(pod, plan)
        await self._refuse(pod, failure_message(refusals, None), plan.node)

    def _victims_are_leaving(self, pod: PodInfo, node: str) -> bool:
        info = self.nodes.get(node)
        return info is not None and any(
            is_deleting(other.object) and other.priority < pod.priority for other in info.pods.values()
        )

    def _protected(self) -> frozenset[str]:
        """Pods that no disruption budget can spare now."""
        tight = [
            budget
            for budget in self.budget_watch.objects.values()
            if not budget.get("status", {}).get("disruptionsAllowed")
        ]
        return frozenset(
            pod.uid
            for info in (self.nodes.values() if tight else ())
            for pod in info.pods.values()
            for budget in tight
            if budget["metadata"]["namespace"] == pod.namespace and pod.has_labels(budget["spec"].get("selector"))
        )

    async def _evict(self, pod: PodInfo, plan: Preemption) -> None:
        reason = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(),
            "reason": "PreemptionByScheduler",
            "message": f"{self.name}: preempting to accommodate a higher priority pod",
        }
        for victim in (one.object for one in plan.victims):
            if is_deleting(victim):
                continue
            metadata = victim["metadata"]
            name, namespace = metadata["name"], metadata["namespace"]
            patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [reason]}}
            await self.client.patch(PODS, name, namespace, patch, kind="strategic", subresource="status")
            await self.client.delete(PODS, name, namespace, uid=metadata["uid"])
            text = f"Preempted by pod {pod.uid} on node {plan.node}"
            self.events.action(victim, "Normal", "Preempted", "Preempting", text, pod.object)

    async def _refuse(self, info: PodInfo, message: str, nominated: str | None) -> None:
        """Tell why the pod waits, in an event and its PodScheduled condition, and keep it for later."""
        pod = info.object
        self._waiting.add(key_of(pod), affine=bool((info.spec.get("affinity") or {}).get("podAffinity")))
        if nominated is None:
            self.nominated.pop(info.uid, None)
        self.events.action(pod, "Warning", "FailedScheduling", "Scheduling", message, None)
        current = condition(pod, "PodScheduled") or {}
        same_node = pod.get("status", {}).get("nominatedNodeName") == nominated
        if current.get("status") == "False" and current.get("message") == message and same_node:
            return
        stamp = rfc3339() if current.get("status") != "False" else current["lastTransitionTime"]
        scheduled = {
            "type": "PodScheduled",
            "observedGeneration": pod["metadata"].get("generation", 1),
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": stamp,
            "reason": "Unschedulable",
            "message": message,
        }
        status: Object = {"conditions": [scheduled]}
        if not same_node:
            status["nominatedNodeName"] = nominated
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        metadata = pod["metadata"]
        try:
            await self.client.patch(
                PODS, metadata["name"], metadata["namespace"], patch, kind="strategic", subresource="status"
            )
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise


def _with(info: NodeInfo, coming: list[PodInfo]) -> NodeInfo:
    """The node as it will be once these pods have come."""
    info = info.copy()
    for other in coming:
        info.add(other)
    return info


def _may_help(old: Object, new: Object) -> bool:
    """Whether a change of a node may let a pod run that could not: more room, other labels, fewer taints."""
    before, after = old.get("spec", {}), new.get("spec", {})
    return (
        old.get("status", {}).get("allocatable") != new.get("status", {}).get("allocatable")
        or old["metadata"].get("labels") != new["metadata"].get("labels")
        or any(taint not in (after.get("taints") or ()) for taint in before.get("taints") or ())
        or (before.get("unschedulable", False) and not after.get("unschedulable"))
    )
