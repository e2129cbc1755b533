"""Waking the reconciler from outside a transaction. A lost wake-up is made good by the sweep."""

import logging
import uuid

import redis
from celery import current_app
from kombu.exceptions import OperationalError

from deployments import valkey

logger = logging.getLogger(__name__)

RECONCILE = "deployments.tasks.reconcile"
SCHEDULE_GPUS = "deployments.tasks.schedule_gpus"
# A wake-up that is queued covers all that happen until it runs. Its mark must not outlive a lost message for long.
QUEUED_SECONDS = 20


_GPUS = "pilothouse:queued:gpus"


def _mark(version_id: uuid.UUID | str, later: bool) -> str:
    return f"pilothouse:{'later' if later else 'queued'}:{version_id}"


def wake(version_id: uuid.UUID | str, *, countdown: float = 0, force: bool = False) -> bool:
    """Queue a pass over a version unless one is queued already; False when it was or the broker is away."""
    try:
        fresh = valkey.client().set(_mark(version_id, countdown > 0), "1", nx=True, ex=QUEUED_SECONDS)
        if not fresh and not force:
            return False
        arguments = {"force": True} if force else {}
        current_app.send_task(RECONCILE, [str(version_id)], arguments, countdown=countdown or None, retry=False)
    except (redis.RedisError, OperationalError) as error:
        logger.warning("Could not queue a pass over version %s, left to the sweep: %s", version_id, error)
        return False
    return True


def schedule_gpus() -> bool:
    """Queue a pass over all GPU claims unless one is queued already; False when it was or the broker is away."""
    try:
        if not valkey.client().set(_GPUS, "1", nx=True, ex=QUEUED_SECONDS):
            return False
        current_app.send_task(SCHEDULE_GPUS, retry=False)
    except (redis.RedisError, OperationalError) as error:
        logger.warning("Could not queue a pass over GPU claims, left to the schedule: %s", error)
        return False
    return True


def gpus_started() -> None:
    """A pass over GPU claims begins: what changes from now on needs another."""
    try:
        valkey.client().delete(_GPUS)
    except redis.RedisError as error:
        logger.debug("The mark of the GPU pass stays until it expires: %s", error)


def started(version_id: uuid.UUID | str) -> None:
    """A pass begins: whatever happens from now on needs another."""
    try:
        valkey.client().delete(_mark(version_id, False), _mark(version_id, True))
    except redis.RedisError as error:
        logger.debug("Marks of %s stay until they expire: %s", version_id, error)
