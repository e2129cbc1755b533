"""`python -m localcluster --data DIR`: the whole embedded cluster, each part a process of its own.

A part that dies is started again. SIGTERM stops the parts in reverse order: the kubelet first, while there
is still an API server to report to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from localcluster.client import ApiError, Client
from localcluster.resources import NODES, SERVICEACCOUNTS
from localcluster.signals import die_with_parent

log = logging.getLogger("localcluster")

_STOP_SECONDS = {"kubelet": 45.0, "apiserver": 10.0}
_READY_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


@dataclass
class Part:
    """One process of the cluster."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    pause: float = _FIRST_PAUSE
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Start the process; its standard output is read for the word `listening`."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"localcluster.{self.name}",
            *self.arguments,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent,  # however this process ends
            start_new_session=True,
        )

    async def run(self) -> None:
        """Keep the process running until cancelled."""
        while True:
            started = time.monotonic()
            await self.start()
            assert self.process is not None
            assert self.process.stdout is not None
            async for line in self.process.stdout:
                if line.startswith((b"listening", b"ready")):
                    self.ready.set()
                else:
                    sys.stderr.buffer.write(line)
                    sys.stderr.flush()
            code = await self.process.wait()
            if time.monotonic() - started > 10:
                self.pause = _FIRST_PAUSE
            log.warning("%s ended with code %s; starting it again in %.1f s", self.name, code, self.pause)
            await asyncio.sleep(self.pause)
            self.pause = min(_LONGEST_PAUSE, self.pause * 2)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help in time."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS.get(self.name, 10.0))
        except TimeoutError:
            log.warning("%s does not stop; killing it", self.name)
            process.kill()
            await process.wait()


def _parts(arguments: argparse.Namespace, data: Path) -> list[Part]:
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    trusted = environment | {"LOCALCLUSTER_NODE_TOKEN": secrets.token_urlsafe(32)}
    kubeconfig = ["--kubeconfig", str(data / "apiserver" / "component.kubeconfig")]
    node = ["--data", str(data / "kubelet"), "--node", arguments.node]
    if arguments.node_cpus is not None:
        node += ["--cpus", str(arguments.node_cpus)]
    if arguments.node_memory is not None:
        node += ["--memory", arguments.node_memory]
    if arguments.simulated_nodes:
        node += ["--simulated-nodes", arguments.simulated_nodes]
    if arguments.keep_pods:
        node.append("--keep-pods")
    if arguments.metrics_period is not None:
        node += ["--metrics-period", str(arguments.metrics_period)]
    if arguments.volumes_period is not None:
        node += ["--volumes-period", str(arguments.volumes_period)]
    controllers = []
    if arguments.autoscaler_period is not None:
        controllers += ["--autoscaler-period", str(arguments.autoscaler_period)]
    api = ["--data", str(data / "apiserver"), "--port", str(arguments.port)]
    return [
        Part("apiserver", api, trusted),
        Part("controllers", [*kubeconfig, *controllers], environment),
        Part("scheduler", kubeconfig, environment),
        Part("kubelet", kubeconfig + node, trusted),
    ]


async def _is_usable(client: Client) -> bool:
    """Whether pods can be made and run: a service account to make them with, a node to run them on."""
    if await client.get_or_none(SERVICEACCOUNTS, "default", "default") is None:
        return False
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for node in await client.list(NODES)
        for condition in node.get("status", {}).get("conditions") or ()
    )


async def _wait_usable(kubeconfig: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    async with Client.from_kubeconfig(kubeconfig) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, ApiError):
                if await _is_usable(client):
                    return
            await asyncio.sleep(0.02)
    log.warning("no node is ready after %.0f s; pods will wait until one is", _READY_SECONDS)


def _publish(source: Path, target: Path) -> None:
    """Copy the administrator's kubeconfig to where the caller wants it, in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, temporary)
    temporary.chmod(0o600)
    temporary.replace(target)


async def run(arguments: argparse.Namespace) -> None:
    """Run all parts until a signal asks to stop."""
    data: Path = arguments.data
    parts = _parts(arguments, data)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(parts[0].run())]
    asked = asyncio.create_task(stopping.wait())
    try:
        api = asyncio.create_task(parts[0].ready.wait())
        await asyncio.wait({api, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            tasks += [asyncio.create_task(part.run()) for part in parts[1:]]
            usable = asyncio.create_task(_wait_usable(data / "apiserver" / "component.kubeconfig"))
            await asyncio.wait({usable, asked}, return_when=asyncio.FIRST_COMPLETED)
            usable.cancel()
            if not stopping.is_set():
                target = arguments.kubeconfig or data / "kubeconfig"
                _publish(data / "apiserver" / "admin.kubeconfig", target)
                print(f"ready {target}", flush=True)
        api.cancel()
        await stopping.wait()
    finally:
        for task in tasks:
            task.cancel()
        for part in reversed(parts):
            await part.stop()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcluster", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the store, logs and volumes")
    parser.add_argument("--port", type=int, default=0, help="API server's port on 127.0.0.1; 0 for a free one")
    parser.add_argument("--kubeconfig", type=Path, help="where to write the kubeconfig (default: DATA/kubeconfig)")
    parser.add_argument("--node", default="localcluster", help="name of the node that this machine is")
    parser.add_argument("--node-cpus", type=float, help="CPUs the node offers (default: the machine's)")
    parser.add_argument("--node-memory", help="memory the node offers, such as 8Gi (default: the machine's)")
    parser.add_argument("--simulated-nodes", help="extra simulated nodes; see `localcluster.kubelet --help`")
    parser.add_argument("--autoscaler-period", type=float, help="seconds between looks at autoscalers (default: 15)")
    parser.add_argument("--metrics-period", type=float, help="seconds between samples of what pods use (default: 10)")
    parser.add_argument("--volumes-period", type=float, help="seconds between updates of mounted objects (default: 30)")
    parser.add_argument("--keep-pods", action="store_true", help="leave pods running for the next start to adopt")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    arguments.data = arguments.data.resolve()
    arguments.data.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
