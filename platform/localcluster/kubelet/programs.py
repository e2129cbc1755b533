"""Programs of the machine that the kubelet asks or lets work: none outlives who waits for it."""

from __future__ import annotations

import asyncio
import contextlib


async def output_of(*command: str, seconds: float) -> tuple[int, str]:
    """(exit code, what it printed); -1 when it cannot be started or takes longer than `seconds`.

    A caller that is cancelled, or has waited long enough, leaves no process behind.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return -1, str(error)
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        return -1, f"{command[0]} did not answer in {seconds:.0f} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, printed.decode("utf-8", "replace")
