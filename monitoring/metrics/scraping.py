"""Asking instances and the cluster for their numbers, many at once."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from deployments import cluster as clusters
from deployments.services.routing import Endpoint, address
from kube import specs
from kube.connect import Cluster
from kube.errors import ClusterUnreachable, KubeError
from kube.objects import quantity
from monitoring.metrics.exposition import LONGEST, Reading, read

logger = logging.getLogger(__name__)

AT_ONCE = 64
SECONDS = 3.0
POD_METRICS = "/apis/metrics.k8s.io/v1beta1/pods"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a pod's containers use together: ``cpu`` in cores, ``memory`` in bytes."""

    cpu: float
    memory: float


async def scrape(endpoints: Sequence[Endpoint]) -> dict[uuid.UUID, Reading]:
    """The numbers of those instances that answer in time."""
    read_ones = {key: read(text) for key, text in (await texts(endpoints)).items()}
    return {key: reading for key, reading in read_ones.items() if reading is not None}


async def texts(endpoints: Sequence[Endpoint]) -> dict[uuid.UUID, str]:
    """What is at ``/metrics``, up to `LONGEST` bytes, of those endpoints that answer in time."""
    if not endpoints:
        return {}
    ssl = None
    try:
        ssl = clusters.current().ssl_context()
    except ClusterUnreachable as error:
        logger.info("%s", error)  # pods may still be reached by their own addresses
    gate = asyncio.Semaphore(AT_ONCE)
    limits = aiohttp.ClientTimeout(total=SECONDS)
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl if ssl is not None else True)
    async with aiohttp.ClientSession(connector=connector, timeout=limits) as session:

        async def one(endpoint: Endpoint) -> str | None:
            try:
                base, headers = address(endpoint)
                async with gate, session.get(f"{base}/metrics", headers=headers) as answer:
                    if answer.status != 200:
                        return None
                    body = await answer.content.read(LONGEST)
                    while len(body) < LONGEST and (more := await answer.content.read(LONGEST - len(body))):
                        body += more
                    return body.decode("utf-8", "replace")
            except (aiohttp.ClientError, OSError, TimeoutError, ClusterUnreachable) as error:
                logger.debug("No numbers of %s: %s", endpoint.pod, error)
                return None

        found = await asyncio.gather(*(one(endpoint) for endpoint in endpoints))
    return {endpoint.instance_id: text for endpoint, text in zip(endpoints, found, strict=True) if text is not None}


def usage(cluster: Cluster) -> dict[tuple[str, str], Usage]:
    """What each of our pods uses, by namespace and name; nothing where the cluster has no metrics server."""
    try:
        answer = cluster.call("GET", POD_METRICS, query={"labelSelector": specs.SELECTOR})
    except (ClusterUnreachable, KubeError) as error:
        logger.debug("No usage of pods: %s", error)
        return {}
    found = {}
    for item in answer.get("items") or ():
        metadata, cpu, memory = item["metadata"], 0.0, 0.0
        for container in item.get("containers") or ():
            cpu += quantity(container["usage"].get("cpu", 0))
            memory += quantity(container["usage"].get("memory", 0))
        found[metadata.get("namespace", ""), metadata["name"]] = Usage(cpu, memory)
    return found
