"""Telling pages that something changed. Hints only: the database is the truth and a lost hint costs a moment."""

import logging
import uuid
from typing import Any

import redis
from channels.layers import get_channel_layer

from deployments import background, valkey

logger = logging.getLogger(__name__)

# What processes listen to that send requests to instances; the message is a version's id.
INSTANCES = "pilothouse:instances"


def group(kind: str, key: uuid.UUID | str) -> str:
    """The channel-layer group of one object: ``project``, ``deployment`` or ``version`` and its id."""
    return f"{kind}-{key}"


def changed(version_id: uuid.UUID, deployment_id: uuid.UUID, project_id: uuid.UUID) -> None:
    """Hint that what is known of a version changed, to those who look at it, its deployment or its project."""
    message = {
        "type": "changed",
        "version": str(version_id),
        "deployment": str(deployment_id),
        "project": str(project_id),
    }
    groups = [group("version", version_id), group("deployment", deployment_id), group("project", project_id)]
    background.submit(_send(groups, message))
    try:
        valkey.client().publish(INSTANCES, str(version_id))
    except redis.RedisError as error:
        logger.info("A hint about instances was lost: %s", error)


async def _send(groups: list[str], message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    try:
        for name in groups:
            await layer.group_send(name, message)
    except Exception as error:  # any broker trouble: pages poll when their socket is quiet
        logger.info("A live hint was lost: %s", error)
