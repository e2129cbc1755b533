"""What the API server carries on to pods and services: requests, streams and websockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from localcluster.client import ApiError, Client
from localcluster.resources import ENDPOINTSLICES, NODES, PODS, SERVICEACCOUNTS, SERVICES
from tests.contract.alone import Server


@dataclass
class Backend:
    """A web server that stands for a pod."""

    port: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    received: list[bytes] = field(default_factory=list)

    async def echo(self, request: web.Request) -> web.Response:
        headers = {key.lower(): value for key, value in request.headers.items()}
        shown = {"path": request.raw_path, "method": request.method, "headers": headers}
        return web.json_response({**shown, "body": (await request.read()).decode()}, status=418)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await self.go_on.wait()
        await response.write(b"data: two\n\n")
        return response

    async def upload(self, request: web.Request) -> web.Response:
        async for chunk in request.content.iter_any():
            self.received.append(chunk)
            self.go_on.set()
        return web.Response(text=str(sum(map(len, self.received))))

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(protocols=["chat"])
        await response.prepare(request)
        async for message in response:
            if message.data == "bye":
                await response.close(code=4001)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await response.send_str(message.data[::-1])
            else:
                await response.send_bytes(message.data[::-1])
        return response

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(text='<a href="/abs">x</a><a href="rel">y</a>', content_type="text/html")

    async def moved(self, _: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/other"})


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    found = Backend()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/stream", found.stream)
    app.router.add_post("/upload", found.upload)
    app.router.add_get("/socket", found.socket)
    app.router.add_get("/page", found.page)
    app.router.add_get("/moved", found.moved)
    app.router.add_route("*", "/{rest:.*}", found.echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


@pytest.fixture
async def proxied(server: Server, backend: Backend) -> AsyncIterator[tuple[Client, str]]:
    """A client and the URL under which it sees the backend as a service."""
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        service = {"metadata": {"name": "s"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
        await client.create(SERVICES, service, "default")
        endpoints: dict[str, Any] = {
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "http", "port": backend.port}],
        }
        await client.create(ENDPOINTSLICES, endpoints, "default")
        yield client, client.connection.server + "/api/v1/namespaces/default/services/s:http/proxy"


async def test_a_request_passes_with_all_that_matters(proxied: tuple[Client, str]) -> None:
    client, url = proxied
    async with client.session.post(url + "/a/b?x=1&y=%20", data=b"hello", headers={"X-Mine": "1"}) as answer:
        assert answer.status == 418
        seen = json.loads(await answer.text())
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/a/b?x=1&y=%20", "hello")
    assert seen["headers"]["x-mine"] == "1"
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert seen["headers"]["x-forwarded-uri"].endswith("/services/s:http/proxy/a/b")
    assert "authorization" not in seen["headers"]


async def test_links_and_redirects_lead_through_the_proxy(proxied: tuple[Client, str]) -> None:
    client, url = proxied
    root = url.removeprefix(client.connection.server)
    async with client.session.get(url + "/page") as page:
        assert await page.text() == f'<a href="{root}/abs">x</a><a href="rel">y</a>'
    async with client.session.get(url + "/moved", allow_redirects=False) as moved:
        assert moved.headers["Location"] == root + "/other"


async def test_an_answer_is_streamed(proxied: tuple[Client, str], backend: Backend) -> None:
    client, url = proxied
    async with client.session.get(url + "/stream") as answer:
        assert await answer.content.readuntil(b"\n\n") == b"data: one\n\n"
        backend.go_on.set()  # only now may the second part exist
        assert await answer.content.readuntil(b"\n\n") == b"data: two\n\n"


async def test_a_body_is_streamed(proxied: tuple[Client, str], backend: Backend) -> None:
    client, url = proxied

    async def parts() -> AsyncIterator[bytes]:
        yield b"a" * 1000
        await backend.go_on.wait()  # the backend has the first part before the second is sent
        for _ in range(50):
            yield b"b" * 100_000

    async with client.session.post(url + "/upload", data=parts()) as answer:
        assert await answer.text() == str(1000 + 5_000_000)


async def test_a_websocket_passes_both_ways(proxied: tuple[Client, str]) -> None:
    client, url = proxied
    async with client.session.ws_connect(url + "/socket", protocols=["chat"]) as socket:
        assert socket.protocol == "chat"
        await socket.send_str("abc")
        assert await socket.receive_str() == "cba"
        await socket.send_bytes(b"\x00\x01" * 50_000)
        assert await socket.receive_bytes() == b"\x01\x00" * 50_000
        await socket.send_str("bye")
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 4001


async def test_nobody_there_is_said_plainly(proxied: tuple[Client, str]) -> None:
    client, url = proxied
    path = url.removeprefix(client.connection.server)
    with pytest.raises(ApiError, match="service port") as unknown:
        await client.request("GET", path.replace("s:http", "s:none") + "/")
    assert unknown.value.code == 503
    not_ready = {"endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": False}}]}
    await client.patch(ENDPOINTSLICES, "s-1", "default", not_ready)
    with pytest.raises(ApiError, match='no endpoints available for service "s:http"'):
        await client.request("GET", path + "/")
    await client.delete(ENDPOINTSLICES, "s-1", "default")
    with pytest.raises(ApiError) as without:
        await client.request("GET", path + "/")
    assert (without.value.code, without.value.details["kind"]) == (404, "services")


async def test_a_pod_of_a_silent_kubelet_has_no_log(server: Server) -> None:
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
        status |= {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
        await client.create(NODES, {"metadata": {"name": "n"}, "status": status})
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}], "nodeName": "n"}}
        await client.create(PODS, pod, "default")
        with pytest.raises(ApiError, match="waiting to start: ContainerCreating"):
            await client.request("GET", PODS.path("default", "p", "log"))
        running = {"name": "c", "ready": True, "restartCount": 0, "image": "x", "imageID": "", "state": {"running": {}}}
        await client.patch(PODS, "p", "default", {"status": {"containerStatuses": [running]}}, subresource="status")
        with pytest.raises(ApiError, match="connection refused") as refused:
            await client.request("GET", PODS.path("default", "p", "log"))
        assert refused.value.code == 503
