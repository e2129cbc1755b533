"""Node objects: the machine itself and simulated ones."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from localcluster.client import ApiError, Client, Object
from localcluster.quantity import canonical, format_binary, parse
from localcluster.resources import LEASES, NODES
from localcluster.times import micro, rfc3339

log = logging.getLogger(__name__)

SIMULATED = "pilothouse.io/simulated"
GPU = "nvidia.com/gpu"
LEASE_NAMESPACE = "kube-node-lease"
_PODS = 250  # OpenShift's default; upstream Kubernetes has 110
_HEARTBEAT = 10.0
_STATUS_EVERY = 30  # heartbeats
_CATCH_UP = 2.0
_REGISTER_AGAIN = 0.5
# Hundreds of simulated nodes in one process live and die together; their leases may be renewed rarely.
_SIMULATED_HEARTBEAT = 100.0
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node claims to have."""

    name: str
    cpus: str
    memory: str
    gpus: int = 0
    product: str = ""
    gpu_memory_mib: int = 0
    simulated: bool = False
    labels: dict[str, str] = field(default_factory=dict)


def parse_simulated(text: str) -> list[NodeSpec]:
    """Nodes of a SPEC: groups `COUNT:key=value,...` divided by `;`.

    Keys: cpu, memory, gpu (count), product (GPU label), gpumemory (MiB of one GPU), prefix (of the names) and
    label.KEY. Example: `4:cpu=32,memory=128Gi,gpu=8,product=NVIDIA-A100-SXM4-80GB;2:cpu=8,memory=32Gi`.
    ValueError names the group and what is wrong with it.
    """
    nodes: list[NodeSpec] = []
    taken: set[str] = set()
    for place, group in enumerate(part.strip() for part in text.split(";")):
        if not group:
            continue
        count_text, _, rest = group.partition(":")
        if not count_text.strip().isdigit():
            raise ValueError(f"simulated nodes: group {group!r} must start with a count, as in 4:cpu=8,memory=32Gi")
        options: dict[str, str] = {}
        for entry in filter(None, (part.strip() for part in rest.split(","))):
            key, equals, value = entry.partition("=")
            known = key in ("cpu", "memory", "gpu", "product", "gpumemory", "prefix") or key.startswith("label.")
            if not equals or not known:
                raise ValueError(
                    f"simulated nodes: {entry!r} is not one of cpu, memory, gpu, product, gpumemory, prefix, label.KEY"
                )
            options[key] = value
        prefix = options.get("prefix") or f"sim-{'gpu' if options.get('gpu') else 'cpu'}-{place}"
        for number in range(int(count_text)):
            name = f"{prefix}-{number}"
            if name in taken or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
                raise ValueError(f"simulated nodes: {name!r} is taken or not a name; give the group another prefix")
            taken.add(name)
            nodes.append(_simulated(name, options))
    return nodes


def _simulated(name: str, options: dict[str, str]) -> NodeSpec:
    cpu, memory = options.get("cpu", "8"), options.get("memory", "32Gi")
    try:
        parse(cpu), parse(memory)
        gpus, size = int(options.get("gpu", "0")), int(options.get("gpumemory", "0"))
    except ValueError as error:
        raise ValueError(f"simulated nodes: {name}: {error}") from error
    labels = {key.removeprefix("label."): value for key, value in options.items() if key.startswith("label.")}
    return NodeSpec(name, cpu, memory, gpus, options.get("product", ""), size, True, labels)


def machine_memory() -> str:
    return f"{psutil.virtual_memory().total // 1024}Ki"


def node_labels(spec: NodeSpec) -> dict[str, str]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = {
        "beta.kubernetes.io/arch": machine,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine,
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
    }
    if spec.simulated:
        labels[SIMULATED] = "true"
    if spec.gpus:
        labels["nvidia.com/gpu.present"] = "true"
        labels["nvidia.com/gpu.count"] = str(spec.gpus)
        if spec.product:
            labels["nvidia.com/gpu.product"] = spec.product
        if spec.gpu_memory_mib:
            labels["nvidia.com/gpu.memory"] = str(spec.gpu_memory_mib)
    return labels | spec.labels


def own_capacity(spec: NodeSpec) -> dict[str, str]:
    """What the kubelet itself can vouch for."""
    capacity = {
        "cpu": canonical(spec.cpus),
        "ephemeral-storage": format_binary(psutil.disk_usage("/").total // 1024 * 1024),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": canonical(spec.memory),
        "pods": str(_PODS),
    }
    if spec.gpus:
        capacity[GPU] = str(spec.gpus)
    return capacity


def node_status(
    spec: NodeSpec, old: Object, address: str, port: int, version: str, images: list[str], ready: bool = True
) -> Object:
    """The status to report; extended resources that others put into capacity become allocatable here."""
    stamp = rfc3339()
    before = {entry["type"]: entry for entry in old.get("conditions") or []}
    conditions = []
    for kind, status, reason, message in _CONDITIONS:
        if kind == "Ready" and not ready:
            status, reason, message = "False", "KubeletNotReady", "node is shutting down"
        known = before.get(kind)
        since = known["lastTransitionTime"] if known and known["status"] == status else stamp
        conditions.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            }
        )
    capacity = (old.get("capacity") or {}) | own_capacity(spec)
    return {
        "capacity": capacity,
        "allocatable": dict(capacity),
        "conditions": conditions,
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": spec.name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": _info(version),
        "images": [{"names": [name], "sizeBytes": 0} for name in images],
    }


