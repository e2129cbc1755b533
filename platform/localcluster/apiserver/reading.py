"""Get, list and watch."""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from localcluster.apiserver import selectors, status
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.status import Cause, StatusError
from localcluster.apiserver.store import Event, Record, Store, Table
from localcluster.apiserver.views import View
from localcluster.apiserver.web import Answer, Request, Response, Stream
from localcluster.resources import EVENTS, Resource

Object = dict[str, Any]
Test = Callable[[Record], bool]

_JSON = (b"content-type", b"application/json")
_CHUNK = 256 * 1024
_BOOKMARK_SECONDS = 60.0
_MIN_WATCH_SECONDS = 1800
_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


def _integer(request: Request, name: str) -> int:
    text = request.query.get(name, "")
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def test_of(kind: Kind, request: Request) -> Test | None:
    """The test of a request's selectors, None when it has none."""
    label_text, field_text = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
    label_test = selectors.labels(label_text) if label_text else None
    terms = selectors.fields(field_text, kind.supported_fields) if field_text else []
    if label_test is None and not terms:
        return None
    names = kind.field_names
    compiled = [
        (path if path.startswith("metadata.") else names.index(path), want, value) for path, want, value in terms
    ]

    def test(record: Record) -> bool:
        for where, wanted, value in compiled:
            if where == "metadata.name":
                found = record.name
            elif where == "metadata.namespace":
                found = record.namespace
            else:
                found = record.fields[where]  # type: ignore[index]
            if (found == value) is not wanted:
                return False
        return label_test is None or label_test(record.labels or {})

    return test


