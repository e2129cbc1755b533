"""One event loop in a thread of its own, for asynchronous work that synchronous code starts."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0


def loop() -> asyncio.AbstractEventLoop:
    """The process's background loop, started on first use; a forked child starts its own."""
    global _loop, _owner
    with _lock:
        if _loop is None or _loop.is_closed() or _owner != os.getpid():
            _loop, _owner = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="background-loop", daemon=True).start()
        return _loop


def submit(work: Coroutine[Any, Any, T]) -> "Future[T]":
    return asyncio.run_coroutine_threadsafe(work, loop())


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """The result of ``work``, waited for in this thread. Never call it from an event loop."""
    future = submit(work)
    try:
        return future.result(timeout)
    except TimeoutError:
        future.cancel()
        raise
