"""`python -m localcluster.controllers --kubeconfig FILE`: all controllers in one process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import ssl
from typing import Any

from localcluster.client import Client, run_forever
from localcluster.controllers.autoscaler import PERIOD, AutoscalerController
from localcluster.controllers.context import Context
from localcluster.controllers.deployment import DeploymentController
from localcluster.controllers.disruption import DisruptionController
from localcluster.controllers.endpoints import EndpointsController
from localcluster.controllers.garbage import GarbageCollector
from localcluster.controllers.job import JobController
from localcluster.controllers.namespaces import NamespaceController, NamespaceDefaultsController
from localcluster.controllers.quota import QuotaController
from localcluster.controllers.replicaset import ReplicaSetController
from localcluster.controllers.upkeep import EventExpiry, NodeLifecycleController
from localcluster.signals import run_until_signalled


def controllers(context: Context, root_ca: str, autoscaler_period: float = PERIOD) -> list[Any]:
    """Every controller, registered on the context's watchers; each has a `queue` to run."""
    return [
        NamespaceDefaultsController(context, root_ca),
        NamespaceController(context),
        GarbageCollector(context),
        ReplicaSetController(context),
        DeploymentController(context),
        EndpointsController(context),
        JobController(context),
        AutoscalerController(context, autoscaler_period),
        QuotaController(context),
        DisruptionController(context),
        NodeLifecycleController(context),
        EventExpiry(context),
    ]


def root_certificates(client: Client) -> str:
    """The PEM certificates that verify this API server; none when it is reached without TLS."""
    if client.connection.tls is None:
        return ""
    ders = client.connection.tls.get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in ders)


async def run(kubeconfig: str, autoscaler_period: float) -> None:
    """Run all controllers against the cluster of a kubeconfig until cancelled."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="kube-controller-manager") as client:
        context = Context(client)
        parts = controllers(context, root_certificates(client), autoscaler_period)

        async def work() -> None:
            # Acting on half a list would delete what the other half still holds.
            await context.synced()
            await run_forever(*(part.queue.run() for part in parts))

        await run_forever(work(), *context.parts())


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcluster.controllers", description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--autoscaler-period", type=float, default=PERIOD, help="seconds between looks at autoscalers")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(run_until_signalled(run(arguments.kubeconfig, arguments.autoscaler_period)))


if __name__ == "__main__":
    main()
