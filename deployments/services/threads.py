"""A few threads for database work of asynchronous code: psycopg2 blocks, and each thread holds a connection."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import close_old_connections

T = TypeVar("T")

THREADS = 4

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
        close_old_connections()
        return function(*args)

    return await asyncio.get_running_loop().run_in_executor(_executor(), call)
