"""The way of a request to an instance: which one, over which address, and what happens when it goes away.

Instances are read from the database, kept for a second per process, and read again at once when one of them does not
answer. Of those that are ready the one with the fewest requests under way (of this process) is taken.
"""

import asyncio
import logging
import math
import random
import time
import uuid
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
import redis.asyncio
from django.conf import settings

from accounts.errors import Timeout, Unavailable
from deployments import cluster as clusters
from deployments import hints
from deployments.models import DeploymentVersion, Instance, Revision
from deployments.services import scaling
from deployments.services.pod_http import ConnectionLost, NotConnected, PodConnections
from deployments.services.threads import in_thread
from kube.connect import path_of
from kube.errors import ClusterUnreachable

logger = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_SECONDS = 1.0
POLL_SECONDS = 0.15
CONNECT_SECONDS = 2.0
# A version may go idle again, or wait for quota, while a request waits for it.
WAKE_AGAIN_SECONDS = 2.0
# An instance that dies over a request may die of it; do not feed it to all the others.
INTERRUPTIONS = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One ready instance."""

    instance_id: uuid.UUID
    namespace: str
    pod: str
    address: str
    port: int


@dataclass(slots=True)
class Fleet:
    """What this process knows of a version's instances."""

    endpoints: tuple[Endpoint, ...] = ()
    read_at: float = -1e9
    idle: bool = False
    # Why there is none, and whether waiting is of no use.
    trouble: str = ""
    hopeless: bool = False
    running: Counter[uuid.UUID] = field(default_factory=Counter)
    refreshing: "asyncio.Future[None] | None" = None

    def pick(self, avoid: set[uuid.UUID]) -> Endpoint | None:
        choice = [endpoint for endpoint in self.endpoints if endpoint.instance_id not in avoid]
        if not choice:
            return None
        least = min(self.running[endpoint.instance_id] for endpoint in choice)
        return random.choice([e for e in choice if self.running[e.instance_id] == least])  # noqa: S311 - spreads load


@dataclass(slots=True)
class Reply:
    """An instance's answer."""

    endpoint: Endpoint
    status: int
    body: bytes


class _Loop:
    """The connections and the known fleets of an event loop."""

    def __init__(self) -> None:
        ssl = None
        if settings.PILOTHOUSE_ROUTE != "pods":
            ssl = clusters.current().ssl_context()
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=ssl if ssl is not None else True)
        self.session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self.pods = PodConnections()
        self.fleets: dict[uuid.UUID, Fleet] = {}
        self.listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """Read a fleet again as soon as its instances change. Without hints, it is read again every second."""
        while True:
            try:
                async with (
                    redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2) as client,
                    client.pubsub(ignore_subscribe_messages=True) as channel,
                ):
                    await channel.subscribe(hints.INSTANCES)
                    while True:
                        message = await channel.get_message(timeout=30)
                        if message is not None:
                            forget(uuid.UUID(message["data"].decode()))
            except (redis.RedisError, OSError) as error:
                logger.info("Hints about instances are interrupted: %s", error)
                await asyncio.sleep(1)

    async def close(self) -> None:
        self.listener.cancel()
        with suppress(asyncio.CancelledError):
            await self.listener
        await self.session.close()
        self.pods.close()


_loops: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop]" = weakref.WeakKeyDictionary()


def _here() -> _Loop:
    loop = asyncio.get_running_loop()
    state = _loops.get(loop)
    if state is None:
        try:
            state = _loops[loop] = _Loop()
        except ClusterUnreachable as error:
            raise Unavailable(f"{error}", code="cluster_unreachable", retry_after=10) from error
    return state


async def close() -> None:
    """Close the connections of the running loop."""
    state = _loops.pop(asyncio.get_running_loop(), None)
    if state is not None:
        await state.close()


def forget(version_id: uuid.UUID) -> None:
    """Have the running loop read the version's instances again before the next request."""
    fleet = _here().fleets.get(version_id)
    if fleet is not None:
        fleet.read_at = -1e9


