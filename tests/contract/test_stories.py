"""Recorded workloads of a real Kubernetes, played again against the embedded cluster: the same must come of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import NAMESPACES, NODES
from tests.contract import replay
from tests.contract.conftest import Cluster, make_namespace
from tests.contract.differences import OF_STORIES
from tests.contract.stories import Player, Problem, Seen, Story, state
from tests.support.kubernetes_tools import kubectl

TOGETHER = (
    "03-deployment-create",
    "04-rolling-update",
    "05-rollout-undo",
    "06-scale",
    "07-pause-resume",
    "09-bad-image",
    "10-crashloop",
    "11-oomkilled",
    "13-readiness-never",
    "22-logs",
    "24-jobs",
    "27-config-volumes-init",
    "31-kubectl-traces",
)
# Changes the node, so nothing else may run on it.
ALONE = "15-unschedulable"
# Steps that are left out: half a minute for pods that do not react to being ended; logs at a certain moment.
SKIPPED = {
    "22-logs": {"log before container start", "follow=true&tailLines=2&timestamps=true", "follow=true until exit"},
    "31-kubectl-traces": {"wait for delete"},
}
AT_A_TIME = 6


async def play(client: Client, embedded: Cluster, name: str) -> list[Problem]:
    """Play one recording in a namespace of its own; what differs, but for the listed differences."""
    namespace, connection = f"rec-{name[:2]}", client.connection
    await make_namespace(client, namespace)
    (node,) = [one["metadata"]["name"] for one in await client.list(NODES)]
    connector = aiohttp.TCPConnector(ssl=connection.tls or True, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        player = Player(name, session, connection.server, connection.token or "", embedded.image, node=node)
        player.accept = lambda found: not unexpected(name, found)
        story = Story(player, [str(kubectl()), "--kubeconfig", str(embedded.kubeconfig)])
        recorded = replay.load(name)
        only = {i for i, step in enumerate(recorded) if step.get("step") not in SKIPPED.get(name, ())}
        try:
            await story.play(recorded, only)
        finally:
            with contextlib.suppress(ApiError):
                await client.delete(NAMESPACES, namespace)
    return unexpected(name, story.problems)


def unexpected(scenario: str, found: Iterable[Problem]) -> list[Problem]:
    return [
        (step, path, text)
        for step, path, text in found
        if not any(difference.covers(scenario, step, path) for difference in OF_STORIES)
    ]


def told(problems: list[Problem]) -> str:
    return "\n" + "\n".join(f"{step} | {path}: {text}" for step, path, text in problems[:40])


@pytest.fixture(scope="module")
def outcomes(embedded: Cluster) -> dict[str, list[Problem] | BaseException]:
    """What differed in each recording; they are played side by side, since most of their time is waiting."""

    async def run() -> list[Any]:
        room = asyncio.Semaphore(AT_A_TIME)

        async def one(name: str) -> list[Problem]:
            async with room:
                return await play(client, embedded, name)

        async with Client.from_kubeconfig(embedded.kubeconfig, user_agent="contract-test") as client:
            return await asyncio.gather(*map(one, TOGETHER), return_exceptions=True)

    return dict(zip(TOGETHER, asyncio.run(run()), strict=True))


@pytest.mark.parametrize("name", TOGETHER)
def test_a_recorded_workload_comes_out_the_same(name: str, outcomes: dict[str, list[Problem] | BaseException]) -> None:
    outcome = outcomes[name]
    if isinstance(outcome, BaseException):
        raise outcome
    assert not outcome, told(outcome)


async def test_the_recorded_reasons_of_waiting(embedded: Cluster, embedded_client: Client) -> None:
    problems = await play(embedded_client, embedded, ALONE)
    assert not problems, told(problems)


def test_every_listed_difference_has_a_reason() -> None:
    for difference in OF_STORIES:
        assert difference.reason
        assert any(
            re.fullmatch(difference.scenario if difference.scenario != "*" else ".*", name)
            for name in (*TOGETHER, ALONE)
        ), difference


def test_another_way_is_noticed() -> None:
    def pod(reason: str) -> dict[str, Any]:
        condition = {"type": "Ready", "status": "False", "reason": reason}
        metadata = {"name": "p-bcdfg", "uid": "u"}
        return {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running", "conditions": [condition]}}

    wanted, seen = Seen(""), Seen("")
    wanted.add({"type": "ADDED", "object": pod("ContainersNotReady")})
    seen.add({"type": "ADDED", "object": pod("Invented")})
    assert not seen.has(wanted)
    seen.add({"type": "MODIFIED", "object": pod("ContainersNotReady")})
    assert seen.has(wanted)
    assert state(pod("a")) != state(pod("b"))
