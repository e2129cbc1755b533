"""Ending a container's processes: its stop signal, then SIGKILL when its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable

from localcluster.client import Object
from localcluster.kubelet.processes import Shim


async def terminate(shim: Shim, container: Object, deadline: Callable[[], float]) -> None:
    """Send the stop signal; SIGKILL at `deadline()` of the monotonic clock, which may come closer meanwhile."""
    shim.signal(_stop_signal(container))
    ended = asyncio.ensure_future(shim.wait())
    try:
        while not ended.done():
            left = deadline() - time.monotonic()
            if left <= 0:
                shim.kill()
                await ended
                return
            # A second DELETE may bring the deadline nearer, so look again now and then.
            await asyncio.wait({ended}, timeout=min(left, 0.1))
    finally:
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ended


def _stop_signal(container: Object) -> int:
    name = (container.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
    return getattr(signal, name, signal.SIGTERM)
