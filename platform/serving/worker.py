"""Runs user code away from the server's event loop: in the main thread, where a script would run.

Libraries that want the main thread (signal handlers, some GUIs and schedulers) work, one call at a time unless
`threads` says otherwise, and the server's own thread keeps answering health checks meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import sys
import threading
from typing import Any, Callable

from .errors import RequestError, from_user

# Threads that wait on coroutines of user code; each waiting call holds one.
ASYNC_CALLS = 128
CHUNKS_AHEAD = 64


class ClientGone(Exception):
    """The caller has hung up: what user code would still produce goes nowhere."""


class Call:
    """One call of user code and the way of its answer back to the event loop that made it."""

    def __init__(self, work: Callable[[Call], bytes], request_id: str, streaming: bool = False) -> None:
        self.work = work
        self.request_id = request_id
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[bytes] = self.loop.create_future()
        self.chunks: asyncio.Queue[Any] | None = asyncio.Queue(CHUNKS_AHEAD) if streaming else None
        self.cancelled = False
        self.cancelled_by_client = False

    def emit(self, chunk: Any) -> None:
        """Give one part of a streamed answer to the caller, from a worker thread. Waits when the caller is slow.

        Raises `ClientGone` once nobody listens.
        """
        if self.cancelled:
            raise ClientGone("The client has gone.")
        if self.chunks is None:
            return
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        sending = asyncio.run_coroutine_threadsafe(self.chunks.put(chunk), self.loop)
        if running is None:  # In a coroutine of the user's a wait would stop all others.
            sending.result()

    def cancel(self) -> None:
        """Forget the answer; a call still waiting is not made at all."""
        self.cancelled = True
        self.done.cancel()
        if self.chunks is not None:
            while not self.chunks.empty():  # Lets a worker go that waits to hand over a chunk.
                self.chunks.get_nowait()

    def execute(self) -> None:
        """Make the call, in a worker thread, and hand its outcome to the event loop."""
        if self.cancelled:
            return
        try:
            outcome: bytes | RequestError = self.work(self)
        except RequestError as error:
            outcome = error
        except ClientGone:
            return
        except BaseException as error:
            # SystemExit too: a request must not end the process that others are served by.
            outcome = from_user(error)
        if isinstance(outcome, RequestError) and outcome.trace:
            print(outcome.trace, end="", file=sys.stderr, flush=True)
        # After the server has stopped nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._finish, outcome)

    def _finish(self, outcome: bytes | RequestError) -> None:
        if self.done.done():
            return
        if isinstance(outcome, RequestError):
            self.done.set_exception(outcome)
            self.done.exception()  # Seen: a caller that has gone must not make it a warning.
        else:
            self.done.set_result(outcome)


class Worker:
    """The queue of calls and the threads that make them."""

    def __init__(self, threads: int, max_queue: int) -> None:
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads = threads
        self._max_queue = max_queue
        self._pending = 0
        self._user_loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()

    @property
    def pending(self) -> int:
        """Calls waiting or running."""
        return self._pending

    async def run(self, call: Call) -> bytes:
        """Queue a call and wait for its answer. Raises `RequestError`."""
        self.start(call)
        try:
            return await call.done
        except asyncio.CancelledError:
            call.cancel()
            raise

    def start(self, call: Call) -> None:
        """Queue a call, without waiting. Raises `RequestError` (503) when too many wait already."""
        if self._pending >= self._max_queue:
            raise RequestError(503, "Overloaded", f"{self._pending} requests wait already; try again later.")
        self._pending += 1
        call.done.add_done_callback(self._one_less)
        self._queue.put(call)

    def _one_less(self, _: Any) -> None:
        self._pending -= 1

    def resolve(self, value: Any) -> Any:
        """The value that a coroutine of user code comes to; other values as they are. From worker threads."""
        if inspect.isawaitable(value):
            assert self._user_loop is not None
            return asyncio.run_coroutine_threadsafe(_awaited(value), self._user_loop).result()
        return value

    def run_forever(self, asynchronous: bool) -> None:
        """Make calls until `stop`, in the calling (main) thread and as many more as are wanted."""
        if asynchronous:
            loop = self._user_loop = asyncio.SelectorEventLoop()
            asyncio.set_event_loop(loop)
            self._start_threads(ASYNC_CALLS)
            loop.call_soon(self._stop_loop_if_late)
            loop.run_forever()
            loop.close()
        else:
            self._start_threads(self._threads - 1)
            self._consume()

    def stop(self) -> None:
        """End `run_forever`. Calls that still wait are dropped: the server has already waited for them."""
        self._stopping.set()
        self._queue.put(None)
        if self._user_loop is not None:
            self._user_loop.call_soon_threadsafe(self._user_loop.stop)

    def _stop_loop_if_late(self) -> None:
        if self._stopping.is_set():
            assert self._user_loop is not None
            self._user_loop.stop()

    def _start_threads(self, count: int) -> None:
        for number in range(count):
            threading.Thread(target=self._consume, name=f"request-{number + 1}", daemon=True).start()

    def _consume(self) -> None:
        while True:
            call = self._queue.get()
            if call is None:
                self._queue.put(None)
                return
            call.execute()


async def _awaited(value: Any) -> Any:
    return await value
