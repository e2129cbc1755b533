"""Live log lines from an API server that misbehaves: one follow per pod, order, bounds, resuming."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async
from kubernetes.client.configuration import Configuration

from deployments import cluster as clusters
from deployments.models import DeploymentVersion, Instance
from kube.connect import Cluster
from monitoring import fanout
from monitoring.fanout import PodLine, Subscription
from monitoring.followers import Hub
from tests.app import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("thread_connections")]

Handler = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def stamp(nanoseconds: int) -> str:
    return f"2026-01-02T03:04:05.{nanoseconds:09d}Z"


class Api:
    """Logs of pods by name; every request for one is counted."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.waiting: set[str] = set()  # pods whose package is not there yet
        self.open = 0
        self.most = 0

    async def log(self, request: web.Request) -> web.StreamResponse:
        pod = request.match_info["pod"]
        if request.query["container"] != "serving":
            pod = f"{pod}/{request.query['container']}"
        elif pod in self.waiting:
            return web.json_response({"kind": "Status", "reason": "BadRequest", "message": "waits"}, status=400)
        self.requests.append((pod, dict(request.query)))
        if pod not in self.handlers:
            return web.json_response({"kind": "Status", "reason": "NotFound", "message": "no"}, status=404)
        response = web.StreamResponse()
        await response.prepare(request)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.handlers[pod](request, response)
        finally:
            self.open -= 1
        return response


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    found = Api()
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/log", found.log)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    cluster = Cluster(configuration)
    monkeypatch.setattr(clusters, "current", lambda: cluster)
    yield found
    await runner.cleanup()
    cluster.close()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    found = Hub()
    yield found
    await found.close()


@pytest.fixture
def version(transactional_db: None) -> DeploymentVersion:
    version = factories.version()
    factories.revision(version)
    return version


def pod(version: DeploymentVersion, name: str) -> Instance:
    assert version.target_revision is not None
    return factories.instance(version.target_revision, pod_name=name)


def writing(*lines: tuple[int, str], then_wait: bool = True) -> Handler:
    async def handler(request: web.Request, response: web.StreamResponse) -> None:
        for at, text in lines:
            await response.write(f"{stamp(at)} {text}\n".encode())
        if then_wait:
            await asyncio.sleep(60)

    return handler


async def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not happened():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def taken(subscription: Subscription) -> tuple[list[PodLine], int]:
    """All lines that wait, and how many were dropped before any of them."""
    lines: list[PodLine] = []
    skipped = 0
    while True:
        batch, dropped = subscription.take()
        skipped += dropped
        if batch is None:
            return lines, skipped
        lines += batch.lines


async def collect(subscription: Subscription, number: int) -> list[str]:
    found: list[str] = []
    deadline = time.monotonic() + 15
    while len(found) < number:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
        lines, _ = taken(subscription)
        found += [line.text for line in lines]
    return found


