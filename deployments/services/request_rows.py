"""Storing finished requests by group commit.

A request that was answered is in the database before its answer leaves. Rows that finish while a write is under way
share the next one, so the cost per request falls as the load grows, and no row is written twice for start and end.
"""

import asyncio
import logging
import weakref

from django.db import IntegrityError, InterfaceError, OperationalError

from accounts.errors import Unavailable
from deployments.models import DeploymentVersion, Request
from deployments.services.threads import in_thread

logger = logging.getLogger(__name__)

LARGEST = 500
TRIES = 4


class _Writer:
    def __init__(self) -> None:
        self.waiting: list[tuple[Request, asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None

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
                await _store([row for row, _ in batch])
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


_writers: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Writer]" = weakref.WeakKeyDictionary()


async def save(row: Request) -> None:
    """Insert a request's row; returns when it is durable. Raises Unavailable if the database stays away."""
    loop = asyncio.get_running_loop()
    writer = _writers.get(loop)
    if writer is None:
        writer = _writers[loop] = _Writer()
    await writer.save(row)


async def _store(rows: list[Request]) -> None:
    for attempt in range(1, TRIES + 1):
        try:
            await in_thread(_insert, rows)
        except (OperationalError, InterfaceError):
            if attempt == TRIES:
                raise
            await asyncio.sleep(0.25 * 2**attempt)
        else:
            return


def _insert(rows: list[Request]) -> None:
    try:
        Request.objects.bulk_create(rows, ignore_conflicts=True)
    except IntegrityError:
        # A version, instance or user was deleted meanwhile.
        alive = set(
            DeploymentVersion.objects.filter(pk__in={row.version_id for row in rows}).values_list("pk", flat=True)
        )
        kept = [row for row in rows if row.version_id in alive]
        for row in kept:
            row.instance_id = row.created_by_id = None
        Request.objects.bulk_create(kept, ignore_conflicts=True)
