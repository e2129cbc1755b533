"""The API server's store: snapshots, the ring of events, and what survives a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localcluster.apiserver import store as module
from localcluster.apiserver.store import Event, Record, Ring, Store, Table, record_of
from localcluster.resources import CONFIGMAPS

WRITES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "drop"])), max_size=25)


def make(path: Path) -> tuple[Store, Table, list[BaseException]]:
    failures: list[BaseException] = []
    table = Table(CONFIGMAPS, lambda _: ())
    return Store(str(path), [table], failures.append), table, failures


def put(store: Store, table: Table, name: str, **data: Any) -> None:
    previous = table.get("n", name)
    version = store.next_revision()
    obj = {"metadata": {"name": name, "namespace": "n", "uid": "u", "resourceVersion": str(version)}, "data": data}
    record = record_of(table, "n", name, obj, orjson.dumps(obj))
    store.write(table, "MODIFIED" if previous else "ADDED", record, previous)


def drop(store: Store, table: Table, name: str) -> None:
    previous = table.get("n", name)
    assert previous is not None
    record = Record("n", name, "u", store.next_revision(), previous.body, None, ())
    store.write(table, "DELETED", record, previous)


def names(records: list[Record]) -> dict[str, int]:
    return {record.name: record.revision for record in records}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(WRITES)
def test_a_snapshot_is_what_was_there(tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, str]]) -> None:
    async def run() -> None:
        store, table, _ = make(tmp_path_factory.mktemp("store") / "db")
        seen = {store.revision: names(list(table.records()))}
        for name, what in writes:
            if what == "put":
                put(store, table, name)
            elif table.get("n", name) is not None:
                drop(store, table, name)
            seen[store.revision] = names(list(table.records()))
        for revision, state in seen.items():
            assert names(table.snapshot(revision)) == state
        await store.close()

    asyncio.run(run())


async def test_a_restart_keeps_objects_and_never_gives_a_revision_again(tmp_path: Path) -> None:
    store, table, _ = make(tmp_path / "db")
    put(store, table, "kept", k="v")
    put(store, table, "gone")
    drop(store, table, "gone")
    await store.durable()
    last = store.revision
    store.next_revision()  # given, but not written before the end
    await store.close()
    again, table, _ = make(tmp_path / "db")
    assert list(names(list(table.records()))) == ["kept"]
    record = table.get("n", "kept")
    assert record is not None
    assert record.load()["data"] == {"k": "v"}
    assert again.revision > last + 1
    with pytest.raises(LookupError):
        table.snapshot(last)
    await again.close()


async def test_events_are_delivered_only_when_they_are_durable(tmp_path: Path) -> None:
    store, table, _ = make(tmp_path / "db")
    position = table.ring.position_after(store.revision)
    put(store, table, "a")
    assert table.ring.since(position) == []
    await store.durable()
    assert [event.record.name for event in table.ring.since(position)] == ["a"]
    await store.close()


async def test_a_log_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    store, table, failures = make(tmp_path / "db")
    store._database.execute("DROP TABLE objects")
    put(store, table, "a")
    for _ in range(200):
        if failures:
            break
        await asyncio.sleep(0.01)
    assert "objects" in str(failures[0])


def test_the_ring_drops_old_events_by_size_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_BYTES", 1000)
    ring = Ring(0)
    for revision in range(1, 101):
        ring.append(Event("ADDED", Record("n", "a", "u", revision, b"x" * 100, None, ()), None))
        ring.publish(ring.first + len(ring.events))
    assert ring.size <= 1100
    assert ring.floor == ring.events[0].revision - 1
    with pytest.raises(LookupError):
        ring.since(0)
    assert [event.revision for event in ring.since(ring.position_after(98))] == [99, 100]


def test_a_batch_of_large_events_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 250)
    ring = Ring(0)
    for revision in range(1, 11):
        ring.append(Event("ADDED", Record("n", "a", "u", revision, b"x" * 100, None, ()), None))
    ring.publish(10)
    assert len(ring.since(0)) == 3
