"""`python -m localcluster.scheduler --kubeconfig FILE`: the scheduler as a process."""

from __future__ import annotations

import argparse
import asyncio
import logging

from localcluster.client import Client
from localcluster.scheduler.loop import Scheduler
from localcluster.signals import run_until_signalled


async def run(kubeconfig: str) -> None:
    """Schedule pods of the cluster of a kubeconfig until cancelled."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="kube-scheduler") as client:
        await Scheduler(client).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcluster.scheduler", description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(run_until_signalled(run(arguments.kubeconfig)))


if __name__ == "__main__":
    main()
