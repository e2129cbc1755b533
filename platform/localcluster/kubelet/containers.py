"""One container of a pod: from its image through starts, probes and restarts to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from localcluster.client import ApiError, Object
from localcluster.events import Recorder
from localcluster.kubelet import launch, recovery
from localcluster.kubelet.attempts import PodRecord, container_id, terminated
from localcluster.kubelet.ending import terminate
from localcluster.kubelet.environment import ConfigError
from localcluster.kubelet.health import Health
from localcluster.kubelet.hooks import run_command, run_hook
from localcluster.kubelet.host import Host
from localcluster.kubelet.images import InvalidImageName, Runtime
from localcluster.kubelet.keyring import Credential
from localcluster.kubelet.probes import Target
from localcluster.kubelet.processes import Shim, StartError, read_exit, unknown_exit
from localcluster.kubelet.pulling import runtime_for
from localcluster.kubelet.restarts import Backoff, go_duration, is_wanted
from localcluster.kubelet.status import View

log = logging.getLogger(__name__)

_RESET_AFTER = 600.0  # a container that ran this long starts over with restarting at once
_CRASH_LOOP_SHOWN_AFTER = 1.0  # seconds a finished container is shown as terminated before as waiting
_HOOK_SECONDS = 60.0
_CONFIG_RETRY = (1.0, 2.0, 5.0, 10.0)


class Owner(Protocol):
    """What a container asks of its pod."""

    host: Host
    pod: Object
    events: Recorder
    record: PodRecord
    address: str | None
    gone: bool

    def changed(self) -> None:
        """Something that the status shows has changed."""

    def surroundings(self, container: str) -> launch.Surroundings:
        """What the container of that name finds around it now."""

    async def credentials(self, repository: str) -> Sequence[Credential]:
        """What the pod's pull secrets hold for a repository."""


