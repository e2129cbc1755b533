"""What the container before a restart wrote last, straight from the cluster."""

import aiohttp

from accounts.errors import Unavailable
from deployments import background
from deployments import cluster as clusters
from deployments.models import Instance
from kube.connect import Cluster
from kube.errors import ClusterUnreachable
from kube.logs import Line, read
from monitoring.containers import SERVING

LARGEST = 1 << 20
MOST_LINES = 5000


def previous_lines(instance: Instance) -> list[Line]:
    """The last lines of the container before the present one; none when it did not restart. Raises Unavailable."""
    namespace = instance.version.deployment.project.namespace
    try:
        found = background.run(_read(clusters.current(), namespace, instance.pod_name), timeout=30)
    except ClusterUnreachable as error:
        raise Unavailable(f"The log cannot be read: {error}", code="cluster_unreachable", retry_after=10) from None
    return found[-MOST_LINES:]


async def _read(cluster: Cluster, namespace: str, pod: str) -> list[Line]:
    ssl = cluster.ssl_context()
    connector = aiohttp.TCPConnector(ssl=ssl if ssl is not None else True)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await read(session, cluster, namespace, pod, SERVING, limit_bytes=LARGEST, previous=True)
