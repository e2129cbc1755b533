"""One serving process: HTTP in a thread of its own, user code in the main thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from .app import make_app
from .errors import StartFailed, explain
from .handlers import Handler
from .loading import make_handler
from .metrics import DRAINING, RESTARTING, STARTING, ProcessMetrics, SharedMetrics
from .observe import log
from .service import Service
from .settings import Settings
from .worker import Worker

# Longer than clients keep idle connections, so that none is closed here just as a request is sent on it.
_KEEP_ALIVE_SECONDS = 75


def serve(
    settings: Settings, listener: socket.socket, shared: SharedMetrics, process_id: int, restarted: bool = False
) -> int:
    """Load the package, serve it until SIGTERM and drain. Returns the exit code; runs in the main thread.

    A process that is `restarted` beside others that serve takes no connection before it has loaded.
    """
    _line_buffer_output()
    metrics = shared.part(process_id)
    metrics.reset(RESTARTING if restarted else STARTING)
    worker = Worker(settings.threads, settings.max_queue)
    handler = make_handler(settings, process_id, worker.resolve)
    handler.loading = metrics.loading
    service = Service(settings, handler, worker, shared, metrics)
    http = HttpThread(service, listener)
    if not restarted:
        http.start()
    try:
        started = time.perf_counter()
        handler.load()
        seconds = time.perf_counter() - started
        metrics.loaded(seconds)
        if restarted:
            http.start()
        log("info", "ready", init_seconds=round(seconds, 3), process=process_id)
        worker.run_forever(getattr(handler, "asynchronous", False))
    except StartFailed as error:
        explain(error)
        _leave(1, handler)
    _leave(http.exit_code, handler)
    return http.exit_code


def _leave(code: int, handler: Handler) -> None:
    """End at once. Threads of user code that never end must not keep the pod from ending."""
    handler.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _line_buffer_output() -> None:
    """What user code prints shows in the log at once, also when it goes to a pipe."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")


def _signals_to_socket() -> socket.socket:
    """A socket that gets one byte per signal, at once, even while the main thread is deep in a long call."""
    receiving, sending = socket.socketpair()
    receiving.setblocking(False)
    sending.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    signal.set_wakeup_fd(sending.detach(), warn_on_full_buffer=False)
    return receiving


class HttpThread(threading.Thread):
    """uvicorn, with drain: on SIGTERM not ready any more, but serving for `drain_seconds` and what then runs."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        super().__init__(name="http", daemon=True)
        self._service = service
        self._listener = listener
        self.exit_code = 0

    def start(self) -> None:
        """Begin to serve and to listen to signals. From the main thread, which alone may set their handlers."""
        self._wakeup = _signals_to_socket()
        super().start()

    def run(self) -> None:
        """Serve until drained, then end the worker."""
        loop = _new_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(loop))
        except BaseException as error:  # Whatever it is: without this thread nothing is served.
            print(f"The HTTP server failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self.exit_code = 1
            if self._service.metrics.state < DRAINING:
                os._exit(1)
        finally:
            self._service.worker.stop()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        import uvicorn

        config = uvicorn.Config(
            make_app(self._service),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        server = uvicorn.Server(config)
        # Kept: a task without a reference may be collected.
        self._draining: asyncio.Task[None] | None = None

        def on_signal() -> None:
            try:
                numbers = self._wakeup.recv(64)
            except BlockingIOError:
                return
            if set(numbers) & {signal.SIGTERM, signal.SIGINT} and self._draining is None:
                self._draining = loop.create_task(self._drain(server))

        loop.add_reader(self._wakeup.fileno(), on_signal)
        await server.serve(sockets=[self._listener])

    async def _drain(self, server: Any) -> None:
        metrics: ProcessMetrics = self._service.metrics
        was_loaded = metrics.state > 0
        metrics.state = DRAINING
        if not was_loaded:
            # Still loading: nothing is in flight, and the main thread may be busy for minutes.
            log("info", "stopped", reason="told to stop while loading")
            os._exit(0)
        seconds = self._service.settings.drain_seconds
        log("info", "draining", seconds=seconds, in_flight=metrics.in_flight)
        await asyncio.sleep(seconds)
        server.should_exit = True


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