def _info(version: str) -> Object:
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return {
        "machineID": machine,
        "systemUUID": machine,
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": os.uname().release,
        "osImage": _os_name(),
        "containerRuntimeVersion": "localcluster://1.0",
        "kubeletVersion": version,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


class NodeKeeper:
    """Registers nodes and keeps their leases and statuses fresh."""

    def __init__(self, client: Client, specs: list[NodeSpec], address: str, version: str) -> None:
        self.client = client
        self.specs = {spec.name: spec for spec in specs}
        self.address = address
        self.version = version
        self.port = 0
        self.images: list[str] = []
        self.nodes: dict[str, Object] = {}
        self._stale: set[str] = set()

    async def register(self) -> None:
        """Create or update all Node objects; returns when each has a Ready status."""
        limit = asyncio.Semaphore(16)

        async def one(spec: NodeSpec) -> None:
            while True:
                try:
                    async with limit:
                        await self._register(spec)
                        return
                except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                    log.warning("node %s cannot be registered yet: %s", spec.name, error)
                await asyncio.sleep(_REGISTER_AGAIN)

        await asyncio.gather(*(one(spec) for spec in self.specs.values()))

    async def _register(self, spec: NodeSpec) -> None:
        node = await self.client.get_or_none(NODES, spec.name)
        labels = node_labels(spec)
        if node is None:
            metadata = {
                "name": spec.name,
                "labels": labels,
                "annotations": {
                    "node.alpha.kubernetes.io/ttl": "0",  # written by a controller elsewhere
                    "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                },
            }
            try:
                node = await self.client.create(NODES, {"metadata": metadata, "spec": {}})
            except ApiError as error:
                if not error.is_exists:
                    raise
                node = await self.client.get(NODES, spec.name)
        have = node["metadata"].get("labels") or {}
        if labels.items() - have.items():
            node = await self.client.patch(NODES, spec.name, None, {"metadata": {"labels": labels}})
        self.nodes[spec.name] = await self.report(spec, node)
        await self._renew(spec)

    async def report(self, spec: NodeSpec, node: Object, ready: bool = True) -> Object:
        """Write the node's status; the answer."""
        old = node.get("status") or {}
        status = node_status(spec, old, self.address, self.port, self.version, self.images, ready)
        patch = {"status": status | {"$setElementOrder/conditions": [{"type": c[0]} for c in _CONDITIONS]}}
        return await self.client.patch(NODES, spec.name, None, patch, kind="strategic", subresource="status")

    async def _renew(self, spec: NodeSpec) -> None:
        beat = _SIMULATED_HEARTBEAT if spec.simulated else _HEARTBEAT
        lease = {
            "holderIdentity": spec.name,
            "leaseDurationSeconds": int(beat * 4),
            "renewTime": micro(),
        }
        try:
            await self.client.patch(LEASES, spec.name, LEASE_NAMESPACE, {"spec": lease})
        except ApiError as error:
            if not error.is_not_found:
                raise
            node = self.nodes[spec.name]["metadata"]
            owner = {"apiVersion": "v1", "kind": "Node", "name": spec.name, "uid": node["uid"]}
            metadata = {"name": spec.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]}
            await self.client.create(LEASES, {"metadata": metadata, "spec": lease})

    def on_node(self, change: str, node: Object, old: Object | None) -> None:
        """A watch saw one of our nodes."""
        name = node["metadata"]["name"]
        if name not in self.specs or change == "DELETED":
            return
        self.nodes[name] = node
        status = node.get("status", {})
        if (status.get("capacity") or {}).keys() - (status.get("allocatable") or {}).keys():
            self._stale.add(name)
        if any(one["type"] == "Ready" and one["status"] == "Unknown" for one in status.get("conditions") or ()):
            # Marked by the lease of the time before this start, or of a pause: it is heard again.
            self._stale.add(name)

    async def run(self) -> None:
        """Heartbeats until cancelled."""
        real = [spec for spec in self.specs.values() if not spec.simulated]
        simulated = [spec for spec in self.specs.values() if spec.simulated]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(real, _HEARTBEAT))
            group.create_task(self._catch_up())
            if simulated:
                group.create_task(self._beat(simulated, _SIMULATED_HEARTBEAT))

    async def _catch_up(self) -> None:
        """Make extended resources that others added to a node's capacity allocatable, and nodes ready again."""
        while True:
            await asyncio.sleep(_CATCH_UP)
            while self._stale:
                name = self._stale.pop()
                try:
                    await self.report(self.specs[name], self.nodes[name])
                except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                    log.warning("status of node %s: %s", name, error)

    async def _beat(self, specs: list[NodeSpec], period: float) -> None:
        beats = 0
        while True:
            await asyncio.sleep(period)
            beats += 1
            for spec in specs:
                try:
                    await self._renew(spec)
                    if beats % _STATUS_EVERY == 0:
                        await self.report(spec, self.nodes[spec.name])
                except ApiError as error:
                    if error.is_not_found:
                        # Somebody deleted the node: a running kubelet registers again.
                        await self._again(spec)
                    else:
                        log.warning("heartbeat of node %s: %s", spec.name, error)
                except (aiohttp.ClientError, TimeoutError) as error:
                    log.info("heartbeat of node %s: %s", spec.name, error)

    async def _again(self, spec: NodeSpec) -> None:
        try:
            await self._register(spec)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("node %s cannot be registered: %s", spec.name, error)
