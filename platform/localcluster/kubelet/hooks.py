"""Commands inside a running container: exec probes and lifecycle hooks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable

from localcluster.client import Object
from localcluster.kubelet.probes import Prober, Target
from localcluster.kubelet.processes import StartError, stream_of

_OUTPUT = 10240
# Starts a command with (stdin, stdout, stderr); its pid (or error) and exit code come as JSON lines.
Execute = Callable[[list[str], tuple[int, int, int]], asyncio.StreamReader]


async def run_command(
    execute: Execute,
    argv: list[str],
    timeout: float,  # noqa: ASYNC109 - the command is killed, not only left
) -> tuple[int | None, str]:
    """Run a command; (exit code, output), code None when it took too long."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        answers = execute(argv, (null, writer, writer))
    except StartError as error:
        os.close(reader)
        return 1, str(error)
    finally:
        os.close(null)
        os.close(writer)
    return await _finish(answers, reader, timeout)


async def _finish(
    answers: asyncio.StreamReader,
    output: int,
    timeout: float,  # noqa: ASYNC109 - the command is killed, not only left
) -> tuple[int | None, str]:
    """Wait for a command: (exit code, output), code None when it was killed for taking too long."""
    stream = stream_of(output)
    pid: int | None = None

    async def work() -> tuple[int, str]:
        nonlocal pid
        first = json.loads(await answers.readline() or b"{}")
        if "error" in first:
            return 126, first["error"]
        pid = first.get("pid")
        text = b""
        while data := await stream.read(65536):
            text = (text + data)[:_OUTPUT]
        last = json.loads(await answers.readline() or b'{"exitCode": 1}')
        return last["exitCode"], text.decode("utf-8", "replace")

    try:
        return await asyncio.wait_for(work(), timeout)
    except TimeoutError:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return None, ""


async def run_hook(hook: Object, target: Target, seconds: float) -> str | None:
    """Run a lifecycle hook (or {}); what went wrong, None when nothing did."""
    if seconds <= 0:
        return None
    if hook.get("sleep"):
        await asyncio.sleep(min(seconds, float(hook["sleep"].get("seconds", 0))))
    elif hook.get("exec"):
        code, output = await target.command(hook["exec"]["command"], seconds)
        if code != 0:
            return output or f"exit code {code}"
    elif hook.get("httpGet"):
        spec = {"httpGet": hook["httpGet"], "timeoutSeconds": seconds}
        result = await Prober("Liveness", spec, target).check()
        return None if result.success else result.text
    return None
