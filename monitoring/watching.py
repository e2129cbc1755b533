"""Turning the cluster's changes into passes over the versions they belong to."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from deployments import triggers
from deployments.models import DeploymentVersion, EnvironmentBuild
from deployments.services.gpu import inventory
from kube import specs
from kube.connect import Cluster, Object
from kube.informers import Informer
from kube.objects import labels_of

logger = logging.getLogger(__name__)

# The first change is acted on at once, those that follow it together.
FOLD_SECONDS = 0.15

BUILD = "build:"
NODES = "nodes"


class Debouncer:
    """Calls ``act(key)`` soon after `touch(key)`: at once after a quiet time, else once for all of `FOLD_SECONDS`."""

    def __init__(self, act: Callable[[str], None]) -> None:
        self._act = act
        self._condition = threading.Condition()
        self._due: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="debouncer", daemon=True)
        self._thread.start()

    def touch(self, key: str) -> None:
        with self._condition:
            if key not in self._due:
                self._due[key] = max(time.monotonic(), self._last.get(key, -1e9) + FOLD_SECONDS)
                self._condition.notify()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                now = time.monotonic()
                ready = [key for key, due in self._due.items() if due <= now]
                if not ready:
                    if self._stopped:
                        return
                    pause = min(self._due.values()) - now if self._due else None
                    self._condition.wait(pause)
                    continue
                for key in ready:
                    del self._due[key]
                    self._last[key] = now
                if len(self._last) > 10_000:
                    self._last = {key: at for key, at in self._last.items() if now - at < FOLD_SECONDS}
            for key in ready:
                try:
                    self._act(key)
                except Exception:
                    # The sweep comes by; one broken key must not end the watch of all others.
                    logger.exception("Could not act on a change of %s", key)


class Watcher:
    """Follows pods, deployments and events that are ours."""

    def __init__(self, cluster: Cluster) -> None:
        self._debouncer = Debouncer(self._act)
        # uid of a pod or a replica set's owner -> what to wake, so that events find their version.
        self._owners: dict[tuple[str, str], str] = {}
        self._informers = [
            Informer(cluster, "Pod", self._pod, specs.SELECTOR),
            Informer(cluster, "Deployment", self._workload, specs.SELECTOR),
            Informer(cluster, "Event", self._event),
        ]
        self._nodes = Informer(cluster, "Node", self._node)
        self._informers.append(self._nodes)

    def start(self) -> None:
        for informer in self._informers:
            informer.start()

    def stop(self) -> None:
        for informer in self._informers:
            informer.stop()
        self._debouncer.stop()

    def _act(self, key: str) -> None:
        if key == NODES:
            take_stock(self._nodes.objects)
        else:
            wake(key)

    def _node(self, change: str, obj: Object) -> None:
        self._debouncer.touch(NODES)

    def _pod(self, change: str, obj: Object) -> None:
        key = key_of(obj)
        if not key:
            return
        place = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if change == "DELETED":
            self._owners.pop(place, None)
        else:
            self._owners[place] = key
        self._debouncer.touch(key)

    def _workload(self, change: str, obj: Object) -> None:
        key = key_of(obj)
        if key:
            self._debouncer.touch(key)

    def _event(self, change: str, obj: Object) -> None:
        about = obj.get("involvedObject") or {}
        key = self._owners.get((about.get("namespace", ""), about.get("name", "")))
        if key and change != "DELETED":
            self._debouncer.touch(key)


def key_of(obj: Object) -> str:
    """What an object of ours belongs to: a version's id, ``build:`` and a hash's beginning, or nothing."""
    labels = labels_of(obj)
    version = labels.get(specs.VERSION_ID, "")
    if version:
        return version
    build = labels.get(specs.BUILD, "")
    return BUILD + build if build else ""


def take_stock(nodes: Sequence[Object]) -> None:
    """Bring the inventory of GPUs in line with all nodes; claims are looked at anew when it changed."""
    close_old_connections()
    if inventory.update(settings.PILOTHOUSE_CLUSTER_NAME, nodes, timezone.now()):
        triggers.schedule_gpus()


def wake(key: str) -> None:
    """Queue passes over the version, or over those that wait for the build."""
    if not key.startswith(BUILD):
        try:
            uuid.UUID(key)
        except ValueError:
            return
        triggers.wake(key)
        return
    close_old_connections()
    builds = EnvironmentBuild.objects.filter(hash__startswith=key.removeprefix(BUILD))
    for version_id in DeploymentVersion.objects.filter(target_revision__environment_build__in=builds).values_list(
        "id", flat=True
    ):
        triggers.wake(version_id)
