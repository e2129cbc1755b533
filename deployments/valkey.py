"""The shared memory of all processes: short-lived flags and counters, never the truth."""

import functools
import os

import redis
from django.conf import settings


@functools.lru_cache(maxsize=4)
def _client(owner: int) -> "redis.Redis":
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2)


def client() -> "redis.Redis":
    """A thread-safe client with its own connections per process."""
    return _client(os.getpid())
