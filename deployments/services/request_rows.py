"""Storing finished requests by group commit.

A request that was answered is in the database before its answer leaves. Rows that finish while a write is under way
share the next one, so the cost per request falls as the load grows, and no row is written twice for start and end.
"""

import asyncio
import copy
import logging
from functools import cache
from typing import Any

import orjson
import psycopg2
from django.db import DatabaseError, IntegrityError, connection

from accounts.errors import Unavailable
from deployments.models import DeploymentVersion, Request
from deployments.services.async_database import AsyncConnection
from deployments.services.threads import in_thread

logger = logging.getLogger(__name__)

LARGEST = 500
TRIES = 4


class _Writer:
    def __init__(self) -> None:
        self.waiting: list[tuple[Request, asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None
        self.database = AsyncConnection()

    async def save(self, row: Request) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((row, done))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[:LARGEST], self.waiting[LARGEST:]
            problem: Exception | None = None
            try:
                await self._store([row for row, _ in batch])
            except Exception as error:
                logger.exception("%d requests could not be stored", len(batch))
                problem = error
            for _, done in batch:
                if done.done():  # whoever waited has gone away
                    continue
                if problem is None:
                    done.set_result(None)
                else:
                    done.set_exception(Unavailable("The request was answered but could not be stored. Try again."))

    async def _store(self, rows: list[Request]) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                await self._insert(rows)
            except (psycopg2.Error, DatabaseError):
                if attempt == TRIES:
                    raise
                await asyncio.sleep(0.25 * 2**attempt)
            else:
                return

    async def _insert(self, rows: list[Request]) -> None:
        statement, columns = _statement()
        try:
            content = orjson.dumps([{column: getattr(row, column) for column in columns} for row in rows])
            await self.database.execute(statement, [content.decode()])
        except (psycopg2.IntegrityError, psycopg2.DataError, orjson.JSONEncodeError):
            await in_thread(_insert_singly, rows)


_writers: dict[asyncio.AbstractEventLoop, _Writer] = {}


async def save(row: Request) -> None:
    """Insert a request's row; returns when it is durable. Raises Unavailable if the database stays away."""
    loop = asyncio.get_running_loop()
    writer = _writers.get(loop)
    if writer is None:
        close_of_ended_loops()
        writer = _writers[loop] = _Writer()
    await writer.save(row)


async def close() -> None:
    """Close the connection of the running loop, once what waits is written; `save` opens it again."""
    writer = _writers.pop(asyncio.get_running_loop(), None)
    if writer is not None:
        if writer.task is not None:
            await writer.task
        writer.database.close()


def close_of_ended_loops() -> None:
    """Close connections whose loop was closed before them, as that of a synchronous call of a view is."""
    for loop in [loop for loop in list(_writers) if loop.is_closed()]:
        if (writer := _writers.pop(loop, None)) is not None:
            writer.database.close()


@cache
def _statement() -> tuple[str, list[str]]:
    """The one statement that inserts rows from one parameter, a JSON list of objects, and its columns."""
    columns = {field.attname: field.db_type(connection) for field in Request._meta.concrete_fields}
    quoted = {connection.ops.quote_name(name): kind for name, kind in columns.items()}
    names, typed = ", ".join(quoted), ", ".join(f"{name} {kind}" for name, kind in quoted.items())
    table = connection.ops.quote_name(Request._meta.db_table)
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM json_to_recordset(%s) AS row({typed}) "  # noqa: S608 - names of our own columns
        "ON CONFLICT DO NOTHING",
        list(columns),
    )


def _insert_singly(rows: list[Request]) -> None:
    """Stores each row as far as it can be: one that cannot must not take the others with it."""
    for row in map(copy.copy, rows):  # what the caller answers with stays as it is
        row.request_data, row.result = storable(row.request_data), storable(row.result)
        try:
            Request.objects.bulk_create([row], ignore_conflicts=True)
        except IntegrityError:
            # The version, the instance or the user was deleted meanwhile.
            if DeploymentVersion.objects.filter(pk=row.version_id).exists():
                row.instance_id = row.created_by_id = None
                Request.objects.bulk_create([row], ignore_conflicts=True)


def storable(value: Any) -> Any:
    """A JSON value with U+FFFD for U+0000, which PostgreSQL does not keep."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(name): storable(item) for name, item in value.items()}
    return value
