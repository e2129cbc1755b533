"""One database connection on an event loop, without a thread.

A thread costs a switch of Python's lock twice per statement, which under load is most of a statement's time.
Source: https://www.psycopg.org/docs/advanced.html#asynchronous-support
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg2
from django.db import connections
from psycopg2 import extensions

# A server that says nothing for this long is taken for gone.
PATIENCE_SECONDS = 15.0
# How long an unused connection is kept.
KEEP_SECONDS = 60.0


class AsyncConnection:
    """Runs statements one after the other, each a transaction of its own. Opened when first needed."""

    def __init__(self, alias: str = "default") -> None:
        self._alias = alias
        self._connection: Any = None
        self._closer: asyncio.TimerHandle | None = None

    async def execute(self, sql: str, parameters: Sequence[Any]) -> None:
        """Returns when the statement is committed; never call it again before. Raises psycopg2's errors.

        After one that tells of a broken connection the next call opens another.
        """
        if self._closer is not None:
            self._closer.cancel()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._connection is None:
                    await self._open()
                cursor = self._connection.cursor()  # its name keeps it alive until the end
                cursor.execute(sql, parameters)
                await self._until_done()
        except (psycopg2.DataError, psycopg2.IntegrityError):
            raise
        except TimeoutError:
            self.close()
            raise psycopg2.OperationalError("The database does not answer") from None
        except BaseException:
            self.close()
            raise
        finally:
            self._closer = asyncio.get_running_loop().call_later(KEEP_SECONDS, self.close)

    def close(self) -> None:
        """Close the connection, if there is one; `execute` opens it again."""
        if self._closer is not None:
            self._closer.cancel()
            self._closer = None
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    async def _open(self) -> None:
        parameters = connections[self._alias].get_connection_params()
        del parameters["cursor_factory"]
        self._connection = psycopg2.connect(**parameters, async_=True)
        await self._until_done()

    async def _until_done(self) -> None:
        loop = asyncio.get_running_loop()
        while (state := self._connection.poll()) != extensions.POLL_OK:
            number, ready = self._connection.fileno(), loop.create_future()
            watch, forget = (
                (loop.add_reader, loop.remove_reader)
                if state == extensions.POLL_READ
                else (loop.add_writer, loop.remove_writer)
            )
            watch(number, _set, ready)
            try:
                await ready
            finally:
                forget(number)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
