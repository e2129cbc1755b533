"""``manage.py watch_cluster``: the process that tells the reconciler what changes in the cluster."""

import logging
import os
import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from deployments import cluster as clusters
from kube.errors import ClusterUnreachable
from monitoring.watching import Watcher

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0


class Command(BaseCommand):
    help = "Watches the cluster and wakes the reconciler. Ends on SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        while not stopping.is_set():
            try:
                cluster = clusters.current()
            except ClusterUnreachable as error:
                logger.warning("%s", error)
                stopping.wait(CHECK_SECONDS)
                continue
            watcher = Watcher(cluster)
            watcher.start()
            logger.info("Watching the cluster at %s", cluster.server)
            seen = _changed_at()
            # A new kubeconfig may name a new address or token: begin anew with it.
            while not stopping.wait(CHECK_SECONDS) and _changed_at() == seen:
                pass
            watcher.stop()


def _changed_at() -> int:
    try:
        return os.stat(settings.KUBECONFIG).st_mtime_ns if settings.KUBECONFIG else 0
    except OSError:
        return 0
