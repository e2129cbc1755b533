"""A few threads for database work of asynchronous code: psycopg2 blocks, and each thread holds a connection."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection

T = TypeVar("T")

THREADS = 4
# How long a thread keeps its connection; those of ordinary views end with their request.
KEEP_SECONDS = 60

_pool: ThreadPoolExecutor | None = None
_owner = 0


def _executor() -> ThreadPoolExecutor:
    global _pool, _owner
    if _pool is None or _owner != os.getpid():
        _pool, _owner = ThreadPoolExecutor(THREADS, thread_name_prefix="database"), os.getpid()
    return _pool


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """The result of a function that uses the database, without blocking the event loop."""

    def call() -> T:
        connection.close_if_unusable_or_obsolete()
        fresh = connection.connection is None
        try:
            return function(*args)
        finally:
            if fresh:
                connection.close_at = time.monotonic() + KEEP_SECONDS

    return await asyncio.get_running_loop().run_in_executor(_executor(), call)


def shut_down() -> None:
    """Closes the threads' connections and ends the threads; the next call starts new ones."""
    global _pool
    if _pool is None:
        return
    everyone = threading.Barrier(THREADS)

    def close() -> None:
        everyone.wait()  # so that no thread closes twice while another keeps its connection
        connection.close()

    for done in [_pool.submit(close) for _ in range(THREADS)]:
        done.result()
    _pool.shutdown(wait=True)
    _pool = None
