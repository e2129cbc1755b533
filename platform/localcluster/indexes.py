"""What a watcher knows, found by something else than the name: indexes that every event keeps up.

A controller that looks through a whole namespace on each event does work that grows with the square of what is in it;
these answer from what fits (what client-go calls indexers).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Literal, Protocol

from localcluster.client import Object
from localcluster.pods import controller_of, matches

Change = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str]
Keys = Callable[[Object], Collection[Hashable]]


def key_of(obj: Object) -> Key:
    """(namespace, name); the namespace of a cluster-wide object is ''."""
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class Kept(Protocol):
    """Something that follows the events of one watcher."""

    def change(self, change: Change, obj: Object, previous: Object | None) -> None:
        """Take in one event; `previous` is the object as it was known before."""


class Index:
    """Objects by each of the keys that `keys` (a pure function) gives for them."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._found: dict[Hashable, dict[Key, Object]] = {}

    def of(self, key: Hashable) -> list[Object]:
        """The objects with a key."""
        return list(self._found.get(key, {}).values())

    def count(self, key: Hashable) -> int:
        return len(self._found.get(key, ()))

    def change(self, change: Change, obj: Object, previous: Object | None) -> None:
        name = key_of(obj)
        new = () if change == "DELETED" else self._keys(obj)
        for key in () if previous is None else self._keys(previous):
            if key not in new:
                inside = self._found[key]
                del inside[name]
                if not inside:
                    del self._found[key]
        for key in new:
            self._found.setdefault(key, {})[name] = obj


class Selectors:
    """Objects that choose others by label: services, ReplicaSets, budgets. `choosing()` finds who chooses given labels.

    `selector` gives the LabelSelector of an object, None for one that chooses nothing. An object is kept under one of
    the labels that it asks for, the one under which there were fewest: not all stand under a label that everything has.
    """

    def __init__(self, selector: Callable[[Object], Object | None]) -> None:
        self._selector = selector
        self._found: dict[Hashable, dict[Key, Object]] = {}
        self._places: dict[Key, Hashable] = {}

    def choosing(self, namespace: str, labels: Mapping[str, str] | None) -> list[Object]:
        """The objects of a namespace whose selector chooses these labels."""
        labels = dict(labels or {})
        places = [(namespace, item) for item in (*labels.items(), None)]
        return [
            obj
            for place in places
            for obj in self._found.get(place, {}).values()
            if matches(self._selector(obj), labels)
        ]

    def change(self, change: Change, obj: Object, previous: Object | None) -> None:
        name, selector = key_of(obj), self._selector(obj)
        place = self._places.get(name)
        if change != "DELETED" and place is not None and previous is not None and self._selector(previous) == selector:
            self._found[place][name] = obj
            return
        if place is not None:
            del self._places[name]
            del self._found[place][name]
            if not self._found[place]:
                del self._found[place]
        if change != "DELETED" and selector is not None:
            items = (selector.get("matchLabels") or {}).items()
            choices: list[Hashable] = [(name[0], item) for item in items] or [(name[0], None)]
            place = min(choices, key=lambda choice: len(self._found.get(choice, ())))
            self._places[name] = place
            self._found.setdefault(place, {})[name] = obj


def namespace(obj: Object) -> tuple[str]:
    """Key of an Index: the namespace."""
    return (key_of(obj)[0],)


def controller_uid(obj: Object) -> tuple[str, ...]:
    """Key of an Index: the uid of the controlling owner."""
    owner = controller_of(obj)
    return (owner["uid"],) if owner else ()


def controller_name(obj: Object) -> tuple[tuple[str, str, str], ...]:
    """Key of an Index: (namespace, kind, name) of the controlling owner."""
    owner = controller_of(obj)
    return ((key_of(obj)[0], owner["kind"], owner["name"]),) if owner else ()


def orphan_namespace(obj: Object) -> tuple[str, ...]:
    """Key of an Index: the namespace of what no controller owns."""
    return () if controller_of(obj) else (key_of(obj)[0],)


def node_name(pod: Object) -> tuple[str, ...]:
    """Key of an Index: the node of a pod that has one."""
    node = pod["spec"].get("nodeName")
    return (node,) if node else ()


def labelled(obj: Object) -> frozenset[tuple[str, str, str]]:
    """Keys of an Index: (namespace, label, value) for every label."""
    where = key_of(obj)[0]
    return frozenset((where, name, value) for name, value in (obj["metadata"].get("labels") or {}).items())
