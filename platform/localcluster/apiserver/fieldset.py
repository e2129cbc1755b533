"""Sets of field paths in the `fieldsV1` notation, and how two objects differ in them.

A set is the trie that `managedFields` carries: `{"f:spec": {"f:replicas": {}}}`. A node is a member when it
is empty or has the key `.`. Path elements are `f:` for fields and map keys, `k:` for items of keyed lists and
`v:` for items of sets (see "Server-Side Apply" in the Kubernetes documentation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from localcluster.apiserver.schema import ListOf, MapOf, Struct, Type

Path = tuple[str, ...]
Trie = dict[str, Any]

# Values that make up a list item's key when an item does not name them.
KEY_DEFAULTS = {"protocol": "TCP"}


def item_key(kind: ListOf, item: Any) -> str:
    """The path element of one item of a keyed list or a set."""
    if kind.is_set:
        return "v:" + orjson.dumps(item).decode()
    keys = {}
    for key in sorted(kind.keys):
        value = item.get(key, KEY_DEFAULTS.get(key)) if isinstance(item, dict) else None
        if value is not None:
            keys[key] = value
    return "k:" + orjson.dumps(keys).decode()


def is_granular(kind: Type) -> bool:
    """Whether parts of a value of this type may have different owners."""
    if isinstance(kind, Struct | MapOf):
        return not kind.atomic
    return isinstance(kind, ListOf) and not kind.atomic and (kind.is_set or bool(kind.keys))


def children(kind: Type, value: Any) -> list[tuple[str, Type, Any]]:
    """(path element, type, value) of each part of a granular value."""
    if not value:
        return []
    if isinstance(kind, Struct):
        fields = kind.fields
        return [("f:" + key, fields[key], part) for key, part in value.items() if key in fields]
    if isinstance(kind, MapOf):
        return [("f:" + key, kind.value, part) for key, part in value.items()]
    assert isinstance(kind, ListOf)
    return [(item_key(kind, item), kind.item, item) for item in value]


def insert(trie: Trie, path: Path) -> None:
    """Add one path."""
    node = trie
    fresh = False
    for depth, element in enumerate(path):
        following = node.get(element)
        if following is None:
            if not node and depth and not fresh:
                node["."] = {}  # the node was a member without children
            following = node[element] = {}
            fresh = True
        else:
            fresh = False
        node = following
    if node and "." not in node:
        node["."] = {}


def remove(trie: Trie, path: Path) -> None:
    """Take one path out; paths below it stay."""
    nodes = [trie]
    for element in path:
        following = nodes[-1].get(element)
        if following is None:
            return
        nodes.append(following)
    last = nodes[-1]
    if "." in last:
        del last["."]
        return
    if last:
        return
    for depth in range(len(path) - 1, -1, -1):
        parent = nodes[depth]
        del parent[path[depth]]
        if set(parent) == {"."}:
            parent.clear()
            return
        if parent:
            return


def node_at(trie: Trie, path: Path) -> Trie | None:
    """The node of a path (a member, or with members below), None when there is none."""
    node: Trie | None = trie
    for element in path:
        node = node.get(element) if node is not None else None
    return node


def contains(trie: Trie, path: Path) -> bool:
    node = node_at(trie, path)
    return node is not None and (not node or "." in node)


def paths(trie: Trie, prefix: Path = ()) -> Iterator[Path]:
    """All member paths."""
    for element, node in trie.items():
        if element == ".":
            continue
        here = (*prefix, element)
        if not node or "." in node:
            yield here
        if node:
            yield from paths(node, here)


def of_value(kind: Type, value: Any) -> Trie:
    """The set of all fields that an applied configuration names."""
    node: Trie = {}
    for element, part_kind, part in children(kind, value):
        if is_granular(part_kind) and part:
            sub = of_value(part_kind, part)
            if element[0] == "k" and sub:
                sub["."] = {}
            node[element] = sub
        else:
            node[element] = {}
    return node


def of_added(kind: Type, value: Any, empty: Any) -> Trie:
    """The set of fields by which a new object differs from its type's `empty` skeleton."""
    node: Trie = {}
    for element, part_kind, part in children(kind, value):
        known = isinstance(empty, dict) and element[2:] in empty
        if is_granular(part_kind) and part:
            sub = of_added(part_kind, part, empty[element[2:]] if known else None)
            if not known and sub:
                sub["."] = {}
            if sub or not known:
                node[element] = sub
        elif not known or part:
            node[element] = {}
    return node


class Difference:
    """Paths added, modified and removed between two objects."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self) -> None:
        self.added: list[Path] = []
        self.modified: list[Path] = []
        self.removed: list[Path] = []

    @property
    def changed(self) -> list[Path]:
        return self.added + self.modified

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)


def compare(kind: Type, old: Any, new: Any) -> Difference:
    """How `new` differs from `old`, by fields that can be owned."""
    difference = Difference()
    _compare(kind, old, new, (), difference)
    return difference


def _compare(kind: Type, old: Any, new: Any, path: Path, found: Difference) -> None:
    if old == new:
        return
    if path:
        if old is None:
            found.added.append(path)
        elif new is None:
            found.removed.append(path)
    if not is_granular(kind) or not (old or new):
        if old is not None and new is not None:
            found.modified.append(path)
        return
    before = {element: (part_kind, part) for element, part_kind, part in children(kind, old)}
    for element, part_kind, part in children(kind, new):
        previous = before.pop(element, None)
        _compare(part_kind, previous[1] if previous else None, part, (*path, element), found)
    for element, (part_kind, part) in before.items():
        _compare(part_kind, part, None, (*path, element), found)


def shown(path: Path) -> str:
    """The path as conflict messages write it: `.spec.containers[name="web"].image`."""
    text = ""
    for element in path:
        kind, rest = element[0], element[2:]
        if kind == "f":
            text += "." + rest
        elif kind == "k":
            keys = orjson.loads(rest)
            text += "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items()) + "]"
        else:
            text += f"[={rest}]"
    return text