async def test_lines_of_all_pods_are_merged_in_time(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    for name, lines in {"a": [(1, "one"), (3, "three")], "b": [(2, "two"), (4, "four")]}.items():
        await sync_to_async(pod)(version, name)
        api.handlers[name] = writing(*lines)
    subscription = hub.subscribe(version.pk)
    await until(lambda: subscription.waiting == 4)
    lines, skipped = taken(subscription)
    # Pods are heard one after the other; what is written in one moment leaves in order of time.
    assert subscription.waiting == 0
    assert [line.text for line in lines] == ["one", "two", "three", "four"]
    assert {line.instance for line in lines} == {"a", "b"}
    assert {line.revision for line in lines} == {1}
    assert skipped == 0


async def test_many_readers_are_one_follow(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    api.handlers["a"] = writing((1, "one"), (2, "two"))
    readers = [hub.subscribe(version.pk) for _ in range(20)]
    for reader in readers:
        assert await collect(reader, 2) == ["one", "two"]
    # One that joins later begins with what there was.
    assert await collect(hub.subscribe(version.pk), 2) == ["one", "two"]
    assert api.most == 1
    assert hub.followed == 1


async def test_the_last_reader_ends_the_follow(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    api.handlers["a"] = writing((1, "one"))
    first, second = hub.subscribe(version.pk), hub.subscribe(version.pk)
    await collect(first, 1)
    hub.unsubscribe(first)
    assert hub.followed == 1
    hub.unsubscribe(second)
    assert hub.followed == 0
    await until(lambda: api.open == 0)


async def test_a_broken_stream_goes_on_without_loss_or_repeats(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    log = [(number // 3, f"line {number}") for number in range(30)]
    breaks = iter([5, 11, 12, 29])

    async def handler(request: web.Request, response: web.StreamResponse) -> None:
        # As the API does it: everything of the second asked for, again.
        end = next(breaks, 30)
        await writing(*log[:end], then_wait=end == 30)(request, response)
        if end != 30:
            assert request.transport is not None
            request.transport.abort()

    api.handlers["a"] = handler
    subscription = hub.subscribe(version.pk)
    assert await collect(subscription, 30) == [text for _, text in log]
    assert api.requests[0][1]["tailLines"]
    assert api.requests[-1][1]["sinceTime"] == "2026-01-02T03:04:05Z"


async def test_a_reader_that_does_not_read_costs_no_more_than_its_queue(
    api: Api, hub: Hub, version: DeploymentVersion
) -> None:
    await sync_to_async(pod)(version, "a")
    total = 3 * fanout.BACKLOG_LINES
    api.handlers["a"] = writing(*[(number, str(number)) for number in range(total)])
    lazy = hub.subscribe(version.pk)
    await until(lambda: lazy.waiting + lazy.skipped == total)
    # Every line is delivered or counted as skipped, the oldest are those that are skipped.
    assert lazy.waiting <= fanout.BACKLOG_LINES
    lines, skipped = taken(lazy)
    assert [line.text for line in lines] == [str(number) for number in range(skipped, total)]


async def test_a_reader_that_reads_gets_every_line_of_a_flood(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    total = 5 * fanout.BACKLOG_LINES
    flood = "".join(f"{stamp(number)} {number}\n" for number in range(total)).encode()

    async def handler(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(flood)
        await asyncio.sleep(60)

    api.handlers["a"] = handler
    subscription = hub.subscribe(version.pk)
    read: list[str] = []
    async with asyncio.timeout(30):
        while len(read) < total:
            await subscription.filled.wait()
            lines, skipped = taken(subscription)
            assert skipped == 0
            read += [line.text for line in lines]
    assert read == [str(number) for number in range(total)]


async def test_large_lines_are_bounded_by_their_size(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    total = 2 * fanout.BACKLOG_CHARACTERS // 10_000
    api.handlers["a"] = writing(*[(number, "x" * 10_000) for number in range(total)])
    lazy = hub.subscribe(version.pk)
    await until(lambda: lazy.waiting + lazy.skipped == total)
    lines, skipped = taken(lazy)
    assert sum(len(line.text) for line in lines) <= fanout.BACKLOG_CHARACTERS
    assert len(lines) + skipped == total


async def test_a_batch_is_encoded_once_for_all_readers(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    api.handlers["a"] = writing((1, "one"), (2, "<b>\u00fc\x1b[31m"))
    readers = [hub.subscribe(version.pk) for _ in range(10)]
    await until(lambda: all(reader.waiting == 2 for reader in readers))
    batches = [reader.take()[0] for reader in readers]
    assert batches[0] is not None
    assert json.loads(batches[0].encoded) == [
        {"instance": "a", "revision": 1, "time": stamp(1), "text": "one"},
        {"instance": "a", "revision": 1, "time": stamp(2), "text": "<b>\u00fc\x1b[31m"},
    ]
    assert len({id(batch.encoded) for batch in batches if batch}) == 1


async def test_new_instances_join_at_a_hint_and_those_gone_end(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    old = await sync_to_async(pod)(version, "old")
    api.handlers["old"] = writing((1, "old"))
    subscription = hub.subscribe(version.pk)
    assert await collect(subscription, 1) == ["old"]
    await sync_to_async(pod)(version, "new")
    api.handlers["new"] = writing((2, "new"))
    hub.hint(version.pk)
    assert await collect(subscription, 1) == ["new"]
    del api.handlers["old"]
    await Instance.objects.filter(pk=old.pk).aupdate(deleted_at=old.time_created)


async def test_nobody_asks_for_pods_of_another_version(api: Api, hub: Hub, version: DeploymentVersion) -> None:
    await sync_to_async(pod)(version, "a")
    api.handlers["a"] = writing((1, "secret"))
    other = await sync_to_async(factories.version)()
    subscription = hub.subscribe(other.pk)
    hub.subscribe(uuid.uuid4())
    await asyncio.sleep(0.5)
    assert subscription.take() == (None, 0)
    assert api.requests == []


async def test_what_brings_the_package_is_seen_before_the_server_begins(
    api: Api, hub: Hub, version: DeploymentVersion
) -> None:
    await sync_to_async(pod)(version, "a")
    api.waiting.add("a")
    api.handlers["a/package"] = writing((1, "Fetching again"), (2, "The package is here"), then_wait=False)
    api.handlers["a"] = writing((3, "ready"))
    subscription, seen = hub.subscribe(version.pk), []

    def texts() -> list[str]:
        seen.extend(line.text for line in taken(subscription)[0])
        return seen

    await until(lambda: len(texts()) == 2)
    api.waiting.clear()
    await until(lambda: len(texts()) == 3)
    assert texts() == ["[package] Fetching again", "[package] The package is here", "ready"]