def _read(version_id: uuid.UUID) -> tuple[tuple[Endpoint, ...], bool, str, bool]:
    version = (
        DeploymentVersion.objects.select_related("deployment__project", "target_revision").filter(pk=version_id).first()
    )
    if version is None:
        return (), False, "The version was deleted.", True
    project = version.deployment.project
    if project.suspended:
        return (), False, "The project is suspended. Resume it first.", True
    if version.target_revision is None:
        return (), False, "Nothing is deployed yet. Upload a revision first.", True
    port = settings.PILOTHOUSE_SERVING_PORT
    if version.target_revision.kind == Revision.Kind.IMAGE:
        port = int((version.health_check or {}).get("port", port))
    endpoints = tuple(
        Endpoint(instance.id, project.namespace, instance.pod_name, instance.address, port)
        for instance in Instance.objects.filter(version_id=version_id, deleted_at=None, ready=True)
        if instance.address
    )
    failed = version.phase == DeploymentVersion.Phase.FAILED
    return endpoints, version.desired_instances == 0, version.reason_message, failed and version.desired_instances > 0


async def _refresh(version_id: uuid.UUID, fleet: Fleet) -> None:
    """Read the fleet; calls at the same time share one query."""
    if fleet.refreshing is None or fleet.refreshing.done():
        fleet.refreshing = asyncio.ensure_future(_refresh_once(version_id, fleet))
    await asyncio.shield(fleet.refreshing)


async def _refresh_once(version_id: uuid.UUID, fleet: Fleet) -> None:
    endpoints, idle, trouble, hopeless = await in_thread(_read, version_id)
    fleet.endpoints, fleet.idle, fleet.trouble, fleet.hopeless = endpoints, idle, trouble, hopeless
    fleet.read_at = time.monotonic()
    for gone in set(fleet.running) - {endpoint.instance_id for endpoint in endpoints}:
        if fleet.running[gone] <= 0:
            del fleet.running[gone]


async def _endpoint(version_id: uuid.UUID, fleet: Fleet, avoid: set[uuid.UUID], until: float) -> Endpoint:
    """A ready instance, waiting for one until the monotonic time ``until``; starts one if the version is idle."""
    if time.monotonic() - fleet.read_at > FRESH_SECONDS:
        await _refresh(version_id, fleet)
    woken_at = -math.inf
    while True:
        endpoint = fleet.pick(avoid)
        if endpoint is not None:
            return endpoint
        avoid.clear()
        if fleet.hopeless:
            raise Unavailable(f"No instance can answer: {fleet.trouble}", code="no_instance")
        if fleet.idle and time.monotonic() - woken_at > WAKE_AGAIN_SECONDS:
            woken_at = time.monotonic()
            await in_thread(scaling.wake_up, version_id)
        left = until - time.monotonic()
        if left <= 0:
            why = f": {fleet.trouble}" if fleet.trouble else "."
            raise Unavailable(f"No instance became ready in time{why}", code="no_instance", retry_after=10)
        await asyncio.sleep(min(POLL_SECONDS, left))
        await _refresh(version_id, fleet)


def address(endpoint: Endpoint) -> tuple[str, dict[str, str]]:
    """Base URL of an instance and the headers that the way there asks for."""
    if settings.PILOTHOUSE_ROUTE == "pods":
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        return f"http://{host}:{endpoint.port}", {}
    cluster = clusters.current()
    path = path_of("Pod", endpoint.namespace, f"{endpoint.pod}:{endpoint.port}", "proxy")
    return cluster.server + path, cluster.auth_headers()


