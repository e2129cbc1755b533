"""`python -m localcluster.kubelet --kubeconfig FILE --data DIR`: the kubelet of one machine, as a process."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import logging
import os
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from localcluster.client import Client
from localcluster.kubelet.agent import Agent
from localcluster.kubelet.cgroups import Cgroups
from localcluster.kubelet.host import VOLUMES_PERIOD, Host
from localcluster.kubelet.images import Images
from localcluster.kubelet.isolation import Isolation, probe
from localcluster.kubelet.network import Addresses
from localcluster.kubelet.nodes import NodeKeeper, NodeSpec, machine_memory, parse_simulated
from localcluster.kubelet.processes import ShimServer
from localcluster.kubelet.registry import Registry
from localcluster.kubelet.server import Server
from localcluster.kubelet.stats import PERIOD, Stats
from localcluster.resources import NODES, SERVICES
from localcluster.signals import run_until_signalled
from localcluster.watcher import Watcher

log = logging.getLogger("localcluster.kubelet")

_ADDRESS = "127.0.0.1"
_VERSION = "v1.36.2"
_LAST_WORDS = 1.0  # seconds for events that are still to be written when the kubelet ends


@dataclass(frozen=True, slots=True)
class Options:
    kubeconfig: str
    data: Path
    specs: list[NodeSpec]
    token: str
    keep_pods: bool
    metrics_period: float
    volumes_period: float
    isolation: Isolation | None = None


async def run(options: Options) -> None:
    """Run the kubelet until cancelled, then end its pods (or leave them, with `keep_pods`)."""
    options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    isolation = options.isolation or probe(options.data)
    log.info("isolation of containers: %s", isolation)
    if isolation == "none":
        log.warning("this machine permits no namespaces: pods run as %s and see its files", getpass.getuser())
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client.from_kubeconfig(options.kubeconfig, user_agent="kubelet"))
        session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        registry = await stack.enter_async_context(Registry())
        services = Watcher(client, SERVICES)
        host = Host(
            client=client,
            data=options.data,
            address=_ADDRESS,
            isolation=isolation,
            shims=ShimServer(),
            images=Images(registry),
            addresses=Addresses(options.data),
            cgroups=Cgroups(options.data),
            session=session,
            services=services,
            volumes_period=options.volumes_period,
        )
        stack.callback(host.shims.close)
        host.shims.start()
        keeper = NodeKeeper(client, options.specs, _ADDRESS, _VERSION)
        agent = Agent(host, keeper)
        stats = Stats(lambda: agent.workers.values(), options.metrics_period)
        server = Server(agent, stats, options.token)
        keeper.port = await server.start(_ADDRESS, options.data / "port")
        stack.push_async_callback(server.stop)
        await keeper.register()
        nodes = Watcher(client, NODES, handler=keeper.on_node)
        try:
            async with asyncio.TaskGroup() as group:
                for part in (services.run(), nodes.run(), agent.pods.run(), keeper.run(), stats.run()):
                    group.create_task(part)
                await services.synced()
                await agent.begin()
        finally:
            await agent.leave(options.keep_pods)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(r.flush() for r in host.recorders.values())), _LAST_WORDS)
            for task in list(host.tasks):
                task.cancel()
            await asyncio.gather(*host.tasks, return_exceptions=True)
            if not options.keep_pods:
                host.cgroups.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcluster.kubelet", description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory for pods, volumes and logs")
    parser.add_argument("--node", default=socket.gethostname().lower(), help="name of the node")
    parser.add_argument("--cpus", default=str(os.cpu_count() or 1), help="CPUs the node offers")
    parser.add_argument("--memory", default=machine_memory(), help="memory the node offers, as 8Gi")
    parser.add_argument("--simulated-nodes", default="", metavar="SPEC", help=parse_simulated.__doc__)
    parser.add_argument("--keep-pods", action="store_true", help="leave pods running for the next kubelet")
    parser.add_argument(
        "--isolation",
        choices=("auto", "root", "user", "none"),
        default="auto",
        help="how containers are shut off from the machine; auto takes the strongest that works",
    )
    parser.add_argument("--metrics-period", type=float, default=PERIOD, help="seconds between samples of what pods use")
    text = "seconds between updates of volumes made from objects"
    parser.add_argument("--volumes-period", type=float, default=VOLUMES_PERIOD, help=text)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s kubelet %(levelname)s %(message)s")
    try:
        simulated = parse_simulated(arguments.simulated_nodes)
    except ValueError as error:
        parser.error(str(error))
    options = Options(
        kubeconfig=arguments.kubeconfig,
        data=arguments.data.resolve(),
        specs=[NodeSpec(arguments.node, arguments.cpus, arguments.memory), *simulated],
        token=os.environ.get("LOCALCLUSTER_NODE_TOKEN", ""),
        keep_pods=arguments.keep_pods,
        metrics_period=arguments.metrics_period,
        volumes_period=arguments.volumes_period,
        isolation=None if arguments.isolation == "auto" else arguments.isolation,
    )
    asyncio.run(run_until_signalled(run(options)))


if __name__ == "__main__":
    main()
