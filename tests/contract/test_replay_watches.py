"""Recorded watches of a real Kubernetes: the same events in the same order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import aiohttp

from localcluster.client import ApiError, Client
from localcluster.resources import NAMESPACES
from tests.contract import replay
from tests.contract.conftest import Cluster, make_namespace, sleep

SCENARIO = "20-watch"
# How pods come up is a matter of timing, and daemon sets are not served.
OTHERS = {"pods", "daemonsets"}
SETTLE_SECONDS = 8.0


def named(event: dict[str, Any]) -> tuple[str, str]:
    """(type, name or message) of an event in any of its forms."""
    obj = event["object"]
    if event["type"] == "ERROR":
        return "ERROR", replay.volatile(obj["message"])
    if obj.get("kind") == "Table":
        obj = obj["rows"][0]["object"]
    return event["type"], obj["metadata"]["name"]


def changes(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [named(event) for event in events if event["type"] != "BOOKMARK"]


def initial_ends(events: list[dict[str, Any]]) -> list[int]:
    """Where the bookmarks stand that end the initial events."""
    return [
        index
        for index, event in enumerate(events)
        if event["type"] == "BOOKMARK" and event["object"]["metadata"].get("annotations")
    ]


@dataclass
class Following:
    """One watch being followed."""

    step: dict[str, Any]
    status: int = 0
    body: Any = None
    events: list[dict[str, Any]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, session: aiohttp.ClientSession, url: str, query: dict[str, str], token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Accept": self.step.get("accept") or "application/json"}
        async with session.get(url, params=query, headers=headers) as answer:
            self.status = answer.status
            self.open.set()
            if answer.status != 200:
                self.body = await answer.json()
                return
            async for line in answer.content:
                event = json.loads(line)
                if "type" in event:
                    self.events.append(event)

    @property
    def is_complete(self) -> bool:
        return len(changes(self.events)) >= len(changes(self.recorded))

    @property
    def recorded(self) -> list[dict[str, Any]]:
        return [event for event in self.step["events"] if "type" in event]

    def problem(self) -> str | None:
        """What differs from the recording."""
        if self.status != self.step["status"]:
            return f"recorded {self.step['status']}, got {self.status}"
        if self.status != 200:
            wanted, got = self.step["body"]["message"], self.body["message"]
            return None if wanted == got else f"recorded {wanted!r}, got {got!r}"
        wanted_changes, got_changes = changes(self.recorded), changes(self.events)
        if self.step["closed"]["by"] == "server" and wanted_changes[:1] != got_changes[:1] != []:
            return f"recorded {wanted_changes[:1]}, got {got_changes[:1]}"
        if got_changes[: len(wanted_changes)] != wanted_changes:
            return f"recorded {wanted_changes}, got {got_changes}"
        if initial_ends(self.recorded) != initial_ends(self.events):
            return f"initial events end at {initial_ends(self.recorded)}, got {initial_ends(self.events)}"
        return None


async def test_the_recorded_watches(embedded: Cluster, embedded_client: Client) -> None:
    client, namespace = embedded_client, "rec-20"
    await make_namespace(client, namespace)
    connection = client.connection
    connector = aiohttp.TCPConnector(ssl=connection.tls or True, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    followed: list[Following] = []
    tasks = []
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        player = replay.Replay(SCENARIO, session, connection.server, connection.token or "", embedded.image)
        for step in replay.load(SCENARIO):
            if "request" in step:
                if step["request"]["path"].split("/")[-1] not in OTHERS and step["request"]["method"] != "GET":
                    await player.step(step, patience=0)
                elif step["step"] == "list":
                    await player.step(step, patience=5)
                continue
            if "watch" not in step:
                continue  # a remark, or what kubectl printed
            path, _, query = step["watch"].partition("?")
            if path.split("/")[-1] in OTHERS:
                continue
            following = Following(step)
            asked = {key: player.pairs.get(value, value) for key, value in parse_qsl(query, keep_blank_values=True)}
            task = asyncio.create_task(following.run(session, connection.server + path, asked, connection.token or ""))
            tasks.append(task)
            followed.append(following)
            await asyncio.wait_for(following.open.wait(), 10)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while not all(one.is_complete for one in followed):
                    await sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(ApiError):
        await client.delete(NAMESPACES, namespace)
    problems = [f"{one.step['name']}: {problem}" for one in followed if (problem := one.problem())]
    assert len(followed) > 20
    assert not problems, "\n" + "\n".join(problems)
