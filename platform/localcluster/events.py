"""Recording v1 Events the way Kubernetes' components do.

Controllers and the kubelet count repeats (`count`, first/lastTimestamp); the scheduler writes the newer shape
(`eventTime`, `action`, repeats in `series`). Repeats of one message update one object; many different messages of
one kind about one object collapse into "(combined from similar events): ..." as client-go's aggregator does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from localcluster.client import ApiError, Client, Object
from localcluster.resources import EVENTS
from localcluster.times import micro, now, rfc3339

log = logging.getLogger(__name__)

_AGGREGATE_AFTER = 10  # different messages within the window before they are combined
_AGGREGATE_WINDOW = 600.0  # seconds
_REMEMBERED = 4096
_QUEUE = 1000  # events waiting to be written; more are dropped, as events are best effort


def reference(obj: Object, field_path: str | None = None) -> Object:
    """An ObjectReference to `obj` for `involvedObject`."""
    metadata = obj["metadata"]
    ref = {
        "kind": obj.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata["name"],
        "uid": metadata.get("uid"),
        "apiVersion": obj.get("apiVersion"),
        "resourceVersion": metadata.get("resourceVersion"),
        "fieldPath": field_path,
    }
    return {key: value for key, value in ref.items() if value}


@dataclass(slots=True)
class _Group:
    messages: set[str] = field(default_factory=set)
    since: float = 0.0


class Recorder:
    """Queues events and writes them in order from `run()`; recording never blocks or raises."""

    def __init__(self, client: Client, component: str, host: str | None = None) -> None:
        self.client = client
        self.component = component
        self.host = host
        self._queue: asyncio.Queue[tuple[bool, Object, str, str, str, str, Any]] = asyncio.Queue(_QUEUE)
        self._written: OrderedDict[tuple[str, ...], Object] = OrderedDict()
        self._groups: OrderedDict[tuple[str, ...], _Group] = OrderedDict()

    def normal(self, obj: Object, reason: str, message: str, field_path: str | None = None) -> None:
        self._put(False, reference(obj, field_path), "Normal", reason, message, "", None)

    def warning(self, obj: Object, reason: str, message: str, field_path: str | None = None) -> None:
        self._put(False, reference(obj, field_path), "Warning", reason, message, "", None)

    def action(self, obj: Object, kind: str, reason: str, action: str, message: str, related: Object | None) -> None:
        """Record in the newer shape: `kind` is Normal or Warning, `related` a second object."""
        self._put(True, reference(obj), kind, reason, message, action, related and reference(related))

    def _put(self, *entry: Any) -> None:
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            log.warning("event %s is dropped: %d are waiting to be written", entry[3], _QUEUE)

    async def run(self) -> None:
        """Write queued events until cancelled."""
        while True:
            entry = await self._queue.get()
            try:
                await self._write(*entry)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.debug("event %s was not written: %s", entry[3], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until everything recorded so far is written or given up."""
        await self._queue.join()

    async def _write(
        self, newer: bool, ref: Object, kind: str, reason: str, message: str, action: str, related: Any
    ) -> None:
        combined = not newer and self._is_combined(ref, kind, reason, message)
        if combined:
            message = f"(combined from similar events): {message}"
        key = (ref.get("uid") or "", ref.get("fieldPath") or "", kind, reason, "" if combined else message)
        known = self._written.pop(key, None)
        saved = None
        if known is not None:
            saved = await self._repeat(known, newer, message)
        if saved is None:
            saved = await self.client.create(EVENTS, self._event(newer, ref, kind, reason, message, action, related))
        self._written[key] = saved
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    def _is_combined(self, ref: Object, kind: str, reason: str, message: str) -> bool:
        """Whether so many different messages came before that this one goes into their common event."""
        key = (ref.get("uid") or "", kind, reason)
        group = self._groups.pop(key, None)
        instant = time.monotonic()
        if group is None or instant - group.since > _AGGREGATE_WINDOW:
            group = _Group()
        group.since = instant
        group.messages.add(message)
        self._groups[key] = group
        while len(self._groups) > _REMEMBERED:
            self._groups.popitem(last=False)
        if len(group.messages) > _AGGREGATE_AFTER:
            group.messages.pop()
        return len(group.messages) >= _AGGREGATE_AFTER

    async def _repeat(self, known: Object, newer: bool, message: str) -> Object | None:
        moment = now()
        if newer:
            count = (known.get("series") or {}).get("count", 1) + 1
            patch: Object = {"series": {"count": count, "lastObservedTime": micro(moment)}}
        else:
            patch = {"count": known.get("count", 1) + 1, "lastTimestamp": rfc3339(moment), "message": message}
        metadata = known["metadata"]
        try:
            return await self.client.patch(EVENTS, metadata["name"], metadata["namespace"], patch, kind="strategic")
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    def _event(
        self, newer: bool, ref: Object, kind: str, reason: str, message: str, action: str, related: Any
    ) -> Object:
        moment = now()
        namespace = ref.get("namespace") or "default"
        event: Object = {
            "metadata": {"name": f"{ref['name']}.{time.time_ns():x}", "namespace": namespace},
            "involvedObject": ref,
            "reason": reason,
            "message": message,
            "type": kind,
            "reportingComponent": self.component,
        }
        if newer:
            event |= {
                "source": {},
                "firstTimestamp": None,
                "lastTimestamp": None,
                "eventTime": micro(moment),
                "action": action,
                "reportingInstance": f"{self.component}-{self.host}" if self.host else self.component,
            }
            if related:
                event["related"] = related
            return event
        source = {"component": self.component}
        if self.host:
            source["host"] = self.host
        stamp = rfc3339(moment)
        return event | {
            "source": source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "eventTime": None,
            "count": 1,
            "reportingInstance": self.host or "",
        }
