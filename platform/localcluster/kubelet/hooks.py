"""Commands inside a running container: exec probes and lifecycle hooks."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from localcluster.kubelet import launch
from localcluster.kubelet.probes import Prober
from localcluster.kubelet.processes import StartError

if TYPE_CHECKING:
    from localcluster.kubelet.containers import Container


async def run_command(
    container: Container,
    argv: list[str],
    timeout: float,  # noqa: ASYNC109 - the command is killed, not only left
) -> tuple[int | None, str]:
    """Run a command; (exit code, output), code None when it took too long."""
    shim = container.shim
    if shim is None:
        return 1, "the container is not running"
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        config = launch.exec_configuration(container, shim, argv, tty=False)
        answers = container.pod.host.shims.execute(config, null, writer, writer)
    except StartError as error:
        os.close(reader)
        return 1, str(error)
    finally:
        os.close(null)
        os.close(writer)
    return await launch.finish_command(answers, reader, timeout)


async def run_hook(container: Container, kind: str, seconds: float) -> str | None:
    """Run a lifecycle hook; what went wrong, None when nothing did (or there is none)."""
    hook = (container.spec.get("lifecycle") or {}).get(kind) or {}
    if seconds <= 0:
        return None
    if hook.get("sleep"):
        await asyncio.sleep(min(seconds, float(hook["sleep"].get("seconds", 0))))
    elif hook.get("exec"):
        code, output = await run_command(container, hook["exec"]["command"], seconds)
        if code != 0:
            return output or f"exit code {code}"
    elif hook.get("httpGet"):
        spec = {"httpGet": hook["httpGet"], "timeoutSeconds": seconds}
        pod = container.pod
        address = pod.address or pod.host.address
        result = await Prober("Liveness", spec, container.spec, address, pod.host.session, container.command).check()
        return None if result.success else result.text
    return None