async def _reach(
    version_id: uuid.UUID,
    seconds: float,
    patience: float | None,
    ask: Callable[[Endpoint, float], Awaitable[T]],
) -> tuple[Fleet, Endpoint, T]:
    """What ``ask(endpoint, seconds left)`` gives of a ready instance, having gone on to another one when need be.

    The caller takes the request from ``fleet.running`` when it is done with it. Raises as `open_reply`.
    """
    fleet = _here().fleets.setdefault(version_id, Fleet())
    until = time.monotonic() + seconds
    wait_until = until if patience is None else min(until, time.monotonic() + patience)
    avoid: set[uuid.UUID] = set()
    interruptions = 0
    while True:
        endpoint = await _endpoint(version_id, fleet, avoid, wait_until)
        fleet.running[endpoint.instance_id] += 1
        try:
            return fleet, endpoint, await ask(endpoint, max(until - time.monotonic(), 0.001))
        except BaseException as error:
            fleet.running[endpoint.instance_id] -= 1
            interruptions += isinstance(error, ConnectionLost)
            if interruptions > INTERRUPTIONS:
                raise Unavailable(
                    "The instance that worked on the request went away. If it ran out of memory, choose a larger "
                    "instance type.",
                    code="interrupted",
                ) from error
            if isinstance(error, TimeoutError):
                raise Timeout(f"The instance did not answer within {seconds:g} seconds.", code="timeout") from None
            if isinstance(error, ClusterUnreachable):
                raise Unavailable(f"{error}", code="cluster_unreachable", retry_after=10) from error
            if not isinstance(error, NotConnected | ConnectionLost):
                raise
        avoid.add(endpoint.instance_id)
        await _refresh(version_id, fleet)
        if fleet.pick(avoid) is None:
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def open_reply(
    version_id: uuid.UUID,
    path: str,
    body: bytes,
    headers: dict[str, str],
    seconds: float,
    patience: float | None = None,
) -> AsyncIterator[tuple[Endpoint, aiohttp.ClientResponse]]:
    """POST to a ready instance and give its answer as it begins, having gone on to another one when need be.

    Raises Unavailable when no instance is there within ``seconds``, Timeout when one is but does not answer.
    """
    session = _here().session
    fleet, endpoint, response = await _reach(
        version_id, seconds, patience, lambda endpoint, left: _open(session, endpoint, path, body, headers, left)
    )
    try:
        yield endpoint, response
    finally:
        response.release()
        fleet.running[endpoint.instance_id] -= 1


async def _open(
    session: aiohttp.ClientSession, endpoint: Endpoint, path: str, body: bytes, headers: dict[str, str], left: float
) -> aiohttp.ClientResponse:
    base, extra = address(endpoint)
    limits = aiohttp.ClientTimeout(total=left, sock_connect=min(CONNECT_SECONDS, left))
    try:
        response = await session.post(
            base + path, data=body, headers={**headers, **extra}, timeout=limits, allow_redirects=False
        )
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
        raise NotConnected(str(error)) from None
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLost(str(error)) from error
    if settings.PILOTHOUSE_ROUTE == "pods" or response.status not in (404, 502, 503):
        return response
    # The API server's own answers are Status objects: the pod is gone, or does not listen.
    content = await response.read()
    if b'"kind":"Status"' in content.replace(b" ", b""):
        response.release()
        raise NotConnected("The API server does not reach the pod")
    return response


async def send(
    version_id: uuid.UUID,
    path: str,
    body: bytes,
    *,
    headers: dict[str, str],
    seconds: float,
    patience: float | None = None,
) -> Reply:
    """As `open_reply`, with the whole answer read. ``seconds`` are for everything together.

    With ``patience`` the wait for a ready instance ends after that many seconds.
    """
    if settings.PILOTHOUSE_ROUTE == "pods":
        pods = _here().pods
        fleet, endpoint, answer = await _reach(
            version_id,
            seconds,
            patience,
            lambda endpoint, left: pods.post(
                endpoint.address, endpoint.port, path, headers, body, connect_seconds=CONNECT_SECONDS, seconds=left
            ),
        )
        fleet.running[endpoint.instance_id] -= 1
        return Reply(endpoint, answer.status, answer.body)
    try:
        async with open_reply(version_id, path, body, headers, seconds, patience) as (endpoint, response):
            return Reply(endpoint, response.status, await response.read())
    except TimeoutError:
        raise Timeout(f"The instance did not answer within {seconds:g} seconds.", code="timeout") from None
    except aiohttp.ClientError as error:
        raise Unavailable("The instance went away while it answered.", code="interrupted") from error
