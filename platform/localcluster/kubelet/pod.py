"""One pod: admission is done, the rest of its life is here."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from localcluster.client import ApiError, Object
from localcluster.kubelet import storage
from localcluster.kubelet.attempts import PodRecord
from localcluster.kubelet.containers import Container
from localcluster.kubelet.environment import device_variables
from localcluster.kubelet.host import Host
from localcluster.kubelet.keyring import Credential, credentials, pull_secrets
from localcluster.kubelet.launch import Surroundings, user_of
from localcluster.kubelet.reporter import Reporter
from localcluster.kubelet.status import Facts, pod_status
from localcluster.kubelet.volumes import MountError, Source, prepare
from localcluster.pods import is_terminal
from localcluster.resources import PODS
from localcluster.times import age, now, rfc3339

log = logging.getLogger(__name__)

_MOUNT_RETRY = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_EVICTION_GRACE = 1.0
_FORCED_GRACE = 2.0  # seconds that a force-deleted pod gets


class PodWorker:
    """Runs a pod from its volumes to its end; `update` and `stop` are called as the API object changes."""

    def __init__(self, host: Host, node: Object, pod: Object, devices: dict[str, list[str]]) -> None:
        self.host = host
        self.node = node
        self.pod = pod
        self.devices = devices
        self.events = host.recorder(node["metadata"]["name"])
        self.record = PodRecord(host.data, pod["metadata"]["uid"])
        self.reporter = Reporter(host.client, self._status)
        self.volume_paths: dict[str, Path] = {}
        self.address: str | None = None
        self.start_time = (pod.get("status") or {}).get("startTime") or rfc3339()
        self.sandbox_ready = False
        self.ended = False
        self.ending = False
        self.gone = False
        self.reason: tuple[str, str] | None = None
        spec = pod["spec"]
        self.init = [Container(self, entry, True) for entry in spec.get("initContainers") or []]
        self.main = [Container(self, entry, False) for entry in spec["containers"]]
        self._deadline = float("inf")
        self._running: asyncio.Task[None] | None = None
        self._sidecars: list[asyncio.Task[None]] = []

    @property
    def uid(self) -> str:
        return self.pod["metadata"]["uid"]

    @property
    def name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def container(self, name: str) -> Container | None:
        return next((entry for entry in [*self.main, *self.init] if entry.name == name), None)

    # What containers ask for

    def changed(self) -> None:
        """Something that the status shows has changed."""
        self.reporter.poke()

    def downward_addresses(self) -> dict[str, str]:
        return {"podIP": self.address or "", "hostIP": self.host.address}

    def allocatable(self) -> dict[str, str]:
        return self.node.get("status", {}).get("allocatable") or {}

    def surroundings(self, container: str) -> Surroundings:
        """What a container finds around it now."""
        return Surroundings(
            pod=self.pod,
            host=self.host,
            record=self.record,
            volumes=self.volume_paths,
            addresses=self.downward_addresses(),
            allocatable=self.allocatable(),
            devices=device_variables(self.pod, self.devices, container),
        )

    async def credentials(self, repository: str) -> list[Credential]:
        """What the pod's pull secrets hold for a repository; a pull is tried without those that cannot be read."""
        namespace = self.pod["metadata"]["namespace"]
        secrets, missing = await pull_secrets(self.pod, partial(self.host.lookup, namespace))
        if missing:
            text = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed."
            )
            self.events.warning(self.pod, "FailedToRetrieveImagePullSecret", text)
        return credentials(secrets, repository)

    # Life

    def start(self) -> None:
        """Begin (or go on with) the pod in the background."""
        self.host.spawn(self.reporter.run())
        self._running = self.host.spawn(self._run())

    async def _run(self) -> None:
        try:
            await self._live()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("pod %s", self.name)

    async def _live(self) -> None:
        known = self.record.read()
        self.address = self.host.addresses.allocate(known.get("address"))
        if not known:
            self.record.write(
                {
                    "namespace": self.pod["metadata"]["namespace"],
                    "name": self.pod["metadata"]["name"],
                    "address": self.address,
                    "devices": self.devices,
                }
            )
        self.changed()
        await self._mount()
        self.sandbox_ready = True
        self.changed()
        over = await self._over()
        if over is not None:
            reason, text, grace = over
            self.reason = (reason, text)
            record = self.events.warning if reason == "Evicted" else self.events.normal
            record(self.pod, reason, text)
            self._deadline = time.monotonic() + grace
            await self._stop_all()
        await self._finish()

    async def _over(self) -> tuple[str, str, float] | None:
        """Run the containers to their end; else why they must not run on, and in how many seconds they have to go."""
        spec = self.pod["spec"]
        limit = spec.get("activeDeadlineSeconds")
        left = None if limit is None else max(0.0, limit - age(self.start_time))
        running = asyncio.ensure_future(self._containers())
        tasks: set[asyncio.Future[Any]] = {running}
        if storage.has_limits(self.pod):
            tasks.add(asyncio.ensure_future(storage.exceeded(self.pod, self.volume_paths, self._folders)))
        try:
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
                return None
            for task in tasks:
                if task.done():
                    return "Evicted", task.result(), _EVICTION_GRACE
            text = "Pod was active on the node longer than the specified deadline"
            return "DeadlineExceeded", text, spec.get("terminationGracePeriodSeconds", 30)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _folders(self) -> dict[str, Path]:
        """Where the files and the log of each main container are."""
        return {one.name: self.record.attempt(one.name, one.view.restarts) for one in self.main}

    async def _containers(self) -> None:
        refresh = self.host.spawn(self._refresh_volumes())
        try:
            if not await self._initialize():
                return
            await asyncio.gather(*(container.run() for container in self.main))
        finally:
            refresh.cancel()

    async def _initialize(self) -> bool:
        """Run init containers one after the other; False when one has failed for good."""
        if await self._has_begun():
            self._resume_sidecars()
            return True
        for container in self.init:
            if container.view.is_sidecar:
                self._sidecars.append(self.host.spawn(container.run()))
                while not container.view.started:
                    await self.reporter.next_change()
                continue
            await container.run()
            if not container.view.succeeded:
                return False
        return True

    async def _has_begun(self) -> bool:
        """Whether an earlier kubelet was past the init containers; their states are read again."""
        if not self.init or not any(self.record.attempts(container.name) for container in self.main):
            return False
        for container in self.init:
            if not container.view.is_sidecar:
                await container.recover()
        return True

    def _resume_sidecars(self) -> None:
        self._sidecars = [self.host.spawn(c.run()) for c in self.init if c.view.is_sidecar]

    async def _mount(self) -> None:
        """Set up all volumes; what is missing is waited for."""
        attempt = 0
        for volume in self.pod["spec"].get("volumes") or []:
            while volume["name"] not in self.volume_paths:
                try:
                    self.volume_paths[volume["name"]] = await prepare(volume, self.record.volumes, self._source())
                except (MountError, OSError) as error:
                    text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
                    self.events.warning(self.pod, "FailedMount", text)
                except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                    log.info("pod %s: volume %s: %s", self.name, volume["name"], error)
                else:
                    break
                await asyncio.sleep(_MOUNT_RETRY[min(attempt, len(_MOUNT_RETRY) - 1)])
                attempt += 1

    def _source(self) -> Source:
        metadata = self.pod["metadata"]
        uid, gid = user_of(self.pod, self.pod["spec"]["containers"][0], self.host)
        account = self.pod["spec"].get("serviceAccountName") or "default"
        return Source(
            pod=self.pod,
            lookup=partial(self.host.lookup, metadata["namespace"]),
            addresses=self.downward_addresses(),
            allocatable=self.allocatable(),
            uid=uid,
            gid=gid,
            token=partial(self.host.token, metadata["namespace"], account, self.pod),
            fs_group=(self.pod["spec"].get("securityContext") or {}).get("fsGroup"),
            memory=self.record.memory,
        )

    async def _refresh_volumes(self) -> None:
        volumes = [
            volume
            for volume in self.pod["spec"].get("volumes") or []
            if any(volume.get(kind) for kind in ("configMap", "secret", "downwardAPI", "projected"))
        ]
        while volumes:
            await asyncio.sleep(self.host.volumes_period)
            for volume in volumes:
                try:
                    await prepare(volume, self.record.volumes, self._source())
                except (MountError, OSError, ApiError, aiohttp.ClientError, TimeoutError) as error:
                    log.info("pod %s: update of volume %s: %s", self.name, volume["name"], error)

    async def _finish(self) -> None:
        """All containers have ended by themselves: sidecars go, then the phase is final."""
        self.changed()
        await self.reporter.flushed()
        self._deadline = time.monotonic() + self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        await self._stop_sidecars()
        self.sandbox_ready = False
        self.ended = True
        self.changed()
        await self.reporter.flushed()
        if self.address:
            self.host.addresses.release(self.address)

    # Ending

    def update(self, pod: Object) -> None:
        """The API object changed."""
        generation = self.pod["metadata"].get("generation")
        self.pod = pod
        if pod["metadata"].get("generation") != generation or pod["spec"].get("readinessGates"):
            self.changed()
        self.reporter.seen(pod.get("status") or {})

    def stop(self, grace: float) -> None:
        """End the pod within `grace` seconds; a later call may only shorten that."""
        self._deadline = min(self._deadline, time.monotonic() + grace)
        if not self.ending:
            self.ending = True
            self.host.spawn(self._end())

    async def _end(self) -> None:
        await self._cancel_run()
        if not (self.ended and is_terminal(self.pod)):
            self.changed()
            await self._stop_all()
            for container in [*self.init, *self.main]:
                if not container.view.init or container.view.is_sidecar:
                    container.give_up()
            self.sandbox_ready = False
            self.ended = True
            self.changed()
            await self.reporter.flushed()
        await self._delete()

    async def _cancel_run(self) -> None:
        tasks = [task for task in (self._running, *self._sidecars) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(container.stop(lambda: self._deadline) for container in self.main))
        await self._stop_sidecars()

    async def _stop_sidecars(self) -> None:
        """End what still runs of the init containers."""
        await asyncio.gather(*(container.stop(lambda: self._deadline) for container in reversed(self.init)))

    async def _delete(self) -> None:
        """Tell the API server that nothing is left, so that the object goes."""
        metadata = self.pod["metadata"]
        pause = 0.1
        while not self.gone:
            try:
                await self.host.client.delete(
                    PODS, metadata["name"], metadata["namespace"], grace_seconds=0, uid=metadata["uid"]
                )
            except ApiError as error:
                if error.is_not_found or error.is_conflict:
                    return
                log.warning("pod %s cannot be removed: %s", self.name, error)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.info("pod %s cannot be removed yet: %s", self.name, error)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def vanish(self) -> None:
        """The object is gone: whatever still runs is ended, and nothing is left on disk."""
        self.gone = True
        self.reporter.close()
        already = self.ending
        self.ending = True
        self._deadline = min(self._deadline, time.monotonic() + _FORCED_GRACE)
        if not already:
            await self._cancel_run()
        await self._stop_all()
        if self.address:
            self.host.addresses.release(self.address)
        self.record.remove()

    async def leave(self, keep: bool) -> None:
        """The kubelet ends: pods end with it, or (`keep`) are left for the next one."""
        await self._cancel_run()
        if not keep:
            self._deadline = time.monotonic() + min(
                _FORCED_GRACE, self.pod["spec"].get("terminationGracePeriodSeconds", 30)
            )
            await self._stop_all()
        self.reporter.close()

    # Status

    def _status(self) -> tuple[Object, Object]:
        """(the pod, its status as it is now)."""
        facts = Facts(
            sandbox_ready=self.sandbox_ready,
            host_ip=self.host.address,
            pod_ip=self.address if self.sandbox_ready or self.ended else None,
            start_time=self.start_time,
            ended=self.ended,
            ending=self.ending or self.reason is not None,
        )
        init, main = [c.view for c in self.init], [c.view for c in self.main]
        status = pod_status(self.pod, init, main, facts, now())
        if self.reason:
            status["reason"], status["message"] = self.reason
        return self.pod, status
