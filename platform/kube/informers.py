"""List, then watch: the official client's informer over plain dicts, with a back-off and a limit on silence."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import ADDED, DELETED, ERROR, MODIFIED, SharedInformer

from kube.connect import Cluster, Object, path_of
from kube.errors import KubeError

logger = logging.getLogger(__name__)
# It logs a traceback for every lost connection; we say it in a line.
logging.getLogger("kubernetes.informer.informer").setLevel(logging.CRITICAL)

# The server ends a watch after this long and everything is listed anew: a watch is never trusted to be complete.
RESYNC_SECONDS = 300
LONGEST_PAUSE = 5.0

Handler = Callable[[str, Object], None]


def _list_function(cluster: Cluster, kind: str) -> Callable[..., Any]:
    def call(
        watch: bool = False,
        _preload_content: bool = True,
        resource_version: str | None = None,
        timeout_seconds: int = RESYNC_SECONDS,
        label_selector: str = "",
    ) -> Any:
        """Lists or watches all objects of the kind.

        :rtype: object
        """
        if not watch:
            items, version = cluster.find_with_version(kind, labels=label_selector)
            return SimpleNamespace(items=items, metadata=SimpleNamespace(resource_version=version))
        query: dict[str, Any] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": timeout_seconds,
            "resourceVersion": resource_version,
        }
        if label_selector:
            query["labelSelector"] = label_selector
        limits = urllib3.Timeout(connect=5, read=timeout_seconds + 30)
        try:
            return cluster.stream("GET", path_of(kind), query=query, timeout=limits)
        except KubeError as error:
            raise ApiException(status=error.status, reason=error.message) from error

    return call


class Informer:
    """Follows all objects of a kind. ``handler`` gets ("ADDED" | "MODIFIED" | "DELETED", object) in one thread.

    Goes on through lost connections; the pause between tries grows to `LONGEST_PAUSE` seconds.
    """

    def __init__(self, cluster: Cluster, kind: str, handler: Handler, labels: str = "") -> None:
        self.kind = kind
        self._stopped = threading.Event()
        self._failures = 0
        self._handler = handler
        self._informer = SharedInformer(
            _list_function(cluster, kind), label_selector=labels or None, resync_period=RESYNC_SECONDS
        )
        for change in (ADDED, MODIFIED, DELETED):
            self._informer.add_event_handler(change, self._deliver(change))
        self._informer.add_event_handler(ERROR, self._pause)

    def _deliver(self, change: str) -> Callable[[Object], None]:
        def deliver(obj: Object) -> None:
            self._failures = 0
            self._handler(change, obj)

        return deliver

    def _pause(self, error: object) -> None:
        # Handlers run in the informer's thread, so waiting here holds back its next try.
        self._failures += 1
        logger.warning("The watch of %s broke off: %s", self.kind, str(error).split("\n")[0][:200])
        self._stopped.wait(min(0.2 * 2**self._failures, LONGEST_PAUSE))

    @property
    def objects(self) -> list[Object]:
        return list(self._informer.cache.list())

    def start(self) -> None:
        self._informer.start()

    def stop(self) -> None:
        self._stopped.set()
        self._informer.stop()
