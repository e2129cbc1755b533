"""A local copy of a resource that follows the API server (what client-go calls an informer)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Literal

import aiohttp

from localcluster.client import ApiError, Client, Object
from localcluster.resources import Resource

log = logging.getLogger(__name__)

Change = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str]
Handler = Callable[[Change, Object, Object | None], None]


def key_of(obj: Object) -> Key:
    """(namespace, name); the namespace of a cluster-wide object is ''."""
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class Watcher:
    """Lists, then watches, and keeps `objects` up to date.

    Handlers are called in order with (change, object, previous object); they must not block or raise,
    and must not change the objects: these are shared. A deletion missed while disconnected is reported as
    DELETED with the last known object. `run()` goes on until cancelled, through lost
    connections and compactions.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        handler: Handler | None = None,
    ) -> None:
        self.client = client
        self.resource = resource
        self.namespace = namespace
        self.label_selector = label_selector
        self.field_selector = field_selector
        self.objects: dict[Key, Object] = {}
        self.handlers: list[Handler] = [handler] if handler else []
        self._synced = asyncio.Event()
        self._version: str | None = None

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every later change; objects already known are replayed as ADDED at once."""
        self.handlers.append(handler)
        for obj in list(self.objects.values()):
            handler("ADDED", obj, None)

    def get(self, namespace: str, name: str) -> Object | None:
        return self.objects.get((namespace, name))

    def in_namespace(self, namespace: str) -> list[Object]:
        return [obj for (where, _), obj in self.objects.items() if where == namespace]

    async def synced(self) -> None:
        """Wait for the first complete list."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        failures = 0
        while True:
            try:
                if self._version is None:
                    await self._relist()
                await self._follow()
                failures = 0
            except ApiError as error:
                if error.is_expired:
                    self._version = None
                    continue
                failures += 1
                log.warning("watch of %s: %s", self.resource.plural, error)
            except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
                failures += 1
                log.info("watch of %s is interrupted: %s", self.resource.plural, error)
            if failures:
                await asyncio.sleep(min(5.0, 0.05 * 2**failures) * random.uniform(0.5, 1.5))  # noqa: S311

    async def _relist(self) -> None:
        page = await self.client.list(
            self.resource,
            self.namespace,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            page_size=500,
        )
        known = dict(self.objects)
        for obj in page:
            # Items of a list carry no kind and apiVersion; give them, so that every object looks the same.
            obj.setdefault("apiVersion", self.resource.api_version)
            obj.setdefault("kind", self.resource.kind)
            previous = known.pop(key_of(obj), None)
            if previous is not None and previous["metadata"]["uid"] != obj["metadata"]["uid"]:
                self._change("DELETED", previous)
                previous = None
            if previous is None:
                self._change("ADDED", obj)
            elif previous["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._change("MODIFIED", obj)
        for obj in known.values():
            self._change("DELETED", obj)
        self._version = page.resource_version
        self._synced.set()

    async def _follow(self) -> None:
        events = self.client.watch(
            self.resource,
            self.namespace,
            resource_version=self._version,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
        )
        async for event in events:
            if event.type != "BOOKMARK":
                self._change(event.type, event.object)  # type: ignore[arg-type]
            self._version = event.object["metadata"]["resourceVersion"]

    def _change(self, change: Change, obj: Object) -> None:
        key = key_of(obj)
        previous = self.objects.get(key)
        if change == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        for handler in self.handlers:
            handler(change, obj, previous)
