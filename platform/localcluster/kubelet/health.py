"""The probes of a running container: when it has started, whether it is ready, when it must be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from localcluster.client import Object
from localcluster.kubelet.probes import Kind, Prober, Target
from localcluster.kubelet.status import View


class Watched(Protocol):
    """Who is told what probes find."""

    def changed(self) -> None:
        """`started` or `ready` has turned."""

    def unhealthy(self, text: str) -> None:
        """A probe has failed."""

    def doomed(self, kind: str, probe: Object) -> None:
        """A startup or liveness probe has failed too often: the container is to be killed."""


class Health:
    """Runs the probes of one container between `begin` and `end`, and keeps `started` and `ready` of its view."""

    def __init__(self, view: View, watched: Watched) -> None:
        self._view = view
        self._watched = watched
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, target: Target) -> None:
        """The container runs."""
        view, spec = self._view, self._view.spec
        view.started = not spec.get("startupProbe")
        plain_init = view.init and not view.is_sidecar
        view.ready = view.started and not spec.get("readinessProbe") and not plain_init
        self._watched.changed()
        if spec.get("startupProbe"):
            self._probe("Startup", target, self._on_startup(target))
        else:
            self._begin_later_probes(target)

    def end(self) -> None:
        """The container runs no more: nothing is asked, and nothing told, any longer."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def _begin_later_probes(self, target: Target) -> None:
        if self._view.spec.get("readinessProbe"):
            self._probe("Readiness", target, self._on_readiness)
        if self._view.spec.get("livenessProbe"):
            self._probe("Liveness", target, self._on_liveness)

    def _probe(self, kind: Kind, target: Target, changed: Callable[[bool], None]) -> None:
        prober = Prober(kind, self._view.spec[f"{kind.lower()}Probe"], target)
        task = asyncio.get_running_loop().create_task(prober.run(changed, self._watched.unhealthy))
        self._tasks.append(task)

    def _on_startup(self, target: Target) -> Callable[[bool], None]:
        def changed(passed: bool) -> None:
            view = self._view
            if not passed:
                self._watched.doomed("startup", view.spec["startupProbe"])
                return
            view.started = True
            view.ready = not view.spec.get("readinessProbe")
            # The startup probe has done its work; its own task is the caller and ends with the container.
            self._tasks[0].cancel()
            self._begin_later_probes(target)
            self._watched.changed()

        return changed

    def _on_readiness(self, ready: bool) -> None:
        if self._view.ready != ready:
            self._view.ready = ready
            self._watched.changed()

    def _on_liveness(self, alive: bool) -> None:
        if not alive:
            self._watched.doomed("liveness", self._view.spec["livenessProbe"])
