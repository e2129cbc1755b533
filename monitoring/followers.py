"""Live log lines: one follower per pod and process, fanned out to everybody who looks at the version.

Lines of all pods of a version gather for a moment and leave as one batch in order of time. The last lines are kept for
those who join.
"""

import asyncio
import logging
import time
import uuid
import weakref
from collections import deque
from dataclasses import dataclass, field

import aiohttp

from deployments import cluster as clusters
from deployments.models import Instance, Revision
from deployments.services.threads import in_thread
from kube.connect import Cluster
from kube.errors import ClusterUnreachable, KubeError
from kube.logs import Cursor, Line, follow
from monitoring.containers import PACKAGE, SERVING, marked
from monitoring.fanout import BATCH_CHARACTERS, BATCH_LINES, Batch, PodLine, Subscription

logger = logging.getLogger(__name__)

HISTORY = 500
# How long lines gather; less for the first ones after a silence.
BATCH_SECONDS = 0.1
FIRST_SECONDS = 0.02
# Hints tell of new instances at once; this is for lost hints.
REFRESH_SECONDS = 5.0


@dataclass(slots=True)
class _Tail:
    """The followers of one version and who reads them."""

    readers: set[Subscription] = field(default_factory=set)
    pods: dict[uuid.UUID, "asyncio.Task[None]"] = field(default_factory=dict)
    history: deque[PodLine] = field(default_factory=lambda: deque(maxlen=HISTORY))
    latest: Batch | None = None  # the history as those get it who join before it changes
    gathering: list[PodLine] = field(default_factory=list)
    characters: int = 0  # of what gathers
    flushed_at: float = 0.0
    flush: asyncio.TimerHandle | None = None
    refresher: "asyncio.Task[None] | None" = None
    hint: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Pod:
    uid: uuid.UUID
    namespace: str
    name: str
    revision: int


class Hub:
    """All followers of one event loop."""

    def __init__(self) -> None:
        self._tails: dict[uuid.UUID, _Tail] = {}
        self._session: aiohttp.ClientSession | None = None

    def subscribe(self, version_id: uuid.UUID) -> Subscription:
        """Lines of all instances of a version: the latest ones first, then each as it is written."""
        subscription = Subscription(version_id)
        tail = self._tails.get(version_id)
        if tail is None:
            tail = self._tails[version_id] = _Tail()
            tail.refresher = asyncio.create_task(self._refresh(version_id, tail))
        if tail.history:
            tail.latest = tail.latest or Batch(tail.history)
            subscription.put(tail.latest)
        tail.readers.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End it; with the last reader of a version its followers end."""
        tail = self._tails.get(subscription.version_id)
        if tail is None:
            return
        tail.readers.discard(subscription)
        if not tail.readers:
            del self._tails[subscription.version_id]
            for task in [tail.refresher, tail.flush, *tail.pods.values()]:
                if task is not None:
                    task.cancel()

    def hint(self, version_id: uuid.UUID) -> None:
        """The version's instances may have changed."""
        tail = self._tails.get(version_id)
        if tail is not None:
            tail.hint.set()

    @property
    def followed(self) -> int:
        """How many pods are followed."""
        return sum(len(tail.pods) for tail in self._tails.values())

    async def close(self) -> None:
        """End all followers and the connections to the cluster."""
        for tail in list(self._tails.values()):
            for reader in list(tail.readers):
                self.unsubscribe(reader)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connection(self) -> tuple[aiohttp.ClientSession, Cluster]:
        cluster = clusters.current()
        if self._session is None or self._session.closed:
            ssl = cluster.ssl_context()
            connector = aiohttp.TCPConnector(limit=0, ssl=ssl if ssl is not None else True)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session, cluster

    async def _refresh(self, version_id: uuid.UUID, tail: _Tail) -> None:
        while True:
            tail.hint.clear()
            try:
                pods = await in_thread(_pods, version_id)
            except Exception as error:  # the database is away: what is followed stays followed
                logger.warning("Instances cannot be read: %s", error)
            else:
                for uid in set(tail.pods) - {pod.uid for pod in pods}:
                    # A pod that is gone has said its last words by the end of its stream.
                    if tail.pods[uid].done():
                        del tail.pods[uid]
                for pod in pods:
                    if pod.uid not in tail.pods:
                        tail.pods[pod.uid] = asyncio.create_task(self._follow(pod, tail))
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await tail.hint.wait()
            except TimeoutError:
                continue

    async def _follow(self, pod: _Pod, tail: _Tail) -> None:
        cursor, pause = Cursor(), 0.3
        while True:
            began = time.monotonic()
            try:
                wrote = await self._read(pod, SERVING, cursor, tail)
                if wrote is None:  # its package is not there yet
                    wrote = await self._read(pod, PACKAGE, cursor, tail)
                if wrote:
                    pause = 0.3
            except KubeError as error:
                if error.status == 404:
                    return
            except ClusterUnreachable as error:
                logger.info("%s", error)
            # The container waits to start, has ended and may start again, or the connection broke.
            if time.monotonic() - began > 5:
                pause = 0.3
            await asyncio.sleep(pause)
            pause = min(pause * 1.7, 3.0)

    async def _read(self, pod: _Pod, container: str, cursor: Cursor, tail: _Tail) -> bool | None:
        """Follow a container to the end of its log; whether it wrote anything, None while it waits to start."""
        session, cluster = self._connection()
        wrote = False
        try:
            async for line in follow(session, cluster, pod.namespace, pod.name, container, cursor, tail=HISTORY):
                wrote = True
                if self._deliver(pod, marked(line, container), tail):
                    await asyncio.sleep(0)  # a flood must not keep those who read from reading
        except KubeError as error:
            if error.status == 400:
                return None
            raise
        return wrote

    @staticmethod
    def _deliver(pod: _Pod, line: Line, tail: _Tail) -> bool:
        """Whether this line filled a batch, which left at once."""
        tail.gathering.append(PodLine(pod.name, pod.revision, line.time, line.text))
        tail.characters += len(line.text)
        if len(tail.gathering) >= BATCH_LINES or tail.characters >= BATCH_CHARACTERS:
            _flush(tail)
            return True
        if tail.flush is None:
            loop = asyncio.get_running_loop()
            quiet = loop.time() - tail.flushed_at > BATCH_SECONDS
            tail.flush = loop.call_later(FIRST_SECONDS if quiet else BATCH_SECONDS, _flush, tail)
        return False


def _flush(tail: _Tail) -> None:
    """Give what has gathered to all readers."""
    if tail.flush is not None:
        tail.flush.cancel()
    batch = Batch(tail.gathering)
    tail.gathering, tail.characters, tail.flush, tail.latest = [], 0, None, None
    tail.flushed_at = asyncio.get_running_loop().time()
    tail.history.extend(batch.lines)
    for reader in tail.readers:
        reader.put(batch)


def _pods(version_id: uuid.UUID) -> list[_Pod]:
    revisions = dict(Revision.objects.filter(version_id=version_id).values_list("id", "number"))
    return [
        _Pod(
            row.id,
            row.version.deployment.project.namespace,
            row.pod_name,
            revisions.get(row.revision_id, 0) if row.revision_id else 0,
        )
        for row in Instance.objects.filter(version_id=version_id, deleted_at=None).select_related(
            "version__deployment__project"
        )
    ]


_hubs: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = weakref.WeakKeyDictionary()


def hub() -> Hub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]