def _check_list_options(request: Request, *, watching: bool) -> None:
    query = request.query
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    initial = "sendInitialEvents" in query
    causes = []

    def forbid(text: str) -> None:
        causes.append(Cause("FieldValueForbidden", f"Forbidden: {text}", "resourceVersionMatch"))

    if watching:
        if initial:
            if match != "NotOlderThan":
                forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
                if match:
                    text = f'Unsupported value: "{match}": supported values: "NotOlderThan"'
                    causes.append(Cause("FieldValueNotSupported", text, "resourceVersionMatch"))
        elif match:
            forbid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    elif initial:
        text = "Forbidden: sendInitialEvents is forbidden for list"
        causes.append(Cause("FieldValueForbidden", text, "sendInitialEvents"))
    elif match:
        if not version:
            forbid("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if query.get("continue"):
            forbid("resourceVersionMatch is forbidden when continue is provided")
        if match not in ("Exact", "NotOlderThan"):
            text = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
            causes.append(Cause("FieldValueNotSupported", text, "resourceVersionMatch"))
        elif match == "Exact" and version == "0":
            forbid('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if causes:
        raise status.bad_option("ListOptions", causes)


def version_of(text: str) -> int:
    """A resourceVersion parameter as a number; StatusError 400."""
    try:
        return int(text)
    except ValueError:
        detail = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise status.bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": {detail}'
        ) from None


async def reach(store: Store, revision: int) -> None:
    """Wait a little for a revision that was not given yet; StatusError 504 when it does not come."""
    for _ in range(30):
        if store.revision >= revision:
            return
        await asyncio.sleep(0.1)
    error = StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {revision}, current: {store.revision}",
        {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )
    error.headers.append((b"retry-after", b"1"))
    raise error


def _encode_token(revision: int, start: str) -> str:
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    # Go escapes the terminating zero byte in the same way.
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _decode_token(text: str) -> tuple[int, str]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        token = orjson.loads(raw)
        return int(token["rv"]), str(token["start"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise status.bad_request(
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 0"
        ) from None


def _position(record: Record, namespace: str | None) -> str:
    return f"/{record.name}" if namespace is not None else f"/{record.namespace}/{record.name}"


async def list_objects(
    store: Store, table: Table, kind: Kind, view: View, request: Request, namespace: str | None
) -> Answer:
    """The list that a request asks for, in its view."""
    _check_list_options(request, watching=False)
    test = test_of(kind, request)
    limit = _integer(request, "limit")
    token = request.query.get("continue", "")
    version_text = request.query.get("resourceVersion", "")
    version = version_of(version_text) if version_text else 0
    match = request.query.get("resourceVersionMatch", "")
    if version_text == "0" and not match:
        limit = 0
    start = ""
    revision = store.revision
    if token:
        records, revision, start = _continued(store, table, namespace, token)
    elif version and (match == "Exact" or (limit and not match)):
        await reach(store, version)
        try:
            records, revision = table.snapshot(version, namespace), version
        except LookupError:
            raise StatusError(410, "Expired", "The resourceVersion for the provided list is too old.") from None
    else:
        if version:
            await reach(store, version)
            revision = store.revision
        records = list(table.records(namespace))
    if test is not None:
        records = [record for record in records if test(record)]
    if start:
        records = [record for record in records if _position(record, namespace) > start.rstrip("\0")]
    metadata: Object = {"resourceVersion": str(revision)}
    if limit and len(records) > limit:
        remaining = len(records) - limit
        records = records[:limit]
        metadata["continue"] = _encode_token(revision, _position(records[-1], namespace) + "\0")
        if test is None:
            metadata["remainingItemCount"] = remaining
    await store.durable()
    return _list_answer(view, records, metadata)


def _continued(store: Store, table: Table, namespace: str | None, token: str) -> tuple[list[Record], int, str]:
    revision, start = _decode_token(token)
    if revision <= 0:
        return list(table.records(namespace)), store.revision, start
    try:
        return table.snapshot(revision, namespace), revision, start
    except LookupError:
        again = {"continue": _encode_token(-1, start)}
        raise StatusError(410, "Expired", _EXPIRED, metadata=again) from None


def _list_answer(view: View, records: list[Record], metadata: Object) -> Answer:
    head, tail = view.list_head(metadata)
    if sum(len(record.body) for record in records) < 2 * _CHUNK:
        return Response(head + b",".join(map(view.item, records)) + tail)

    async def chunks() -> AsyncIterator[bytes]:
        part, size = [head], 0
        for index, record in enumerate(records):
            item = view.item(record)
            part.append(b"," + item if index else item)
            size += len(item)
            if size > _CHUNK:
                yield b"".join(part)
                part, size = [], 0
                await asyncio.sleep(0)  # let others in while a long list is written
        yield b"".join([*part, tail])

    return Stream(chunks(), [_JSON])


class Watching:
    """All open watches of the server."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.closing = False

    def close(self) -> None:
        """End every watch."""
        self.closing = True
        for table in self.store.tables.values():
            for waiter in table.ring.waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def watch(self, table: Table, kind: Kind, view: View, request: Request, namespace: str | None) -> Answer:
        """The stream of events that a request asks for."""
        _check_list_options(request, watching=True)
        test = test_of(kind, request)
        bookmarks = request.flag("allowWatchBookmarks")
        initial = request.flag("sendInitialEvents")
        text = request.query.get("resourceVersion", "")
        if text and not text.isdigit():
            detail = f'strconv.ParseUint: parsing "{text}": invalid syntax'
            raise status.internal(f'resourceVersion: Invalid value: "{text}": {detail}')
        seconds = _integer(request, "timeoutSeconds") or random.randint(_MIN_WATCH_SECONDS, 2 * _MIN_WATCH_SECONDS)  # noqa: S311
        version = int(text) if text else 0
        await self.store.durable()
        events = self._events(
            table, view, test, namespace, version, request, bookmarks=bookmarks, initial=initial, seconds=seconds
        )
        return Stream(events, [_JSON])

    async def _events(
        self,
        table: Table,
        view: View,
        test: Test | None,
        namespace: str | None,
        version: int,
        request: Request,
        *,
        bookmarks: bool,
        initial: bool,
        seconds: int,
    ) -> AsyncIterator[bytes]:
        ring = table.ring
        loop = asyncio.get_running_loop()
        synthetic = (version == 0 and "sendInitialEvents" not in request.query) or initial
        if synthetic:
            if version > self.store.revision:
                await reach(self.store, version)
            version = self.store.revision
            position = ring.position_after(version)
            first = [record for record in table.records(namespace) if test is None or test(record)]
            lines, size = [], 0
            for record in first:
                lines.append(view.event("ADDED", record))
                size += len(lines[-1])
                if size > _CHUNK:
                    yield b"".join(lines)
                    lines, size = [], 0
            if lines:
                yield b"".join(lines)
            if initial and bookmarks:
                yield view.bookmark(version, initial=True)
        elif version == 0:
            version = self.store.revision
            position = ring.position_after(version)
        elif version < ring.floor:
            yield _too_old(table.resource, version, ring.floor)
            return
        else:
            position = ring.position_after(version)
        if not synthetic:
            yield b""  # sends the headers: the client waits for them
        deadline = loop.time() + seconds
        next_bookmark = min(loop.time() + _BOOKMARK_SECONDS, max(loop.time() + 1, deadline - 2))
        waiter: asyncio.Future[None] | None = None

        def wake(_: Any = None) -> None:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

        gone = asyncio.ensure_future(_disconnected(request))
        gone.add_done_callback(wake)
        try:
            while not self.closing:
                try:
                    batch = ring.since(position)
                except LookupError:
                    yield _too_old(table.resource, version, ring.floor)
                    return
                if batch:
                    position += len(batch)
                    changes = _lines(batch, view, test, namespace, version)
                    if changes:
                        yield b"".join(changes)
                    version = max(version, batch[-1].revision)
                    continue
                now = loop.time()
                if gone.done() or now >= deadline:
                    return
                if now >= next_bookmark:
                    if bookmarks:
                        yield view.bookmark(max(version, self.store.durable_revision), initial=False)
                    next_bookmark = now + (1.0 if deadline - now < 2 else min(_BOOKMARK_SECONDS, deadline - now - 2))
                    next_bookmark = max(next_bookmark, now + 1)
                    continue
                waiter = loop.create_future()
                ring.waiters.add(waiter)
                timer = loop.call_at(min(deadline, next_bookmark), wake)
                try:
                    await waiter
                finally:
                    timer.cancel()
                    ring.waiters.discard(waiter)
        finally:
            gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_old(resource: Resource, version: int, floor: int) -> bytes:
    message = f"too old resource version: {version} ({floor})"
    if resource == EVENTS:  # Kubernetes serves them past its watch cache, which words this otherwise
        message = "The resourceVersion for the provided watch is too old."
    error = StatusError(410, "Expired", message)
    return orjson.dumps({"type": "ERROR", "object": error.body()}) + b"\n"


def _lines(events: list[Event], view: View, test: Test | None, namespace: str | None, after: int) -> list[bytes]:
    lines = []
    for event in events:
        record = event.record
        if event.revision <= after or (namespace is not None and record.namespace != namespace):
            continue
        if test is None:
            lines.append(view.line(event))
            continue
        previous = event.previous
        before = previous is not None and test(previous)
        if event.type == "DELETED":
            if before:
                lines.append(view.event("DELETED", record))
        elif test(record):
            lines.append(view.event("MODIFIED" if before else "ADDED", record))
        elif before and previous is not None:
            lines.append(view.event("DELETED", _left(previous, record.revision)))
    return lines


def _left(previous: Record, revision: int) -> Record:
    """An object that left a selector: its old content at the revision at which it left."""
    obj = previous.load()
    obj["metadata"]["resourceVersion"] = str(revision)
    body = orjson.dumps(obj)
    return Record(previous.namespace, previous.name, previous.uid, revision, body, previous.labels, previous.fields)
