"""The embedded cluster's API server when clients are slow, silent or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import aiohttp
import pytest
import uvicorn

from localcluster import kubeconfig
from localcluster.apiserver import bounded
from localcluster.apiserver.listening import allow_many_connections
from localcluster.client import ApiError, Client
from localcluster.resources import CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS
from tests.contract.alone import Server


def _connect(server: Server) -> ssl.SSLSocket:
    place = kubeconfig.load(server.kubeconfig)
    host, port = place.server.removeprefix("https://").split(":")
    assert place.tls is not None
    return place.tls.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname=host)


async def test_a_watcher_that_does_not_read_costs_bounded_memory(server: Server) -> None:
    place = kubeconfig.load(server.kubeconfig)
    request = (
        f"GET /api/v1/namespaces/default/configmaps?watch=true HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {place.token}\r\n\r\n"
    ).encode()
    silent = []
    for _ in range(5):
        connection = await asyncio.to_thread(_connect, server)
        connection.sendall(request)
        silent.append(connection)
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        body = {"metadata": {"name": "big"}, "data": {"k": "x" * 500_000}}
        await client.create(CONFIGMAPS, body, "default")
        before = server.memory
        for i in range(150):
            await client.patch(CONFIGMAPS, "big", "default", {"data": {"n": str(i)}})
        # 75 MB of events for each of the five, were they kept for them.
        assert server.memory - before < 150e6
    for connection in silent:
        connection.close()


async def test_idle_watches_and_half_open_sockets_leave_the_server_answering(server: Server) -> None:
    allow_many_connections()
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        half_open = []
        for _ in range(50):
            connection = await asyncio.to_thread(_connect, server)
            connection.sendall(b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n")
            half_open.append(connection)
        before = server.memory

        async def idle() -> None:
            async for _ in client.watch(CONFIGMAPS, "default", resource_version="0", timeout_seconds=60):
                pass

        watches = [asyncio.create_task(idle()) for _ in range(1000)]
        await asyncio.sleep(1)
        await client.create(CONFIGMAPS, {"metadata": {"name": "still"}}, "default")
        assert server.memory - before < 150e6
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for connection in half_open:
            connection.close()


ENDLESS = {
    "path": (b"GET /", b"x" * 100_000),
    "header": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"x" * 100_000),
    "headers": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n" * 10_000),
    "trailers": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000),
    "body": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b"x" * 65535 + b"\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_a_request_without_an_end_costs_bounded_memory(server: Server, what: str) -> None:
    start, more = ENDLESS[what]

    def send() -> None:
        connection = _connect(server)
        try:
            connection.sendall(start)
            for _ in range(500):
                connection.sendall(more)
        except OSError:
            pass  # refused, as it should be
        finally:
            connection.close()

    before = server.memory
    await asyncio.to_thread(send)
    assert server.memory - before < 60e6
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        assert (await client.list(NAMESPACES)).items


async def test_connections_that_say_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_HEAD_SECONDS", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(_nothing, http=bounded.BoundedProtocol, lifespan="off", log_config=None))
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    try:
        for words in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(words)
            assert (await asyncio.wait_for(reader.read(), 20))[:12] in (b"", b"HTTP/1.1 204")
            writer.close()
    finally:
        web.should_exit = True
        await serving


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


HOSTILE = [
    (b"[" * 100_000, 400),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400),
    (b"\xff\xfe", 400),
    (b'{"metadata":{"name":"x"},"data":' + b'{"k":"' + b"v" * 3_200_000 + b'"}}', 413),
    (b'{"metadata":{"name":{"x":1}}}', 400),
    (b'{"metadata":{"name":"x","annotations":{"a":"' + b"v" * 300_000 + b'"}}}', 422),
]


async def test_hostile_bodies_are_refused(server: Server) -> None:
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        for body, code in HOSTILE:
            with pytest.raises((ApiError, aiohttp.ClientError)) as refused:
                await client.request("POST", CONFIGMAPS.path("default"), body=body)
            if isinstance(refused.value, ApiError):
                assert refused.value.code == code, body[:60]
        assert len(await client.list(NAMESPACES)) == 4


async def test_what_is_left_out_says_so_and_names_the_way_round(server: Server) -> None:
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        for method, path in (
            ("POST", "/apis/apps/v1/namespaces/default/statefulsets"),
            ("PATCH", "/apis/batch/v1/namespaces/default/cronjobs/c"),
            ("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
            ("POST", "/api/v1/persistentvolumes"),
            ("GET", "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"),
            ("GET", "/api/v1/namespaces/default/pods/p/portforward"),
        ):
            with pytest.raises(
                ApiError, match=r"left out of the embedded cluster on purpose; (use|reach|create) "
            ) as refused:
                await client.request(method, path)
            assert refused.value.code == 404
        # What clients take every cluster to have can be looked for: there is none.
        for path in ("/apis/apps/v1/statefulsets", "/api/v1/namespaces/default/persistentvolumeclaims"):
            assert (await client.request("GET", path))["items"] == []
        for method in ("GET", "DELETE"):
            with pytest.raises(ApiError, match=r'^ingresses.networking.k8s.io "i" not found$'):
                await client.request(method, "/apis/networking.k8s.io/v1/namespaces/default/ingresses/i")
        with pytest.raises(ApiError, match="send the object as application/json instead") as protobuf:
            await client.request(
                "POST",
                CONFIGMAPS.path("default"),
                body=b"k8s\x00\x12\x04\xfa\x07\x01x",
                content_type="application/vnd.kubernetes.protobuf",
            )
        assert protobuf.value.code == 415


async def test_a_yaml_bomb_is_refused(server: Server) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    bomb = "\n".join(lines).encode()
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        with contextlib.suppress(aiohttp.ClientError), pytest.raises(ApiError) as refused:
            await client.request("POST", CONFIGMAPS.path("default"), body=bomb, content_type="application/yaml")
        assert refused.value.code in (400, 422)
        assert server.memory < 400e6


async def test_a_service_account_has_no_rights_and_strangers_have_none_either(server: Server) -> None:
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "a"}}, "default")
        answer = await client.create_subresource(SERVICEACCOUNTS, "a", "default", "token", {"spec": {}})
        place = client.connection
        for token, code in ((answer["status"]["token"], 403), ("nonsense", 401), (None, 403)):
            async with Client(kubeconfig.Connection(place.server, token, place.tls)) as stranger:
                with pytest.raises(ApiError) as refused:
                    await stranger.list(CONFIGMAPS, "default")
                assert refused.value.code == code
                assert place.token not in str(refused.value.status)
        await client.delete(SERVICEACCOUNTS, "a", "default")
        async with Client(kubeconfig.Connection(place.server, answer["status"]["token"], place.tls)) as gone:
            with pytest.raises(ApiError) as refused:
                await gone.request("GET", "/api")
            assert refused.value.code == 401
