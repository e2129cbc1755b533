"""Writing a pod's status: always the newest, one write at a time, never the same twice."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any

import aiohttp

from localcluster.client import ApiError, Client, Object
from localcluster.resources import PODS

log = logging.getLogger(__name__)

_RETRY = 1.0
# What the kubelet alone says of a pod; the node controller overwrites Ready when it loses sight of the node.
_OWN = frozenset({"Initialized", "ContainersReady", "Ready"})


class Reporter:
    """Calls `status()` after every `poke()` and writes the answer when it says something new."""

    def __init__(self, client: Client, status: Callable[[], tuple[Object, Object]]) -> None:
        self.client = client
        self._status = status
        self._dirty = asyncio.Event()
        self._idle = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._written: Object | None = None
        self._closed = False

    def poke(self) -> None:
        """The status may have changed."""
        self._idle.clear()
        self._dirty.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def seen(self, status: Object) -> None:
        """The API shows `status`: say ours again if somebody else has overwritten a condition of ours.

        As the kubelet's status manager does (`needsReconcile`). Silent while a write is under way: what is seen
        then may be older than that write.
        """
        if self._written is None or not self._idle.is_set():
            return
        if _conditions(status) != _conditions(self._written):
            self._written = None
            self.poke()

    async def next_change(self) -> None:
        """Wait for the next `poke`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def flushed(self) -> None:
        """Wait until the newest status is written (or the pod is gone)."""
        if not self._closed:
            await self._idle.wait()

    def close(self) -> None:
        """Write nothing more."""
        self._closed = True
        self._dirty.set()
        self._idle.set()

    async def run(self) -> None:
        while not self._closed:
            await self._dirty.wait()
            if self._closed:
                break
            self._dirty.clear()
            pod, status = self._status()
            shown = copy.deepcopy(status)  # containers change their states in place
            if shown != self._written:
                try:
                    await self._write(pod, shown)
                except ApiError as error:
                    if error.is_not_found or error.is_conflict:
                        self.close()
                        break
                    log.warning("status of pod %s: %s", pod["metadata"]["name"], error)
                    await self._again()
                    continue
                except (aiohttp.ClientError, TimeoutError) as error:
                    log.info("status of pod %s: %s", pod["metadata"]["name"], error)
                    await self._again()
                    continue
                self._written = shown
            if not self._dirty.is_set():
                self._idle.set()

    async def _again(self) -> None:
        self._dirty.set()
        await asyncio.sleep(_RETRY)

    async def _write(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        await self.client.patch(
            PODS,
            metadata["name"],
            metadata["namespace"],
            status_patch(metadata["uid"], status),
            kind="strategic",
            subresource="status",
        )


def _conditions(status: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status.get("conditions") or [] if one["type"] in _OWN}


def status_patch(uid: str, status: Object) -> Object:
    """A strategic merge patch for the status: conditions merge by type, so their lost fields are named null."""
    conditions: list[Any] = []
    for condition in status.get("conditions") or []:
        conditions.append({"reason": None, "message": None} | condition)
    patch = dict(status)
    if conditions:
        patch["conditions"] = conditions
        patch["$setElementOrder/conditions"] = [{"type": condition["type"]} for condition in conditions]
    return {"metadata": {"uid": uid}, "status": patch}
