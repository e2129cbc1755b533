"""What the objects of a namespace use of a quota, kept by every write: admission asks at each create."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from localcluster import resources as r
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.store import Store
from localcluster.tally import Tally

Object = dict[str, Any]
Counting = Callable[[Kind, Object], Mapping[str, Decimal]]


class Usages:
    """Sums by kind, namespace and a quota's scopes: made when first asked for, then kept by `changed()`.

    `counting` gives what an object counts for, by the scopes of the quota that asks.
    """

    def __init__(self, store: Store, counting: Callable[[tuple[str, ...]], Counting]) -> None:
        self._store = store
        self._counting = counting
        self._tallies: dict[tuple[r.Resource, str], dict[tuple[str, ...], Tally]] = {}

    def of(self, kind: Kind, namespace: str, scopes: tuple[str, ...]) -> Tally:
        """The sums of the objects of one kind that are in the scopes."""
        found = self._tallies.setdefault((kind.resource, namespace), {})
        if scopes not in found:
            found[scopes] = tally = Tally()
            counting = self._counting(scopes)
            for record in self._store.tables[kind.resource].records(namespace):
                tally.put(record.name, counting(kind, record.load()))
        return found[scopes]

    def changed(self, kind: Kind, obj: Object, *, gone: bool) -> None:
        """Take in a write to the store."""
        metadata = obj["metadata"]
        if kind.resource == r.NAMESPACES and gone:
            for place in [place for place in self._tallies if place[1] == metadata["name"]]:
                del self._tallies[place]
        for scopes, tally in self._tallies.get((kind.resource, metadata.get("namespace", "")), {}).items():
            if gone:
                tally.drop(metadata["name"])
            else:
                tally.put(metadata["name"], self._counting(scopes)(kind, obj))
