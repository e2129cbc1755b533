"""``manage.py collect_logs``: the process that keeps the lines of every instance."""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from deployments import cluster as clusters
from kube.errors import ClusterUnreachable
from monitoring import logstore
from monitoring.collecting import Collector

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0


class Command(BaseCommand):
    help = "Keeps the log lines of all instances. Ends on SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(_collect())


async def _collect() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    while not stopping.is_set():
        try:
            cluster = clusters.current()
        except ClusterUnreachable as error:
            logger.warning("%s", error)
            await _pause(stopping)
            continue
        collector = Collector(cluster, logstore.current())
        work = asyncio.create_task(collector.run())
        logger.info("Collecting logs of the cluster at %s", cluster.server)
        seen = _changed_at()
        # A new kubeconfig may name a new address or token: begin anew with it.
        while not stopping.is_set() and not work.done() and _changed_at() == seen:
            await _pause(stopping)
        collector.stop()
        await work


async def _pause(stopping: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), CHECK_SECONDS)


def _changed_at() -> int:
    try:
        return os.stat(settings.KUBECONFIG).st_mtime_ns if settings.KUBECONFIG else 0
    except OSError:
        return 0
