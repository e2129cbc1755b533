"""Indexes of a watcher tell what looking through all objects would, after any events, relists and losses included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localcluster import indexes
from localcluster.client import ApiError, Event, Page
from localcluster.indexes import Selectors
from localcluster.pods import matches
from localcluster.resources import PODS
from localcluster.watcher import Watcher, key_of

Object = dict[str, Any]

NAMESPACES, NAMES, UIDS = ("a", "b"), ("x", "y", "z"), ("u1", "u2")
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["1", "2", "3"]))
SELECTORS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": LABELS,
        "matchExpressions": st.lists(
            st.fixed_dictionaries({"key": st.just("app"), "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
            max_size=1,
        ),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    """A pod of few names, labels, owners and nodes, so that events meet; its spec has a selector too."""
    metadata: Object = {"namespace": draw(st.sampled_from(NAMESPACES)), "name": draw(st.sampled_from(NAMES))}
    metadata["labels"] = draw(st.none() | LABELS)
    owner = draw(st.none() | st.sampled_from(UIDS))
    if owner:
        reference = {"kind": "ReplicaSet", "name": f"rs-{owner}", "uid": owner, "controller": draw(st.booleans())}
        metadata["ownerReferences"] = [reference]
    node = draw(st.sampled_from([None, "n1", "n2"]))
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node, "selector": draw(SELECTORS)}}


class Server:
    """What a watcher asks: each round is a list of everything, then the events of a watch that ends as compacted."""

    def __init__(self, rounds: list[list[tuple[str, Object]]], missed: list[list[tuple[str, Object]]]) -> None:
        self.rounds, self.missed = list(rounds), list(missed)
        self.objects: dict[tuple[str, str], Object] = {}
        self.version = 0

    def _take(self, change: str, pod: Object) -> Event | None:
        key, self.version = key_of(pod), self.version + 1
        known = self.objects.get(key)
        if change == "delete":
            if known is None:
                return None
            del self.objects[key]
            return Event("DELETED", known)
        uid = known["metadata"]["uid"] if known else f"uid-{self.version}"
        metadata = pod["metadata"] | {"uid": uid, "resourceVersion": str(self.version)}
        self.objects[key] = pod | {"metadata": metadata}
        return Event("MODIFIED" if known else "ADDED", self.objects[key])

    async def list(self, resource: Any, namespace: str | None, **_: Any) -> Page:
        for change, pod in self.missed.pop(0) if self.missed else ():
            self._take(change, pod)
        return Page(list(self.objects.values()), str(self.version))

    async def watch(self, resource: Any, namespace: str | None, **_: Any) -> AsyncIterator[Event]:
        if not self.rounds:
            raise asyncio.CancelledError
        for change, pod in self.rounds.pop(0):
            event = self._take(change, pod)
            if event is not None:
                yield event
        raise ApiError(410, {"message": "compacted"})


CHANGES = st.lists(st.tuples(st.sampled_from(["put", "put", "delete"]), pods()), max_size=12)


def by_key(objects: list[Object]) -> list[Object]:
    return sorted(objects, key=key_of)


def selector_of(obj: Object) -> Object | None:
    return obj["spec"]["selector"]


def check(watcher: Watcher, selecting: Selectors) -> None:
    everything = list(watcher.objects.values())
    for keys in (indexes.controller_uid, indexes.orphan_namespace, indexes.node_name, indexes.labelled):
        index = watcher.index(keys)
        wanted = {key for obj in everything for key in keys(obj)}
        assert set(index._found) == wanted, "nothing is kept of what is gone"
        for key in wanted:
            scanned = [obj for obj in everything if key in keys(obj)]
            assert by_key(index.of(key)) == by_key(scanned)
            assert index.count(key) == len(scanned)
    for where in NAMESPACES:
        inside = [obj for obj in everything if obj["metadata"]["namespace"] == where]
        assert by_key(watcher.in_namespace(where)) == by_key(inside)
        assert watcher.count(where) == len(inside)
        for labels in ({}, {"app": "1"}, {"app": "1", "tier": "2"}):
            chosen = [obj for obj in inside if matches({"matchLabels": labels}, obj["metadata"]["labels"])]
            assert by_key(watcher.labelled(where, labels)) == by_key(chosen)
            choosing = [obj for obj in inside if matches(selector_of(obj), labels)]
            assert by_key(selecting.choosing(where, labels)) == by_key(choosing)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(rounds=st.lists(CHANGES, min_size=1, max_size=3), missed=st.lists(CHANGES, max_size=4), late=st.booleans())
def test_indexes_equal_a_scan_after_any_events(
    rounds: list[list[tuple[str, Object]]], missed: list[list[tuple[str, Object]]], late: bool
) -> None:
    server = Server(rounds, missed)
    watcher = Watcher(server, PODS)  # type: ignore[arg-type]
    selecting = watcher.keep(Selectors(selector_of))
    watcher.add_handler(lambda change, obj, old: check(watcher, selecting))
    if not late:  # else they are made once objects are known
        for keys in (indexes.controller_uid, indexes.labelled):
            watcher.index(keys)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(watcher.run())
    assert watcher.objects == server.objects
    check(watcher, selecting)


def test_one_index_serves_all_who_ask_for_it() -> None:
    watcher = Watcher(Server([], []), PODS)  # type: ignore[arg-type]
    assert watcher.index(indexes.node_name) is watcher.index(indexes.node_name)


def test_selectors_do_not_crowd_under_a_label_that_all_have() -> None:
    selecting = Selectors(selector_of)
    for number in range(100):
        labels = {"app": "all", "version": str(number)}
        obj = {"metadata": {"namespace": "a", "name": f"s-{number}"}, "spec": {"selector": {"matchLabels": labels}}}
        selecting.change("ADDED", obj, None)
    assert max(len(inside) for inside in selecting._found.values()) <= 2
    found = selecting.choosing("a", {"app": "all", "version": "7", "more": "x"})
    assert [obj["metadata"]["name"] for obj in found] == ["s-7"]
