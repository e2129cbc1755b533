"""The embedded cluster's API server when it is killed, and when clients are slow or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import ssl

import aiohttp
import pytest

from localcluster import kubeconfig
from localcluster.client import ApiError, Client
from localcluster.resources import CONFIGMAPS, NAMESPACES
from tests.contract.alone import Server

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "6"))
WRITERS = 8


async def write_until_killed(
    client: Client, writer: str, acknowledged: dict[str, int], enough: asyncio.Event, wanted: int
) -> None:
    """Create objects one after another; `enough` is set once all writers together have `wanted` answers."""
    count = 0
    while True:
        name = f"{writer}-{count}"
        try:
            made = await client.create(CONFIGMAPS, {"metadata": {"name": name}, "data": {"k": name}}, "default")
        except (aiohttp.ClientError, OSError, ApiError):
            return
        acknowledged[name] = int(made["metadata"]["resourceVersion"])
        count += 1
        if len(acknowledged) >= wanted:
            enough.set()


async def test_no_acknowledged_write_is_lost_to_a_kill(server: Server) -> None:
    acknowledged: dict[str, int] = {}
    highest = 0
    for round_ in range(ROUNDS):
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            before, enough = dict(acknowledged), asyncio.Event()
            wanted = len(before) + random.randint(5, 120)
            writers = [
                asyncio.create_task(write_until_killed(client, f"r{round_}-w{i}", acknowledged, enough, wanted))
                for i in range(WRITERS)
            ]
            await asyncio.wait_for(enough.wait(), 30)
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            await asyncio.gather(*writers)
        assert len(acknowledged) > len(before)
        await asyncio.to_thread(server.start)
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            page = await client.list(CONFIGMAPS, "default", page_size=300)
        found = {one["metadata"]["name"]: int(one["metadata"]["resourceVersion"]) for one in page}
        assert {name: found.get(name) for name in acknowledged} == acknowledged
        assert int(page.resource_version) >= max(acknowledged.values())
        new = [acknowledged[name] for name in acknowledged if name not in before]
        assert min(new) > highest, "a revision was given twice"
        highest = int(page.resource_version)


async def test_a_token_and_the_address_outlive_a_restart(server: Server) -> None:
    before = kubeconfig.load(server.kubeconfig)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    after = kubeconfig.load(server.kubeconfig)
    assert (after.server, after.token) == (before.server, before.token)
    assert server.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert (server.data / "store.db").stat().st_mode & 0o777 == 0o600


async def test_a_watch_resumes_over_a_restart_by_listing_again(server: Server) -> None:
    async with Client.from_kubeconfig(server.kubeconfig) as client:
        page = await client.list(CONFIGMAPS, "default")
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        await asyncio.to_thread(server.start)
        with pytest.raises(ApiError) as expired:
            async for _ in client.watch(CONFIGMAPS, "default", resource_version=page.resource_version):
                pass
        assert expired.value.is_expired


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

        watches = [asyncio.create_task(idle()) for _ in range(300)]
        await asyncio.sleep(1)
        await client.create(CONFIGMAPS, {"metadata": {"name": "still"}}, "default")
        assert server.memory - before < 120e6
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for connection in half_open:
            connection.close()


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
        for path in (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            "/api/v1/persistentvolumes",
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            "/api/v1/namespaces/default/pods/p/portforward",
        ):
            with pytest.raises(ApiError, match=r"left out of the embedded cluster on purpose; (use|reach) ") as refused:
                await client.request("GET", path)
            assert refused.value.code == 404
        with pytest.raises(ApiError, match="send the object as application/json instead") as protobuf:
            await client.request(
                "POST",
                CONFIGMAPS.path("default"),
                body=b"k8s\x00\x12\x03\xfa\x07\x00",
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
        from localcluster.resources import SERVICEACCOUNTS

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
