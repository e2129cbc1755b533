"""Celery tasks. Short and safe to repeat; arguments are ids, a missing row is a clean end, nothing ever waits."""

import logging
import uuid

import redis
from celery import shared_task
from django.utils import timezone
from kombu.exceptions import OperationalError

from deployments import cluster as clusters
from deployments.services import artifacts, scaling
from deployments.services.gpu import history
from deployments.tasks import cleaning, garbage, gpu, reconciling, requests, sweeping
from kube.errors import ClusterUnreachable

logger = logging.getLogger(__name__)

__all__ = [
    "autoscale",
    "collect_garbage",
    "reconcile",
    "remove_environments",
    "remove_unreferenced_files",
    "requests",
    "schedule_gpus",
    "sweep",
]


@shared_task(name="deployments.tasks.reconcile", ignore_result=True)
def reconcile(version_id: str, force: bool = False) -> None:
    """One pass over one version; ``force`` also takes back what other hands changed."""
    reconciling.reconcile(uuid.UUID(version_id), force=force)


@shared_task(name="deployments.tasks.collect_garbage", ignore_result=True)
def collect_garbage() -> None:
    """Remove what deleted rows owned in the cluster, and claims that are long over."""
    history.expire(timezone.now())
    try:
        garbage.collect(clusters.current(), timezone.now())
    except ClusterUnreachable as error:
        logger.warning("Garbage waits: %s", error)


@shared_task(name="deployments.tasks.remove_unreferenced_files", ignore_result=True)
def remove_unreferenced_files() -> None:
    """Delete uploads whose revisions and model versions are gone."""
    artifacts.remove_unreferenced()


@shared_task(name="deployments.tasks.remove_environments", ignore_result=True)
def remove_environments() -> None:
    """Take environments that nothing has needed for long from their volume."""
    try:
        cleaning.clean(clusters.current(), timezone.now())
    except ClusterUnreachable as error:
        logger.warning("Old environments wait: %s", error)


@shared_task(name="deployments.tasks.schedule_gpus", ignore_result=True)
def schedule_gpus() -> None:
    """Decide over all claims on GPUs anew."""
    try:
        gpu.schedule(clusters.current(), timezone.now())
    except ClusterUnreachable as error:
        logger.warning("The GPU queue waits: %s", error)


@shared_task(name="deployments.tasks.sweep", ignore_result=True)
def sweep() -> None:
    """Make good for every message that was lost."""
    now = timezone.now()
    try:
        sweeping.sweep(now)
        requests.recover(now)
    except (redis.RedisError, OperationalError) as error:
        logger.warning("The sweep waits for the broker: %s", error)
    sweeping.expire_requests()


@shared_task(name="deployments.tasks.autoscale", ignore_result=True)
def autoscale() -> None:
    """Move the wanted number of instances to what the load needs."""
    try:
        scaling.autoscale(timezone.now())
    except redis.RedisError as error:
        logger.warning("Scaling waits: %s", error)
