"""Several serving processes behind one socket, for ``PILOTHOUSE_PROCESSES`` above one."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from .metrics import READY, SharedMetrics
from .observe import log
from .process import serve
from .settings import Settings

# A process that ends sooner than this after its start is not worth another try right away.
_QUICK_SECONDS = 5.0
_BACK_OFF_SECONDS = 1.0


def supervise(settings: Settings, listener: socket.socket, shared: SharedMetrics) -> int:
    """Run the processes until SIGTERM; returns the exit code.

    A process that cannot load ends them all with code 1: the instance would never be ready. One that dies
    later is started again, and the others serve meanwhile.
    """
    children: dict[int, tuple[int, float]] = {}
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for pid in list(children):
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for process_id in range(settings.processes):
        children[_start(settings, listener, shared, process_id)] = (process_id, time.monotonic())
    # The processes alone accept; a copy here would hold connections that nobody answers.
    code = 0
    while children:
        pid, status = os.wait()
        process_id, started = children.pop(pid, (-1, 0.0))
        if process_id < 0 or stopping:
            continue
        was_ready = shared.states()[process_id] >= READY
        if not was_ready:
            code = 1
            stop(signal.SIGTERM, None)
            continue
        log("error", "process ended", process=process_id, status=_exit_status(status))
        if time.monotonic() - started < _QUICK_SECONDS:
            time.sleep(_BACK_OFF_SECONDS)
        if not stopping:
            children[_start(settings, listener, shared, process_id)] = (process_id, time.monotonic())
    return code


def _start(settings: Settings, listener: socket.socket, shared: SharedMetrics, process_id: int) -> int:
    """Fork one process; returns its pid. No threads and no user code exist yet on this side."""
    sys.stdout.flush()
    sys.stderr.flush()
    shared.part(process_id).reset()
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        os._exit(serve(settings, listener, shared, process_id))
    finally:
        os._exit(1)


def _exit_status(status: int) -> int:
    """An exit code, or minus the signal's number."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
