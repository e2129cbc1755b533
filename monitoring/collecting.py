"""The collector: follows the log of every instance and keeps its lines.

A line is stored in the transaction that moves its instance's position, so that a collector that dies at any moment goes
on where it was: nothing is lost that the node still has, nothing is kept twice. One collector works at a time, others
stand by for its lock. Memory is bounded: when the store is slow or away, followers stop reading.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from kube import specs
from kube.connect import Cluster, Object
from kube.errors import ClusterUnreachable, KubeError
from kube.informers import Informer
from kube.logs import Cursor, Line, Resume, follow, read
from kube.objects import labels_of
from monitoring import containers, keeping
from monitoring.containers import PACKAGE, SERVING, marked
from monitoring.keeping import Collected
from monitoring.logstore import LogStore
from monitoring.logstore.base import StoreUnavailable
from monitoring.logstore.sources import find_or_create
from monitoring.models import LogSource

logger = logging.getLogger(__name__)

MOST_WAITING, MOST_WAITING_TEXT = 20_000, 32 << 20
BATCH_LINES, BATCH_TEXT = 5000, 8 << 20
BATCH_SECONDS = 0.25
RETRY_SECONDS = 1.0
STANDBY_SECONDS = 2.0
TIDY_SECONDS = 30.0
LONGEST_PAUSE = 5.0
PREVIOUS_BYTES = 8 << 20

T = TypeVar("T")


@dataclass(slots=True)
class _Pod:
    uid: uuid.UUID
    namespace: str
    name: str
    version_id: str
    revision_id: str
    has_package: bool = False
    restarts: int = 0
    awaits_package: bool = False
    package_restarts: int = 0
    gone: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Collector:
    """Follows the pods of one cluster into a store."""

    def __init__(self, cluster: Cluster, store: LogStore) -> None:
        self._cluster, self._store = cluster, store
        self._pods: dict[uuid.UUID, _Pod] = {}
        self._followers: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._sources: dict[int, LogSource] = {}
        self._waiting: list[Collected] = []
        self._waiting_text = 0
        self._ended: set[int] = set()
        self._filled, self._room, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._tidying: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # One thread with one connection does all that needs the database, since the lock belongs to a connection.
        self._database = ThreadPoolExecutor(1, thread_name_prefix="log-keeper")

    def stop(self) -> None:
        """End soon, after what was read is kept."""
        self._stopping.set()
        for task in self._followers.values():
            task.cancel()
        self._filled.set()

    async def run(self) -> None:
        """Until `stop`. Raises what a follower could not handle."""
        ssl = self._cluster.ssl_context()
        connector = aiohttp.TCPConnector(limit=0, ssl=ssl if ssl is not None else True)
        loop = asyncio.get_running_loop()

        def told(change: str, obj: Object) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._change, change, obj)

        informer = Informer(self._cluster, "Pod", told, specs.SELECTOR)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            try:
                await self._stand_by()
                if not self._stopping.is_set():
                    informer.start()
                    self._tidying = asyncio.create_task(self._tidy())
                    with suppress(_GivenUp):  # what was not kept is read again by the next collector
                        await self._keep()
            finally:
                await asyncio.to_thread(informer.stop)
                tasks = [*self._followers.values(), *([self._tidying] if self._tidying else [])]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                with suppress(DatabaseError, InterfaceError):
                    await self._in_database(keeping.disconnect)
                self._database.shutdown()

    @property
    def followed(self) -> int:
        """How many pods are followed."""
        return len(self._followers)

    async def _stand_by(self) -> None:
        told = False
        while not self._stopping.is_set():
            try:
                if await self._in_database(keeping.lock):
                    return
                if not told:
                    logger.info("Another collector is at work; this one stands by")
                    told = True
            except (DatabaseError, InterfaceError) as error:
                logger.warning("The database does not answer: %s", str(error).strip())
                await self._in_database(keeping.disconnect)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), STANDBY_SECONDS)

    def _change(self, change: str, obj: Object) -> None:
        labels, metadata = labels_of(obj), obj["metadata"]
        if specs.VERSION_ID not in labels:
            return
        uid = uuid.UUID(metadata["uid"])
        pod = self._pods.get(uid)
        if pod is None:
            if change == "DELETED":
                return
            pod = self._pods[uid] = _Pod(
                uid,
                metadata.get("namespace", ""),
                metadata["name"],
                labels[specs.VERSION_ID],
                labels.get(specs.REVISION_ID, ""),
                has_package=containers.has_package(obj),
            )
        pod.restarts = _restarts(obj)
        pod.package_restarts = containers.package_restarts(obj)
        pod.awaits_package = containers.has_package(obj) and not containers.package_is_there(obj)
        pod.gone = pod.gone or change == "DELETED"
        pod.changed.set()
        self._start(pod)

    def _start(self, pod: _Pod) -> None:
        if pod.uid in self._followers or self._stopping.is_set():
            return
        task = self._followers[pod.uid] = asyncio.create_task(self._follow(pod))

        def done(task: asyncio.Task[None]) -> None:
            if self._followers.get(pod.uid) is task:
                del self._followers[pod.uid]
            if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
                self._failed.set_exception(error)
                self._filled.set()
            elif pod.gone:
                self._pods.pop(pod.uid, None)

        task.add_done_callback(done)

    async def _follow(self, pod: _Pod) -> None:
        source = await self._retry(find_or_create, pod.uid, pod.namespace, pod.name, pod.version_id, pod.revision_id)
        if source is None or source.ended_at is not None:
            return
        self._sources[source.pk] = source
        # A position of its own for what was not read yet; time 1 asks for everything from the beginning.
        cursor = Cursor(source.position_time or 1, source.position_count)
        if pod.has_package:
            await self._follow_package(pod, source, cursor)
        began, pause = Cursor(cursor.time, cursor.count), 0.2
        while True:
            pod.changed.clear()
            try:
                if pod.restarts > source.restarts:
                    await self._read_previous(pod, source, began)
                    await self._retry(keeping.restarted, source, pod.restarts)
                began = Cursor(cursor.time, cursor.count)
                async for line in follow(self._session, self._cluster, pod.namespace, pod.name, SERVING, cursor):
                    await self._take(source, line, cursor.count - 1)
                    pause = 0.2
            except KubeError as error:
                if error.status == 404 or pod.gone:
                    break
            except ClusterUnreachable as error:
                if pod.gone:
                    break
                logger.info("%s", error)
            # The container waits to start, has ended and may start again, or the connection broke.
            with suppress(TimeoutError):
                await asyncio.wait_for(pod.changed.wait(), pause)
            await asyncio.sleep(0.05)  # changes come in bursts
            pause = min(pause * 1.7, LONGEST_PAUSE)
        self._ended.add(source.pk)
        self._filled.set()

    async def _follow_package(self, pod: _Pod, source: LogSource, cursor: Cursor) -> None:
        """What the container before the server writes, attempt by attempt, until it is done or the pod is gone."""
        pause, attempts = 0.2, -1
        while True:
            pod.changed.clear()
            done, seen = pod.gone or not pod.awaits_package, pod.package_restarts
            try:
                if seen > attempts:  # what the attempt before wrote after this one was left, or before anybody looked
                    resume = Resume(cursor)
                    for line in await read(
                        self._session, self._cluster, pod.namespace, pod.name, PACKAGE,
                        since=cursor.time // 10**9 * 10**9, previous=True,
                    ):  # fmt: skip
                        if resume.fresh(line):
                            await self._take(source, marked(line, PACKAGE), cursor.count - 1)
                    attempts = seen
                async for line in follow(self._session, self._cluster, pod.namespace, pod.name, PACKAGE, cursor):
                    await self._take(source, marked(line, PACKAGE), cursor.count - 1)
                    pause = 0.2
            except KubeError as error:
                if error.status == 404:
                    return
            except ClusterUnreachable as error:
                logger.info("%s", error)
                done = pod.gone
            if done:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(pod.changed.wait(), pause)
            await asyncio.sleep(0.05)
            pause = min(pause * 1.7, LONGEST_PAUSE)

    async def _tidy(self) -> None:
        """Room for the days to come; the end of rows whose pods went while nobody looked."""
        while True:
            began = timezone.now()
            await self._retry(self._store.prepare, began)
            try:
                pods = await asyncio.to_thread(self._cluster.find, "Pod", None, specs.SELECTOR)
            except (ClusterUnreachable, KubeError) as error:
                logger.info("Pods cannot be listed: %s", error)
            else:
                there = {uuid.UUID(pod["metadata"]["uid"]) for pod in pods} | set(self._followers)
                await self._retry(keeping.end_missing, there, began)
            await asyncio.sleep(TIDY_SECONDS)

    async def _read_previous(self, pod: _Pod, source: LogSource, since: Cursor) -> None:
        """What the container before this one wrote after ``since``; only the latest of them is still on the node."""
        size = PREVIOUS_BYTES
        cursor = Cursor(since.time, since.count)
        while True:
            before = (cursor.time, cursor.count)
            lines = await read(
                self._session, self._cluster, pod.namespace, pod.name, SERVING,
                since=cursor.time // 10**9 * 10**9, limit_bytes=size, previous=True,
            )  # fmt: skip
            resume = Resume(cursor)
            for line in lines:
                if resume.fresh(line):
                    await self._take(source, line, cursor.count - 1, moves=False)
            if (cursor.time, cursor.count) == before:
                return
            # Cut off in the middle, perhaps in a second that alone is longer.
            size *= 2

    async def _take(self, source: LogSource, line: Line, ordinal: int, moves: bool = True) -> None:
        self._waiting.append(Collected(source.pk, line, ordinal, moves))
        self._waiting_text += len(line.text)
        if len(self._waiting) == 1 or self._is_full:
            self._filled.set()
        if len(self._waiting) >= MOST_WAITING or self._waiting_text >= MOST_WAITING_TEXT:
            self._room.clear()
            await self._room.wait()

    @property
    def _is_full(self) -> bool:
        """There is enough for a batch."""
        return len(self._waiting) >= BATCH_LINES or self._waiting_text >= BATCH_TEXT

    def _batch(self) -> list[Collected]:
        count, text = 0, 0
        for item in self._waiting[:BATCH_LINES]:
            count, text = count + 1, text + len(item.line.text)
            if text >= BATCH_TEXT:
                break
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_text -= text
        self._room.set()
        return batch

    async def _keep(self) -> None:
        while True:
            await self._filled.wait()
            if self._failed.done():
                self._failed.result()
            if not self._is_full and not self._stopping.is_set():
                await asyncio.sleep(BATCH_SECONDS)
            batch = self._batch()
            # Only after their last lines: nobody looks at an ended instance for more.
            ended = {key for key in self._ended if not any(item.source == key for item in self._waiting)}
            self._ended -= ended
            if batch:
                for key in await self._retry(keeping.keep, self._store, self._sources, batch):
                    self._begin_again(key)
            if ended:
                await self._retry(keeping.ended, ended, timezone.now())
                for key in ended:
                    self._sources.pop(key, None)
            if not self._waiting and not self._ended:
                self._filled.clear()
                if self._stopping.is_set():
                    return
            else:
                self._filled.set()

    def _begin_again(self, key: int) -> None:
        """Another collector has moved this position: read it anew and go on from there."""
        self._waiting = [item for item in self._waiting if item.source != key]
        self._waiting_text = sum(len(item.line.text) for item in self._waiting)
        source = self._sources.pop(key, None)
        if source is None or (task := self._followers.pop(source.instance_id, None)) is None:
            return
        task.cancel()
        if (pod := self._pods.get(source.instance_id)) is not None:
            self._start(pod)

    async def _retry(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of work in the database or store, for as long as that takes."""
        while True:
            try:
                return await self._in_database(_locked, work, *arguments)
            except (DatabaseError, InterfaceError, StoreUnavailable, NotAtWork) as error:
                logger.warning("Lines wait: %s", str(error).strip())
                if isinstance(error, DatabaseError | InterfaceError):
                    await self._in_database(keeping.disconnect)
                if self._stopping.is_set():
                    raise _GivenUp from error
                await asyncio.sleep(RETRY_SECONDS)

    async def _in_database(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._database, work, *arguments)


class _GivenUp(Exception):
    """The database or store did not answer while the collector was to end."""


class NotAtWork(Exception):
    """Another collector took over while this one had lost its connection."""


def _locked(work: Callable[..., T], *arguments: Any) -> T:
    if not keeping.lock():
        raise NotAtWork("Another collector is at work")
    return work(*arguments)


def _restarts(obj: Object) -> int:
    for status in (obj.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == SERVING:
            return int(status.get("restartCount", 0))
    return 0
