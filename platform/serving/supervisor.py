"""Several serving processes behind one socket, for ``PILOTHOUSE_PROCESSES`` above one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from .metrics import READY, RESTARTING, STARTING, SharedMetrics
from .observe import log
from .process import serve
from .settings import Settings

# A process that ends sooner than this after its start is not worth another try right away.
_QUICK_SECONDS = 5.0
_BACK_OFF_SECONDS = 1.0
_STOPPING = (signal.SIGTERM, signal.SIGINT)


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
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    for number in _STOPPING:
        signal.signal(number, stop)

    def start(process_id: int, restarted: bool = False) -> None:
        # With the signals held back, none comes between a fork and its entry here.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        children[_fork(settings, listener, shared, process_id, restarted)] = (process_id, time.monotonic())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)

    for process_id in range(settings.processes):
        if not stopping:
            start(process_id)
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
            start(process_id, restarted=True)
    return code


def _fork(settings: Settings, listener: socket.socket, shared: SharedMetrics, process_id: int, restarted: bool) -> int:
    """Fork one process; returns its pid. No threads and no user code exist yet on this side."""
    sys.stdout.flush()
    sys.stderr.flush()
    shared.part(process_id).reset(RESTARTING if restarted else STARTING)
    pid = os.fork()
    if pid:
        return pid
    for number in _STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    try:
        os._exit(serve(settings, listener, shared, process_id, restarted))
    finally:
        os._exit(1)


def _exit_status(status: int) -> int:
    """An exit code, or minus the signal's number."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
