"""Whether the parts that every request needs answer."""

import logging

from django.core.cache import cache
from django.db import Error, connection
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


def failing_parts() -> list[str]:
    """Names of the parts that do not answer; empty when all do."""
    failing = []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        logger.warning("the database does not answer", exc_info=True)
        failing.append("database")
    try:
        cache.get("health")
    except RedisError:
        logger.warning("the broker does not answer", exc_info=True)
        failing.append("broker")
    return failing
