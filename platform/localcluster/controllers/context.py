"""What all controllers of one process share: the client, one watch per resource, the event recorder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from localcluster.client import Client, Object
from localcluster.events import Recorder
from localcluster.resources import Resource
from localcluster.watcher import Watcher


class Context:
    """Hands out watchers (one per resource) and recorders (one per component)."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._watchers: dict[Resource, Watcher] = {}
        self._recorders: dict[str, Recorder] = {}

    def watcher(self, resource: Resource) -> Watcher:
        """The one watcher of `resource` in all namespaces."""
        if resource not in self._watchers:
            self._watchers[resource] = Watcher(self.client, resource)
        return self._watchers[resource]

    def recorder(self, component: str) -> Recorder:
        if component not in self._recorders:
            self._recorders[component] = Recorder(self.client, component)
        return self._recorders[component]

    def parts(self) -> Iterator[object]:
        """Coroutines that keep watchers and recorders going."""
        for watcher in self._watchers.values():
            yield watcher.run()
        for recorder in self._recorders.values():
            yield recorder.run()

    async def synced(self) -> None:
        """Wait until every watcher has its first complete list."""
        await asyncio.gather(*(watcher.synced() for watcher in self._watchers.values()))


class Owned:
    """Objects of one resource by the uid of their controlling owner, kept by a watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._by_owner: dict[str, dict[str, Object]] = {}
        watcher.add_handler(self._on_change)

    def of(self, uid: str) -> list[Object]:
        return list(self._by_owner.get(uid, {}).values())

    def _on_change(self, change: str, obj: Object, previous: Object | None) -> None:
        for old in (previous, obj):
            if old is not None:
                self._forget(old)
        owner = _controller_uid(obj)
        if change != "DELETED" and owner:
            self._by_owner.setdefault(owner, {})[obj["metadata"]["uid"]] = obj

    def _forget(self, obj: Object) -> None:
        owner = _controller_uid(obj)
        if owner and owner in self._by_owner:
            self._by_owner[owner].pop(obj["metadata"]["uid"], None)
            if not self._by_owner[owner]:
                del self._by_owner[owner]


def _controller_uid(obj: Object) -> str | None:
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return owner["uid"]
    return None
