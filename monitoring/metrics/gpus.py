"""What pods do with their GPUs, as NVIDIA's DCGM exporters tell it.

An exporter runs on each node and names the pod that a device was given to, so that a device which containers share is
told for one of them only. Of MIG slices the share of active engines stands for the use, since devices give none.
Source: https://github.com/NVIDIA/dcgm-exporter and https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from deployments.services.routing import Endpoint
from kube.connect import Cluster
from kube.errors import ClusterUnreachable, KubeError
from monitoring.metrics import scraping
from monitoring.metrics.exposition import samples

MIB = 2**20
# Per cent of use below which a device is idle: drivers and health checks keep it from being nothing at all.
IDLE_SHARE = 0.01
_POD = ("exported_pod", "pod", "pod_name")
_NAMESPACE = ("exported_namespace", "namespace", "pod_namespace")


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """A pod's measured ``devices``, how many of them were at work (two at 50% are one), and their bytes in use."""

    devices: int = 0
    busy: float = 0
    memory: float = 0

    @property
    def idle(self) -> bool:
        return self.busy <= IDLE_SHARE * self.devices


Usages = dict[tuple[str, str], GpuUsage]


async def usage(endpoints: Iterable[Endpoint]) -> Usages:
    """What each pod uses, by namespace and name, of those exporters that answer."""
    found: Usages = {}
    for text in (await scraping.texts(list(endpoints))).values():
        found |= parse(text)
    return found


def exporters(cluster: Cluster) -> list[Endpoint]:
    """The exporters' pods that run. None where there are none, or where we may not look."""
    try:
        pods = cluster.find("Pod", labels=settings.PILOTHOUSE_GPU_EXPORTER_SELECTOR, fields="status.phase=Running")
    except (ClusterUnreachable, KubeError) as error:
        scraping.logger.debug("No exporters of GPU numbers: %s", error)
        return []
    return [
        Endpoint(
            uuid.UUID(pod["metadata"]["uid"]),
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
            (pod.get("status") or {}).get("podIP") or "",
            settings.PILOTHOUSE_GPU_EXPORTER_PORT,
        )
        for pod in pods
        if (pod.get("status") or {}).get("podIP")
    ]


def parse(text: str) -> Usages:
    """Usage by namespace and pod from an exporter's text; devices that no pod holds are left out."""
    use: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    engines: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    memory: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for name, labels, value in samples(text):
        table = {
            "DCGM_FI_DEV_GPU_UTIL": use,
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": engines,
            "DCGM_FI_DEV_FB_USED": memory,
        }.get(name)
        pod = (_first(labels, _NAMESPACE), _first(labels, _POD))
        if table is None or not pod[1]:
            continue
        device = (labels.get("UUID") or labels.get("gpu", ""), labels.get("GPU_I_ID", ""))
        table.setdefault(pod, {})[device] = value / 100 if table is use else value * (MIB if table is memory else 1)
    found = {}
    for pod in {*use, *engines}:
        whole = {device: share for device, share in use.get(pod, {}).items() if not device[1]}
        shares = {**engines.get(pod, {}), **whole} or use.get(pod, {})
        busy = sum(min(max(share, 0.0), 1.0) for share in shares.values())
        found[pod] = GpuUsage(len(shares), busy, sum(memory.get(pod, {}).get(device, 0.0) for device in shares))
    return found


def _first(labels: dict[str, str], names: tuple[str, ...]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")
