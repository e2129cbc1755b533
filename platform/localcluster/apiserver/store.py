"""Where the objects are: dictionaries of encoded JSON, a log in SQLite, and a ring of recent events.

An object is kept as its JSON text without `kind` and `apiVersion`, so that gets, lists and watches send
what is stored without encoding it again. One revision counter orders all writes. Writes of one turn of the
event loop are committed to SQLite's write-ahead log together, in a thread; a write is acknowledged, and
its event delivered, only after that, so `kill -9` loses nothing that anybody was told.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import orjson

from localcluster.resources import Resource

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str]

RING_EVENTS = 20_000
RING_BYTES = 24 * 1024 * 1024
BATCH_BYTES = 512 * 1024  # what one watcher is given at a time
_HOT = 64  # events whose watch line is kept encoded, for all watchers
_RESTART_GAP = 1000


class Record:
    """One version of an object. `fields` are the values that field selectors may ask for."""

    __slots__ = ("body", "fields", "labels", "name", "namespace", "revision", "uid")

    def __init__(
        self,
        namespace: str,
        name: str,
        uid: str,
        revision: int,
        body: bytes,
        labels: dict[str, str] | None,
        fields: tuple[str, ...],
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.revision = revision
        self.body = body
        self.labels = labels
        self.fields = fields

    def load(self) -> dict[str, Any]:
        """The object as a fresh dict (without kind and apiVersion)."""
        return orjson.loads(self.body)


class Event:
    """A change: the new record (for DELETED the last content with the deletion's revision) and the old one."""

    __slots__ = ("line", "previous", "record", "revision", "type")

    def __init__(self, kind: EventType, record: Record, previous: Record | None) -> None:
        self.type = kind
        self.record = record
        self.previous = previous
        self.revision = record.revision
        self.line: bytes | None = None


class Ring:
    """Recent events of one resource, addressed by absolute position; old ones are dropped by count and size."""

    def __init__(self, floor: int) -> None:
        self.events: list[Event] = []
        self.first = 0  # absolute position of events[0]
        self.visible = 0  # positions below are durable and may be delivered
        self.floor = floor  # versions below cannot be resumed from
        self.size = 0
        self.waiters: set[asyncio.Future[None]] = set()

    def append(self, event: Event) -> None:
        self.events.append(event)
        self.size += len(event.record.body)
        if len(self.events) > RING_EVENTS or self.size > RING_BYTES:
            self._trim()

    def _trim(self) -> None:
        cut = min(len(self.events) // 4 + 1, self.visible - self.first)
        for event in self.events[:cut]:
            self.size -= len(event.record.body)
            self.floor = event.revision
        del self.events[:cut]
        self.first += cut

    def position_after(self, revision: int) -> int:
        """The position of the first event newer than `revision`."""
        return self.first + bisect_right(self.events, revision, key=lambda event: event.revision)

    def since(self, position: int, limit: int = 500) -> list[Event]:
        """Deliverable events from a position on; LookupError when it has been dropped."""
        if position < self.first:
            raise LookupError("compacted")
        start = position - self.first
        stop = min(start + limit, self.visible - self.first)
        size = 0
        for index in range(start, stop):
            size += len(self.events[index].record.body)
            if size > BATCH_BYTES:
                return self.events[start : index + 1]
        return self.events[start:stop]

    async def changed(self) -> None:
        """Wait for the next event."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        try:
            await waiter
        finally:
            self.waiters.discard(waiter)

    def publish(self, position: int) -> None:
        """Make events below `position` deliverable and wake the watchers."""
        for event in self.events[max(0, self.visible - self.first - _HOT) : max(0, position - self.first - _HOT)]:
            event.line = None
        self.visible = position
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


class Table:
    """The objects of one resource."""

    def __init__(self, resource: Resource, selectable: Callable[[dict[str, Any]], tuple[str, ...]]) -> None:
        self.resource = resource
        self.selectable = selectable
        self.by_namespace: dict[str, dict[str, Record]] = {}
        self.ring = Ring(0)

    def get(self, namespace: str, name: str) -> Record | None:
        return self.by_namespace.get(namespace, {}).get(name)

    def records(self, namespace: str | None = None) -> Iterator[Record]:
        """Records of one or (None) all namespaces, in key order."""
        for where in sorted(self.by_namespace) if namespace is None else (namespace,):
            inside = self.by_namespace.get(where)
            if inside:
                for name in sorted(inside):
                    yield inside[name]

    def count(self, namespace: str | None = None) -> int:
        if namespace is not None:
            return len(self.by_namespace.get(namespace, ()))
        return sum(map(len, self.by_namespace.values()))

    def snapshot(self, revision: int, namespace: str | None = None) -> list[Record]:
        """The records as they were at an earlier revision, in key order; LookupError when compacted."""
        if revision < self.ring.floor:
            raise LookupError("compacted")
        found = {(record.namespace, record.name): record for record in self.records(namespace)}
        for event in reversed(self.ring.events):
            if event.revision <= revision:
                break
            record = event.record
            if namespace is not None and record.namespace != namespace:
                continue
            if event.previous is None:
                found.pop((record.namespace, record.name), None)
            else:
                found[record.namespace, record.name] = event.previous
        return [found[key] for key in sorted(found)]

    def put(self, record: Record) -> None:
        self.by_namespace.setdefault(record.namespace, {})[record.name] = record

    def drop(self, record: Record) -> None:
        inside = self.by_namespace[record.namespace]
        del inside[record.name]
        if not inside:
            del self.by_namespace[record.namespace]


class Store:
    """All tables, the revision and the log."""

    def __init__(self, path: str, tables: list[Table], on_failure: Callable[[BaseException], None]) -> None:
        self.tables = {table.resource: table for table in tables}
        self.revision = 0
        self.durable_revision = 0
        self._on_failure = on_failure
        self._by_name = {_log_name(table.resource): table for table in tables}
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        os.chmod(path, 0o600)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._rows: list[tuple[str, str, str, bytes | None]] = []
        self._touched: set[Table] = set()
        self._waiting: asyncio.Future[None] | None = None
        self._flushing = False
        self._load()

    def _load(self) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode=WAL")
        # With WAL, NORMAL keeps every commit through the death of the process, without an fsync each.
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("PRAGMA cache_size=-2000")
        database.execute("PRAGMA wal_autocheckpoint=4000")
        database.execute(
            "CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT, body BLOB,"
            " PRIMARY KEY (resource, namespace, name))"
        )
        database.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID")
        row = database.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        # Revisions that were seen but not logged before a crash must never be given again.
        self.revision = self.durable_revision = ((row[0] if row else 0) // _RESTART_GAP + 1) * _RESTART_GAP
        database.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (self.revision,))
        for name, namespace, key, body in database.execute("SELECT resource, namespace, name, body FROM objects"):
            table = self._by_name.get(name)
            if table is not None:
                obj = orjson.loads(body)
                table.put(record_of(table, namespace, key, obj, body))
        for table in self.tables.values():
            table.ring.floor = self.revision

    def next_revision(self) -> int:
        self.revision += 1
        return self.revision

    def write(self, table: Table, kind: EventType, record: Record, previous: Record | None) -> None:
        """Make a change visible to reads at once; it is acknowledged by `durable()`."""
        if kind == "DELETED":
            assert previous is not None
            table.drop(previous)
        else:
            table.put(record)
        table.ring.append(Event(kind, record, previous))
        body = None if kind == "DELETED" else record.body
        self._rows.append((_log_name(table.resource), record.namespace, record.name, body))
        self._touched.add(table)
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
            if not self._flushing:
                self._flushing = True
                asyncio.get_running_loop().call_soon(self._flush)

    async def durable(self) -> None:
        """Wait until everything written so far is in the log."""
        if self._waiting is not None:
            await asyncio.shield(self._waiting)

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        waiting, self._waiting = self._waiting, None
        positions = [(table, table.ring.first + len(table.ring.events)) for table in self._touched]
        self._touched = set()
        revision = self.revision
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._thread, self._commit, rows, revision)
        assert waiting is not None
        job.add_done_callback(lambda done: self._committed(done, waiting, positions, revision))

    def _commit(self, rows: list[tuple[str, str, str, bytes | None]], revision: int) -> None:
        database = self._database
        database.execute("BEGIN")
        for resource, namespace, name, body in rows:
            if body is None:
                database.execute(
                    "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
                    (resource, namespace, name),
                )
            else:
                database.execute(
                    "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (resource, namespace, name, body)
                )
        database.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))
        database.execute("COMMIT")

    def _committed(
        self,
        done: asyncio.Future[None],
        waiting: asyncio.Future[None],
        positions: list[tuple[Table, int]],
        revision: int,
    ) -> None:
        failure = done.exception()
        if failure is not None:
            # Memory is now ahead of the log: going on would acknowledge what is not kept.
            self._on_failure(failure)
            return
        self.durable_revision = revision
        for table, position in positions:
            table.ring.publish(position)
        if not waiting.done():
            waiting.set_result(None)
        if self._rows:
            self._flush()
        else:
            self._flushing = False

    async def close(self) -> None:
        """Write out what is pending and close the log."""
        while self._waiting is not None:
            await self.durable()
        await asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)
        self._thread.shutdown()
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()


def _log_name(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}"


def record_of(table: Table, namespace: str, name: str, obj: dict[str, Any], body: bytes) -> Record:
    """The record of an object whose encoded text is `body`."""
    metadata = obj["metadata"]
    return Record(
        namespace,
        name,
        metadata["uid"],
        int(metadata["resourceVersion"]),
        body,
        metadata.get("labels"),
        table.selectable(obj),
    )
