"""The GPU pass as a task: what is read from the cluster, then one transaction."""

import datetime as dt
import logging

from django.conf import settings

from deployments import triggers
from deployments.models import GpuFlavor
from deployments.services.gpu import passing
from kube.connect import Cluster
from kube.errors import KubeError

logger = logging.getLogger(__name__)


def schedule(cluster: Cluster, now: dt.datetime) -> passing.Done | None:
    """One pass; None when there is nothing to govern or another is under way.

    Pods are read before the pass takes its lock, so that a slow API server holds nobody up. What changes meanwhile is
    seen by the next pass, and until then the cluster's own scheduler over-commits no node.
    Raises `kube.errors.ClusterUnreachable`.
    """
    triggers.gpus_started()
    if not GpuFlavor.objects.exists():
        return None
    pods = cluster.find("Pod", fields="status.phase!=Succeeded,status.phase!=Failed")
    seen = passing.Cluster(settings.PILOTHOUSE_CLUSTER_NAME, pods, _budgets(cluster))
    return passing.run(seen, now)


def _budgets(cluster: Cluster) -> list[dict[str, object]]:
    try:
        return cluster.find("PodDisruptionBudget")
    except KubeError as error:
        # Not allowed to read them: the cluster itself refuses an eviction that breaks one.
        logger.info("PodDisruptionBudgets are not considered: %s", error)
        return []
