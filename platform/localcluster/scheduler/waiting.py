"""Pods that wait for the scheduler: those to be tried next, and those that were refused."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

from localcluster.watcher import Key

_FIRST_BACKOFF = 1.0
_LAST_BACKOFF = 10.0


class Queue:
    """The pods to be tried, highest priority first and among equals the first that came."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Key]] = []
        self._places: dict[Key, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, key: Key, priority: int) -> None:
        """Queue a pod; one that is queued already keeps its place."""
        if key not in self._places:
            self._count += 1
            self._places[key] = self._count
            heapq.heappush(self._heap, (-priority, self._count, key))

    def discard(self, key: Key) -> None:
        self._places.pop(key, None)

    def pop(self) -> Key:
        """Take the next pod; KeyError when there is none."""
        while self._heap:
            _, place, key = heapq.heappop(self._heap)
            if self._places.get(key) == place:
                del self._places[key]
                return key
        raise KeyError("no pod is queued")


class Waiting:
    """Pods that found no node, each with its back-off; those with affinity to other pods are known apart."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}
        self._affine: dict[Key, None] = {}
        self._attempts: dict[Key, int] = {}

    def add(self, key: Key, *, affine: bool) -> None:
        """A pod was refused once more. `affine`: a pod that comes to a node may help it."""
        self._attempts[key] = self._attempts.get(key, 0) + 1
        self._since[key] = time.monotonic()
        if affine:
            self._affine[key] = None

    def leave(self, key: Key) -> None:
        """A pod waits no longer, but is remembered as refused before."""
        self._since.pop(key, None)
        self._affine.pop(key, None)

    def forget(self, key: Key) -> None:
        """A pod has a node or is gone."""
        self.leave(key)
        self._attempts.pop(key, None)

    def release(self, again: Callable[[Key, float], None], *, only_affine: bool = False) -> None:
        """Something changed that may help: `again(key, seconds)` for every pod, with what is left of its back-off."""
        instant = time.monotonic()
        for key in list(self._affine if only_affine else self._since):
            delay = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2 ** (self._attempts.get(key, 1) - 1))
            left = self._since[key] + delay - instant
            self.leave(key)
            again(key, left)
