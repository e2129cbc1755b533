"""A local copy of a resource that follows the API server (what client-go calls an informer)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import TypeVar

import aiohttp

from localcluster import indexes
from localcluster.client import ApiError, Client, Object
from localcluster.indexes import Change, Index, Kept, Key, Keys, key_of
from localcluster.resources import Resource

log = logging.getLogger(__name__)

Handler = Callable[[Change, Object, Object | None], None]
K = TypeVar("K", bound=Kept)


class Watcher:
    """Lists, then watches, and keeps `objects` and its indexes up to date.

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
        self._indexes: dict[Keys, Index] = {}
        self._kept: list[Kept] = []
        self._by_namespace = self.index(indexes.namespace)
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
        return self._by_namespace.of(namespace)

    def count(self, namespace: str) -> int:
        """How many objects a namespace has."""
        return self._by_namespace.count(namespace)

    def index(self, keys: Keys) -> Index:
        """The objects by what `keys` gives for them; one index for each function, however often it is asked for."""
        if keys not in self._indexes:
            self._indexes[keys] = self.keep(Index(keys))
        return self._indexes[keys]

    def keep(self, kept: K) -> K:
        """Let `kept` follow every event, before any handler is called; it learns what is known already."""
        for obj in self.objects.values():
            kept.change("ADDED", obj, None)
        self._kept.append(kept)
        return kept

    def labelled(self, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """The objects of a namespace that have all of these labels, found from the rarest of them."""
        if not labels:
            return self.in_namespace(namespace)
        index = self.index(indexes.labelled)
        rarest = min(((namespace, *item) for item in labels.items()), key=index.count)
        wanted = labels.items()
        return [obj for obj in index.of(rarest) if wanted <= (obj["metadata"].get("labels") or {}).items()]

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
        for kept in self._kept:
            kept.change(change, obj, previous)
        for handler in self.handlers:
            handler(change, obj, previous)
