"""The kubelet: takes the pods of its nodes in, hands each to a worker, and ends what is not wanted any more."""

from __future__ import annotations

import asyncio
import logging
import shutil

import aiohttp

from localcluster.client import ApiError, Object
from localcluster.kubelet.attempts import PodRecord
from localcluster.kubelet.host import Host
from localcluster.kubelet.nodes import GPU, NodeKeeper
from localcluster.kubelet.pod import PodWorker
from localcluster.kubelet.processes import Shim
from localcluster.pods import is_deleting, is_terminal
from localcluster.resources import PODS
from localcluster.scheduler.resources import amounts, pod_requests
from localcluster.times import rfc3339
from localcluster.watcher import Watcher

log = logging.getLogger(__name__)


class Agent:
    """One for all nodes of the process; pods are found by spec.nodeName."""

    def __init__(self, host: Host, keeper: NodeKeeper) -> None:
        self.host = host
        self.keeper = keeper
        self.workers: dict[str, PodWorker] = {}
        names = list(keeper.specs)
        selector = f"spec.nodeName={names[0]}" if len(names) == 1 else "spec.nodeName!="
        self.pods = Watcher(host.client, PODS, field_selector=selector, handler=self._on_pod)
        self._started = False

    def worker_of(self, namespace: str, name: str) -> PodWorker | None:
        pod = self.pods.get(namespace, name)
        return self.workers.get(pod["metadata"]["uid"]) if pod else None

    async def begin(self) -> None:
        """Once the first list is here: end what an earlier run left and nobody wants any more."""
        await self.pods.synced()
        root = self.host.data / "pods"
        wanted = {obj["metadata"]["uid"] for obj in self.pods.objects.values()}
        for directory in root.iterdir() if root.is_dir() else ():
            record = PodRecord(self.host.data, directory.name)
            if directory.name not in wanted:
                await self._end_orphan(record)
            elif known := record.read():
                # Before any new pod gets one: addresses in use stay where they are.
                self.host.addresses.allocate(known["address"])
        self._started = True
        for pod in list(self.pods.objects.values()):
            self._take(pod)

    async def _end_orphan(self, record: PodRecord) -> None:
        """Kill the processes of a pod whose object has gone, then forget it."""
        containers = record.directory / "containers"
        for directory in containers.glob("*/*") if containers.is_dir() else ():
            shim = await Shim.find(directory)
            if shim is not None:
                log.info("ending a container of pod %s, which is gone", record.uid)
                shim.kill()
                await shim.wait()
        record.remove()

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        if not self._started or pod["spec"].get("nodeName") not in self.keeper.specs:
            return
        uid = pod["metadata"]["uid"]
        if change == "DELETED":
            worker = self.workers.pop(uid, None)
            if worker is not None:
                worker.update(pod)
                self.host.spawn(worker.vanish())
            return
        self._take(pod)

    def _take(self, pod: Object) -> None:
        node_name = pod["spec"].get("nodeName")
        if node_name not in self.keeper.specs:
            return
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if worker is None:
            worker = self._admit(pod)
            if worker is None:
                return
            self.workers[uid] = worker
            if is_terminal(pod):
                worker.ended = True
            elif not is_deleting(pod):
                worker.start()
            else:
                self.host.spawn(self._resume_and_stop(worker))
                return
        else:
            worker.update(pod)
        if is_deleting(pod):
            worker.stop(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    async def _resume_and_stop(self, worker: PodWorker) -> None:
        """A pod that was deleted while no kubelet ran: find its containers, then stop them."""
        self.host.spawn(worker.reporter.run())
        known = worker.record.read()
        if known:
            worker.address = self.host.addresses.allocate(known["address"])
            for container in [*worker.init, *worker.main]:
                await container.recover()
        worker.stop(float(worker.pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    # Admission

    def _admit(self, pod: Object) -> PodWorker | None:
        """A worker for the pod, None when the node cannot take it (the pod is told so)."""
        node = self.keeper.nodes[pod["spec"]["nodeName"]]
        record = PodRecord(self.host.data, pod["metadata"]["uid"])
        if record.exists or is_terminal(pod) or is_deleting(pod):
            return PodWorker(self.host, node, pod, record.read().get("devices") or {})
        refusal = self._refusal(pod, node)
        if refusal is not None:
            self.host.spawn(self._reject(pod, *refusal))
            return None
        return PodWorker(self.host, node, pod, self._devices(pod, node))

    def _on_node(self, name: str, pod: Object) -> list[PodWorker]:
        return [
            worker
            for worker in self.workers.values()
            if worker.pod["spec"].get("nodeName") == name
            and worker.uid != pod["metadata"]["uid"]
            and not is_terminal(worker.pod)
            and not worker.ended
        ]

    def _refusal(self, pod: Object, node: Object) -> tuple[str, str] | None:
        """(reason, message) in the kubelet's words when the node has not enough."""
        allocatable = amounts(node.get("status", {}).get("allocatable"))
        others = self._on_node(node["metadata"]["name"], pod)
        if len(others) + 1 > allocatable.get("pods", 0):
            message = (
                f"Node didn't have enough resource: pods, requested: 1, used: {len(others)}, "
                f"capacity: {allocatable.get('pods', 0)}"
            )
            return "OutOfpods", message
        used: dict[str, int] = {}
        for worker in others:
            for name, amount in pod_requests(worker.pod).items():
                used[name] = used.get(name, 0) + amount
        for name, amount in sorted(pod_requests(pod).items()):
            capacity = allocatable.get(name, 0)
            if amount and amount + used.get(name, 0) > capacity:
                message = (
                    f"Node didn't have enough resource: {name}, requested: {amount}, "
                    f"used: {used.get(name, 0)}, capacity: {capacity}"
                )
                return f"OutOf{name}", message
        return None

    async def _reject(self, pod: Object, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        self.host.recorder(pod["spec"]["nodeName"]).warning(pod, reason, message)
        status = {
            "observedGeneration": metadata.get("generation", 1),
            "phase": "Failed",
            "reason": reason,
            "message": f"Pod was rejected: {message}",
            "startTime": rfc3339(),
        }
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        while True:
            try:
                await self.host.client.patch(
                    PODS, metadata["name"], metadata["namespace"], patch, kind="merge", subresource="status"
                )
            except (aiohttp.ClientError, TimeoutError) as error:
                log.info("pod %s cannot be told that it is rejected yet: %s", metadata["name"], error)
            except ApiError as error:
                if not (error.is_not_found or error.is_conflict):
                    log.warning("pod %s cannot be rejected: %s", metadata["name"], error)
                return
            else:
                return
            await asyncio.sleep(1.0)

    def _devices(self, pod: Object, node: Object) -> dict[str, list[str]]:
        """Which GPUs the pod gets: the lowest free numbers."""
        count = pod_requests(pod).get(GPU, 0)
        if not count:
            return {}
        taken = {
            number for worker in self._on_node(node["metadata"]["name"], pod) for number in worker.devices.get(GPU, [])
        }
        capacity = amounts(node.get("status", {}).get("allocatable")).get(GPU, 0)
        free = [str(number) for number in range(capacity) if str(number) not in taken]
        return {GPU: free[:count]}

    # Ending

    async def leave(self, keep: bool) -> None:
        """The kubelet ends: all pods end too unless `keep`."""
        await asyncio.gather(*(worker.leave(keep) for worker in self.workers.values()), return_exceptions=True)
        if not keep:
            for worker in self.workers.values():
                for container in [*worker.main, *worker.init]:
                    if container.shim is not None:
                        container.shim.kill()
                if worker.record.memory is not None:
                    shutil.rmtree(worker.record.memory, ignore_errors=True)
            for directory in (self.host.data / "pods").glob("*/containers/*/*/root"):
                shutil.rmtree(directory, ignore_errors=True)
