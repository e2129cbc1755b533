"""One container of a pod: from its image through starts, probes and restarts to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp

from localcluster.client import ApiError, Object
from localcluster.kubelet import launch
from localcluster.kubelet.attempts import container_id, terminated
from localcluster.kubelet.environment import ConfigError
from localcluster.kubelet.hooks import run_command, run_hook
from localcluster.kubelet.images import InvalidImageName, Runtime
from localcluster.kubelet.probes import Kind, Prober
from localcluster.kubelet.processes import Shim, StartError, read_exit, unknown_exit
from localcluster.kubelet.pulling import runtime_for
from localcluster.kubelet.status import View

if TYPE_CHECKING:
    from localcluster.kubelet.pod import PodWorker

log = logging.getLogger(__name__)

_FIRST_BACKOFF = 10.0
_LAST_BACKOFF = 300.0
_RESET_AFTER = 600.0  # a container that ran this long starts over with restarting at once
_CRASH_LOOP_SHOWN_AFTER = 1.0  # seconds a finished container is shown as terminated before as waiting
_HOOK_SECONDS = 60.0
_CONFIG_RETRY = (1.0, 2.0, 5.0, 10.0)


def go_duration(seconds: float) -> str:
    """A duration as Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Container:
    """Runs one container; `view` always shows its present state and `changed` is called when that turns."""

    def __init__(self, pod: PodWorker, spec: Object, init: bool) -> None:
        self.pod = pod
        self.spec = spec
        self.view = View(spec=spec, init=init)
        if pod.pod["spec"].get("initContainers"):
            self.view.state = {"waiting": {"reason": "PodInitializing"}}
        self.shim: Shim | None = None
        self.environment: dict[str, str] = {}
        self._backoff = 0.0
        self._stopping = False
        self._probes: list[asyncio.Task[None]] = []
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
    def policy(self) -> str:
        """Always, OnFailure or Never, for this container."""
        if self.view.is_sidecar:
            return "Always"
        policy = self.pod.pod["spec"].get("restartPolicy", "Always")
        return "OnFailure" if self.view.init and policy == "Always" else policy

    @property
    def label(self) -> str:
        metadata = self.pod.pod["metadata"]
        return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"

    def event(self, kind: str, reason: str, message: str) -> None:
        record = self.pod.events.normal if kind == "Normal" else self.pod.events.warning
        record(self.pod.pod, reason, message, self.field_path)

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
            if not self._wants_restart():
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
        record = self.pod.record
        numbers = record.attempts(self.name)
        if not numbers:
            return False
        number = numbers[-1]
        self.view.restarts = number
        self.view.user = launch.user_of(self.pod.pod, self.spec, self.pod.host)
        with contextlib.suppress(InvalidImageName):
            runtime = await self.pod.host.images.present(self.spec["image"])
            self.view.image_id = runtime.image_id if runtime else ""
        for earlier in numbers[:-1]:
            outcome = read_exit(record.attempt(self.name, earlier))
            if outcome:
                self.view.last_state = {
                    "terminated": terminated(record.attempt(self.name, earlier), outcome, self.spec)
                }
        directory = record.attempt(self.name, number)
        shim = await Shim.find(directory)
        if shim is not None:
            self.shim = shim
            self._running(directory)
            return True
        outcome = read_exit(directory)
        if outcome is None and (directory / "state.json").exists():
            outcome = unknown_exit(json.loads((directory / "state.json").read_text())["startedAt"])
        if outcome is None:
            return False  # prepared but never started: the same attempt begins again
        self._ended(directory, outcome)
        return True

    # Starting

    async def _start(self) -> None:
        runtime = await runtime_for(self)
        config = await self._configure(runtime)
        directory = config["directory"]
        self.view.image_id = runtime.image_id
        self.view.user = launch.user_of(self.pod.pod, self.spec, self.pod.host)
        self.view.container_id = container_id(self.pod.record.attempt(self.name, self.view.restarts))
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
        failure = await run_hook(self, "postStart", _HOOK_SECONDS)
        if failure is not None:
            self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {failure}")
            self.shim.kill()
        self._running(self.pod.record.attempt(self.name, self.view.restarts))
        log.debug("started %s in %s", self.label, directory)

    def _failed_to_start(self, reason: str) -> None:
        text = (
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
            f"runc create failed: unable to start container process: {reason}"
        )
        directory = self.pod.record.attempt(self.name, self.view.restarts)
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
                return await launch.configuration(self, runtime)
            except ConfigError as error:
                self.event("Warning", "Failed", f"Error: {error}")
                self.wait("CreateContainerConfigError", str(error))
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.info("%s: configuration of %s: %s", self.label, self.name, error)
            await asyncio.sleep(_CONFIG_RETRY[min(attempt, len(_CONFIG_RETRY) - 1)])
            attempt += 1

    def wait(self, reason: str, message: str) -> None:
        """Show the container as waiting."""
        waiting = {"reason": reason, "message": message}
        if self.view.state != {"waiting": waiting}:
            self.view.state = {"waiting": waiting}
            self.pod.changed()

    # Running

    def _running(self, directory: Any) -> None:
        shim = self.shim
        if shim is None:
            return
        self.view.state = {"running": {"startedAt": launch.stamp(shim.started_at)}}
        self.view.container_id = container_id(directory)
        self.view.user = launch.user_of(self.pod.pod, self.spec, self.pod.host)
        self.view.started = not self.spec.get("startupProbe")
        plain_init = self.view.init and not self.view.is_sidecar
        self.view.ready = self.view.started and not self.spec.get("readinessProbe") and not plain_init
        self.pod.changed()
        self._start_probes()

    def _start_probes(self) -> None:
        if self.spec.get("startupProbe"):
            self._probe("Startup", self.spec["startupProbe"], self._on_startup)
        else:
            self._start_later_probes()

    def _start_later_probes(self) -> None:
        if self.spec.get("readinessProbe"):
            self._probe("Readiness", self.spec["readinessProbe"], self._on_readiness)
        if self.spec.get("livenessProbe"):
            self._probe("Liveness", self.spec["livenessProbe"], self._on_liveness)

    def _probe(self, kind: Kind, spec: Object, changed: Callable[[bool], None]) -> None:
        address = self.pod.address or self.pod.host.address
        prober = Prober(kind, spec, self.spec, address, self.pod.host.session, self.command)

        def failed(text: str) -> None:
            if not self._stopping:
                self.event("Warning", "Unhealthy", text)

        self._probes.append(asyncio.get_running_loop().create_task(prober.run(changed, failed)))

    def _on_startup(self, passed: bool) -> None:
        if not passed:
            self._kill_unhealthy("startup", self.spec["startupProbe"])
            return
        self.view.started = True
        self.view.ready = not self.spec.get("readinessProbe")
        # The startup probe has done its work; its own task is the caller and ends with the container.
        self._probes[0].cancel()
        self._start_later_probes()
        self.pod.changed()

    def _on_readiness(self, ready: bool) -> None:
        if self.view.ready != ready:
            self.view.ready = ready
            self.pod.changed()

    def _on_liveness(self, alive: bool) -> None:
        if not alive:
            self._kill_unhealthy("liveness", self.spec["livenessProbe"])

    def _kill_unhealthy(self, kind: str, probe: Object) -> None:
        if self._stopping or self.shim is None:
            return
        self.event("Normal", "Killing", f"Container {self.name} failed {kind} probe, will be restarted")
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = self.pod.pod["spec"].get("terminationGracePeriodSeconds", 30)
        self.pod.host.spawn(self._end_process(self.shim, float(grace)))

    async def _watch(self) -> None:
        """Wait for the end of the running container."""
        shim = self.shim
        if shim is None:
            return
        outcome = await shim.wait()
        self._ended(self.pod.record.attempt(self.name, self.view.restarts), outcome)

    def _ended(self, directory: Any, outcome: dict[str, Any]) -> None:
        self._stop_probes()
        self.shim = None
        self.view.container_id = container_id(directory)
        self.view.state = {"terminated": terminated(directory, outcome, self.spec)}
        self.view.started = False
        self.view.ready = self.view.init and not self.view.is_sidecar and self.view.succeeded
        self.pod.host.cgroups.remove(launch.group_name(self.pod.pod, self.name, self.view.restarts))
        ran = outcome.get("finishedAt", 0) - outcome.get("startedAt", 0)
        if outcome.get("startedAt") and ran > _RESET_AFTER:
            self._backoff = 0.0
        self.pod.changed()

    def _stop_probes(self) -> None:
        for task in self._probes:
            task.cancel()
        self._probes = []

    # Restarting

    def _wants_restart(self) -> bool:
        if self._stopping:
            return False
        if "waiting" in self.view.state:
            return self.policy != "Never" or not self.view.init  # it could not be started: try again
        return self.policy == "Always" or (self.policy == "OnFailure" and not self.view.succeeded)

    async def _back_off(self) -> None:
        """Pause between restarts: none, then 10 s doubling to 5 minutes."""
        pause, self._backoff = self._backoff, min(_LAST_BACKOFF, max(_FIRST_BACKOFF, self._backoff * 2))
        if not pause:
            return
        self.event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {self.label}")
        await asyncio.sleep(_CRASH_LOOP_SHOWN_AFTER)
        if self.view.terminated:
            self.view.last_state = self.view.state
        text = f"back-off {go_duration(pause)} restarting failed container={self.name} pod={self.label}"
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
        failure = await run_hook(self, "preStop", deadline() - time.monotonic())
        if failure is not None:
            self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {failure}")
        hooked = bool((self.spec.get("lifecycle") or {}).get("preStop"))
        # A preStop hook that used up the grace period leaves two seconds to stop, as the real kubelet does.
        floor = time.monotonic() + 2.0
        await self._terminate(shim, lambda: max(floor, deadline()) if hooked else deadline())
        self._ended(self.pod.record.attempt(self.name, self.view.restarts), await shim.wait())

    async def _end_process(self, shim: Shim, grace: float) -> None:
        until = time.monotonic() + grace
        await self._terminate(shim, lambda: until)

    async def _terminate(self, shim: Shim, deadline: Callable[[], float]) -> None:
        shim.signal(_stop_signal(self.spec))
        ended = asyncio.ensure_future(shim.wait())
        try:
            while not ended.done():
                left = deadline() - time.monotonic()
                if left <= 0:
                    shim.kill()
                    await ended
                    return
                # A second DELETE may bring the deadline nearer, so look again now and then.
                await asyncio.wait({ended}, timeout=min(left, 0.1))
        finally:
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ended

    def give_up(self) -> None:
        """The pod is ending: a container waiting to restart ends as it last did, one that never ran as lost."""
        if not self.view.terminated and self.view.last_state.get("terminated"):
            self.view.state, self.view.last_state = self.view.last_state, {}
        elif not self.view.terminated:
            outcome = unknown_exit()
            directory = self.pod.record.attempt(self.name, self.view.restarts)
            self.view.state = {"terminated": terminated(directory, outcome, self.spec)}
            self.view.state["terminated"] |= {"startedAt": None, "finishedAt": None}
            self.view.state["terminated"].pop("containerID", None)
            self.view.ready = self.view.started = False

    async def command(self, argv: list[str], timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109
        """Run a command inside; (exit code, output), code None when it took too long."""
        return await run_command(self, argv, timeout)


def _stop_signal(spec: Object) -> int:
    name = (spec.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
    return getattr(signal, name, signal.SIGTERM)
