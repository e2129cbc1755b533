"""Ending a part of the cluster on SIGTERM or SIGINT, and with its parent."""

from __future__ import annotations

import asyncio
import ctypes
import signal
from collections.abc import Coroutine
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the parent process dies (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


async def run_until_signalled(part: Coroutine[Any, Any, None]) -> None:
    """Run `part`; SIGTERM and SIGINT cancel it and are waited for, so that it can tidy up."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(part)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return
