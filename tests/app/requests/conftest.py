"""Instances without a cluster: small HTTP servers, each on an address of its own as pods have them."""

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import uvloop
from aiohttp import web
from pytest_django import Settings

from accounts.models import Role, User
from deployments import background, valkey
from deployments.models import DeploymentVersion, Instance
from deployments.services import routing
from tests.app import factories

if TYPE_CHECKING:
    from pytest_asyncio.plugin import LoopFactory

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_numbers = itertools.count(2)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> "dict[str, LoopFactory]":
    """Web processes run on uvloop, workers on asyncio's own loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def echo(request: web.Request) -> web.StreamResponse:
    return web.json_response({"result": await request.json()})


@dataclass
class Pods:
    """Starts and stops the pods of a version; they run in the process's background loop."""

    version: DeploymentVersion
    port: int
    runners: dict[str, web.AppRunner] = field(default_factory=dict)
    seen: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def start(self, handler: Handler = echo, *, listen: bool = True) -> Instance:
        """A ready instance whose ``POST /request`` is answered by ``handler``; without ``listen`` nobody is there."""
        address = f"127.0.7.{next(_numbers) % 250 + 1}"
        assert self.version.target_revision is not None
        instance = factories.instance(self.version.target_revision, address=address)
        if listen:
            background.run(self._serve(address, handler), timeout=10)
        return instance

    def stop(self, instance: Instance) -> None:
        runner = self.runners.pop(instance.address)
        background.run(runner.cleanup(), timeout=10)

    async def _serve(self, address: str, handler: Handler) -> None:
        async def call(request: web.Request) -> web.StreamResponse:
            self.seen.setdefault(address, []).append({name.lower(): value for name, value in request.headers.items()})
            return await handler(request)

        application = web.Application(client_max_size=2**26)
        application.router.add_post("/request", call)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, address, self.port).start()
        self.runners[address] = runner

    def close(self) -> None:
        for runner in self.runners.values():
            background.run(runner.cleanup(), timeout=10)
        background.run(routing.close(), timeout=10)


@pytest.fixture
def version(transactional_db: None) -> DeploymentVersion:
    """A version that runs; input is any object."""
    valkey.client().flushdb()
    deployment = factories.deployment(input_fields=[], output_fields=[])
    version = factories.version(deployment)
    factories.revision(version)
    DeploymentVersion.objects.filter(pk=version.pk).update(phase="serving")
    return DeploymentVersion.objects.select_related("deployment__project", "target_revision").get(pk=version.pk)


@pytest.fixture
def sender(version: DeploymentVersion) -> User:
    return factories.member(version.deployment.project, Role.VIEWER)


@pytest.fixture
def pods(version: DeploymentVersion, settings: Settings) -> Iterator[Pods]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings.PILOTHOUSE_SERVING_PORT = port
    settings.PILOTHOUSE_ROUTE = "pods"
    found = Pods(version, port)
    yield found
    found.close()


def failing(status: int, kind: str, message: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        body = {"error": {"type": kind, "message": message, "traceback": "secret internals"}}
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")

    return handler


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Ends the connection without an answer, as a pod does that is killed."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0)
    return web.Response()


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()
