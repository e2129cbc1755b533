"""What all controllers of one process share: the client, one watch per resource, the event recorder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from localcluster import indexes
from localcluster.client import Client
from localcluster.events import Recorder
from localcluster.indexes import Index, Selectors
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


def owned(watcher: Watcher) -> Index:
    """Objects by the uid of their controlling owner."""
    return watcher.index(indexes.controller_uid)


def orphans(watcher: Watcher) -> Index:
    """Objects that no controller owns, by namespace."""
    return watcher.index(indexes.orphan_namespace)


def selecting(watcher: Watcher) -> Selectors:
    """Which objects choose given labels by the LabelSelector in their spec."""
    return watcher.keep(Selectors(lambda obj: obj["spec"].get("selector")))
