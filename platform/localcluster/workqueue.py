"""Work queue of keys for level-triggered controllers (client-go's rate limiting queue, on asyncio)."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import aiohttp

from localcluster.client import ApiError

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
_FIRST_DELAY = 0.005
_LAST_DELAY = 30.0


class WorkQueue(Generic[K]):
    """Runs `sync(key)` for added keys: never twice at once for one key, again if it was added meanwhile.

    A failing sync is retried with exponential back-off; conflicts and missing objects are ordinary and quiet.
    """

    def __init__(self, name: str, sync: Callable[[K], Awaitable[None]], workers: int = 8) -> None:
        self.name = name
        self._sync = sync
        self._workers = workers
        self._waiting: dict[K, None] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self._timer = asyncio.Event()

    def add(self, key: K) -> None:
        """Sync `key` as soon as a worker is free."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = None
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Sync `key` after some seconds; of several the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = time.monotonic() + seconds
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._later, (due, self._count, key))
        self._timer.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._delays())
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _delays(self) -> None:
        while True:
            self._timer.clear()
            while self._later and self._later[0][0] <= time.monotonic():
                due, _, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    del self._due[key]
                    self.add(key)
            wait = self._later[0][0] - time.monotonic() if self._later else None
            try:
                await asyncio.wait_for(self._timer.wait(), wait)
            except TimeoutError:
                continue

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._running.add(key)
            try:
                await self._attempt(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _attempt(self, key: K) -> None:
        try:
            await self._sync(key)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            quiet = isinstance(error, ApiError) and (error.is_conflict or error.is_not_found)
            log.log(logging.DEBUG if quiet else logging.WARNING, "%s %s: %s; trying again", self.name, key, error)
            self._retry(key)
        except Exception:
            log.exception("%s %s failed; trying again", self.name, key)
            self._retry(key)
        else:
            self._failures.pop(key, None)

    def _retry(self, key: K) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(_LAST_DELAY, _FIRST_DELAY * 2**failures))