class Container:
    """Runs one container; `view` always shows its present state and `changed` is called when that turns."""

    def __init__(self, pod: Owner, spec: Object, init: bool) -> None:
        self.pod = pod
        self.spec = spec
        self.view = View(spec=spec, init=init)
        if pod.pod["spec"].get("initContainers"):
            self.view.state = {"waiting": {"reason": "PodInitializing"}}
        self.shim: Shim | None = None
        self.environment: dict[str, str] = {}
        self._backoff = Backoff(at_once=True)
        self._stopping = False
        self._health = Health(self.view, self)
        self._recovered = False
        self._recovery = asyncio.Lock()
        self._starting: asyncio.Future[Shim] | None = None

    @property
    def name(self) -> str:
        return self.spec["name"]

    @property
    def field_path(self) -> str:
        kind = "initContainers" if self.view.init else "containers"
        return f"spec.{kind}{{{self.name}}}"

    @property
    def _label(self) -> str:
        return launch.label(self.pod.pod)

    def event(self, kind: str, reason: str, message: str) -> None:
        record = self.pod.events.normal if kind == "Normal" else self.pod.events.warning
        record(self.pod.pod, reason, message, self.field_path)

    def changed(self) -> None:
        self.pod.changed()

    async def credentials(self, repository: str) -> Sequence[Credential]:
        return await self.pod.credentials(repository)

    async def run(self) -> None:
        """Start and restart as the policy says; returns when the container is not to run any more."""
        begun = await self.recover()
        while True:
            if begun:
                await self._watch()
            else:
                await self._start()
                if self.shim is not None:
                    await self._watch()
            begun = False
            if self._stopping or not is_wanted(self.view, self.pod.pod):
                return
            await self._back_off()
            self._next_attempt()

    # Finding again what an earlier kubelet started

    async def recover(self) -> bool:
        """Take over what is on disk, once; True when a container is running or has ended (state is set)."""
        async with self._recovery:
            if self._recovered:
                return self.shim is not None
            found = await self._find()
            self._recovered = True
            return found

    async def _find(self) -> bool:
        left = await recovery.find(self.pod.record, self.spec)
        if left is None:
            return False
        self.view.restarts = left.number
        self.view.last_state = left.last_state
        self.view.user = launch.user_of(self.pod.pod, self.spec, self.pod.host)
        with contextlib.suppress(InvalidImageName):
            runtime = await self.pod.host.images.present(self.spec["image"])
            self.view.image_id = runtime.image_id if runtime else ""
        if left.shim is not None:
            self.shim = left.shim
            self._running()
        elif left.outcome is not None:
            self._ended(left.outcome)
        # Else it was prepared but never started: the same attempt begins again.
        return left.shim is not None or left.outcome is not None

    @property
    def _directory(self) -> Path:
        """Where the present attempt is."""
        return self.pod.record.attempt(self.name, self.view.restarts)

    # Starting

    async def _start(self) -> None:
        runtime = await runtime_for(self.pod.host.images, self.spec, self)
        config = await self._configure(runtime)
        self.view.image_id = runtime.image_id
        self.view.user = launch.user_of(self.pod.pod, self.spec, self.pod.host)
        self.view.container_id = container_id(self._directory)
        self.event("Normal", "Created", "Container created")
        # A start that is under way is never abandoned: who cancels us finds the container in `_starting`.
        self._starting = asyncio.ensure_future(self.pod.host.shims.run(config, self.pod.host.addresses.claim))
        try:
            self.shim = await asyncio.shield(self._starting)
        except StartError as error:
            self._starting = None
            self._failed_to_start(str(error))
            return
        self._starting = None
        self.event("Normal", "Started", "Container started")
        failure = await run_hook(self._hook("postStart"), self._target(), _HOOK_SECONDS)
        if failure is not None:
            self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {failure}")
            self.shim.kill()
        self._running()
        log.debug("started %s in %s", self._label, self._directory)

    def _failed_to_start(self, reason: str) -> None:
        text = (
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
            f"runc create failed: unable to start container process: {reason}"
        )
        directory = self._directory
        outcome = read_exit(directory) or {"exitCode": 128, "startedAt": 0, "finishedAt": time.time()}
        outcome["startError"] = text
        self.view.last_state = {"terminated": terminated(directory, outcome, self.spec)}
        self.view.state = {"waiting": {"reason": "RunContainerError", "message": text}}
        self.view.started = self.view.ready = False
        self.event("Warning", "Failed", f"Error: {text}")
        self.pod.changed()

    async def _configure(self, runtime: Runtime) -> dict[str, Any]:
        attempt = 0
        while True:
            try:
                around = self.pod.surroundings(self.name)
                config = await launch.configuration(around, self.spec, self.view.restarts, runtime)
            except ConfigError as error:
                self.event("Warning", "Failed", f"Error: {error}")
                self.wait("CreateContainerConfigError", str(error))
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.info("%s: configuration of %s: %s", self._label, self.name, error)
            else:
                self.environment = config["env"]
                return config
            await asyncio.sleep(_CONFIG_RETRY[min(attempt, len(_CONFIG_RETRY) - 1)])
            attempt += 1

    def wait(self, reason: str, message: str) -> None:
        """Show the container as waiting."""
        waiting = {"reason": reason, "message": message}
        if self.view.state != {"waiting": waiting}:
            self.view.state = {"waiting": waiting}
            self.pod.changed()

    # Running

    def _running(self) -> None:
        shim = self.shim
        if shim is None:
            return
        self.view.state = {"running": {"startedAt": launch.stamp(shim.started_at)}}
        self.view.container_id = container_id(self._directory)
        self.view.user = launch.user_of(self.pod.pod, self.spec, self.pod.host)
        self._health.begin(self._target())

    def _target(self) -> Target:
        host = self.pod.host
        return Target(self.spec, self.pod.address or host.address, host.session, self.command)

    def _hook(self, kind: str) -> Object:
        return (self.spec.get("lifecycle") or {}).get(kind) or {}

    def unhealthy(self, text: str) -> None:
        if not self._stopping:
            self.event("Warning", "Unhealthy", text)

    def doomed(self, kind: str, probe: Object) -> None:
        if self._stopping or self.shim is None:
            return
        self.event("Normal", "Killing", f"Container {self.name} failed {kind} probe, will be restarted")
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = self.pod.pod["spec"].get("terminationGracePeriodSeconds", 30)
        until = time.monotonic() + float(grace)
        self.pod.host.spawn(terminate(self.shim, self.spec, lambda: until))

    async def _watch(self) -> None:
        """Wait for the end of the running container."""
        shim = self.shim
        if shim is None:
            return
        outcome = await shim.wait()
        self._ended(outcome)

    def _ended(self, outcome: dict[str, Any]) -> None:
        self._health.end()
        self.shim = None
        self.view.container_id = container_id(self._directory)
        self.view.state = {"terminated": terminated(self._directory, outcome, self.spec)}
        self.view.started = False
        self.view.ready = self.view.init and not self.view.is_sidecar and self.view.succeeded
        self.pod.host.cgroups.remove(launch.group_name(self.pod.pod, self.name, self.view.restarts))
        ran = outcome.get("finishedAt", 0) - outcome.get("startedAt", 0)
        if outcome.get("startedAt") and ran > _RESET_AFTER:
            self._backoff.reset()
        self.pod.changed()

    # Restarting

    async def _back_off(self) -> None:
        """Pause between restarts: none, then 10 s doubling to 5 minutes."""
        pause = self._backoff.next()
        if not pause:
            return
        self.event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {self._label}")
        await asyncio.sleep(_CRASH_LOOP_SHOWN_AFTER)
        if self.view.terminated:
            self.view.last_state = self.view.state
        text = f"back-off {go_duration(pause)} restarting failed container={self.name} pod={self._label}"
        self.wait("CrashLoopBackOff", text)
        await asyncio.sleep(pause - _CRASH_LOOP_SHOWN_AFTER)

    def _next_attempt(self) -> None:
        if self.view.terminated:
            self.view.last_state = self.view.state
        self.view.restarts += 1

    # Ending

    async def settle(self) -> None:
        """Know whether a container runs: one of an earlier kubelet, or one whose start was interrupted."""
        await self.recover()
        starting, self._starting = self._starting, None
        if starting is not None:
            with contextlib.suppress(StartError):
                self.shim = await starting
                self.view.state = {"running": {"startedAt": launch.stamp(self.shim.started_at)}}

    async def stop(self, deadline: Callable[[], float]) -> None:
        """End the container: preStop, SIGTERM, then SIGKILL at `deadline()` (which may come closer meanwhile)."""
        self._stopping = True
        await self.settle()
        shim = self.shim
        if shim is None:
            return
        self.event("Normal", "Killing", f"Stopping container {self.name}")
        hook = self._hook("preStop")
        failure = await run_hook(hook, self._target(), deadline() - time.monotonic())
        if failure is not None:
            self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {failure}")
        # A preStop hook that used up the grace period leaves two seconds to stop, as the real kubelet does.
        floor = time.monotonic() + 2.0
        await terminate(shim, self.spec, lambda: max(floor, deadline()) if hook else deadline())
        self._ended(await shim.wait())

    def give_up(self) -> None:
        """The pod is ending: a container waiting to restart ends as it last did, one that never ran as lost."""
        if not self.view.terminated and self.view.last_state.get("terminated"):
            self.view.state, self.view.last_state = self.view.last_state, {}
        elif not self.view.terminated:
            outcome = unknown_exit()
            directory = self._directory
            self.view.state = {"terminated": terminated(directory, outcome, self.spec)}
            self.view.state["terminated"] |= {"startedAt": None, "finishedAt": None}
            self.view.state["terminated"].pop("containerID", None)
            self.view.ready = self.view.started = False

    # Commands inside

    def execute(self, argv: list[str], streams: tuple[int, int, int], tty: bool = False) -> asyncio.StreamReader:
        """Start a command with (stdin, stdout, stderr); its pid (or error) and exit code come as JSON lines.

        StartError when the container does not run. The descriptors stay the caller's to close.
        """
        if self.shim is None:
            raise StartError("the container is not running")
        around = self.pod.surroundings(self.name)
        config = launch.exec_configuration(around, self.spec, self.shim, self.environment, argv, tty)
        return self.pod.host.shims.execute(config, *streams)

    async def command(self, argv: list[str], timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109
        """Run a command; (exit code, output), code None when it took too long."""
        return await run_command(self.execute, argv, timeout)
