"""Who is busy: requests under way per version, counted in every process and summed in Valkey.

Counting costs the request path nothing but a dictionary; each process publishes its own numbers once a second.
A process that dies takes its numbers with it, because old numbers are not believed.
"""

import logging
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import redis

from deployments import valkey

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 1.0
BELIEVE_SECONDS = 5.0


def _key(version_id: uuid.UUID | str) -> str:
    return f"pilothouse:load:{version_id}"


def _last_key(version_id: uuid.UUID | str) -> str:
    return f"pilothouse:last:{version_id}"


class Meter:
    """Counts of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[uuid.UUID] = Counter()
        self._seen: dict[uuid.UUID, float] = {}
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._name = ""

    def begin(self, version_id: uuid.UUID) -> None:
        with self._lock:
            self._running[version_id] += 1
            self._seen[version_id] = time.time()
            if self._owner != os.getpid():
                self._owner = os.getpid()
                self._name = f"{os.uname().nodename}-{self._owner}-{uuid.uuid4().hex[:6]}"
                threading.Thread(target=self._run, name="load-meter", daemon=True).start()

    def end(self, version_id: uuid.UUID) -> None:
        with self._lock:
            self._running[version_id] -= 1
            self._seen[version_id] = time.time()

    def _run(self) -> None:
        while True:
            time.sleep(PUBLISH_SECONDS)  # a thread of its own: no request and no task waits here
            try:
                self.publish()
            except redis.RedisError as error:
                logger.info("Load is not published: %s", error)

    def publish(self) -> None:
        """Send the counts of versions that have, or just had, requests under way."""
        with self._lock:
            counts = {key: (self._running[key], seen) for key, seen in self._seen.items()}
            for key, (running, _) in counts.items():
                if running <= 0:
                    # Said once more below, as zero, then forgotten.
                    del self._running[key], self._seen[key]
        if not counts:
            return
        now = time.time()
        with valkey.client().pipeline(transaction=False) as pipe:
            for key, (running, seen) in counts.items():
                pipe.hset(_key(key), self._name, f"{running}:{now:.3f}")
                pipe.expire(_key(key), 60)
                pipe.set(_last_key(key), f"{now if running else seen:.3f}", ex=86400)
            pipe.execute()


METER = Meter()


@dataclass(frozen=True, slots=True)
class Busy:
    """Requests under way, and the Unix time of the latest request (0: not known)."""

    running: int = 0
    last: float = 0.0


def read(version_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Busy]:
    """The load of versions over all processes. Raises redis.RedisError."""
    keys = list(version_ids)
    if not keys:
        return {}
    with valkey.client().pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(_key(key))
            pipe.get(_last_key(key))
        answers = pipe.execute()
    now = time.time()
    result = {}
    for number, key in enumerate(keys):
        counts, last = answers[2 * number], answers[2 * number + 1]
        running = 0
        for value in counts.values():
            count, _, at = value.decode().partition(":")
            if now - float(at) <= BELIEVE_SECONDS:
                running += int(count)
        result[key] = Busy(running, float(last) if last else 0.0)
    return result
