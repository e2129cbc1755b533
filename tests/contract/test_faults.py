"""The embedded cluster's API server when it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import aiohttp
import pytest

from localcluster import kubeconfig
from localcluster.client import ApiError, Client
from localcluster.resources import CONFIGMAPS
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
