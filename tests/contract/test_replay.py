"""Recorded requests of a real Kubernetes, sent to the cluster under test: the answers must be the same."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import CONFIGMAPS, NAMESPACES, PODS, SERVICEACCOUNTS
from tests.contract import replay
from tests.contract.conftest import Cluster, make_namespace
from tests.contract.differences import DIFFERENCES
from tests.contract.waiting import until

# Scenario, its namespaces, and the steps that do not hang on how far pods have come.
SCENARIOS: dict[str, tuple[list[str], Sequence[int]]] = {
    "01-discovery": ([], range(99)),
    "02-namespace": ([], range(99)),
    "16-quota-limitrange": (["rec-16", "rec-16b"], range(99)),
    "17-server-side-apply": (["rec-17"], range(55)),
    "18-patches": (["rec-18"], range(99)),
    "19-errors": (["rec-19"], range(999)),
    "20-watch": (["rec-20"], range(99)),
    "21-list": (["rec-21"], range(25)),
    "23-delete": (["rec-23"], [*range(4, 12), 15, *range(20, 33), 35, 36, 37, 40, 41, 42, *range(48, 58)]),
    "25-services": (["rec-25"], range(50)),
    "29-access-reviews": (["rec-29"], range(99)),
}
# Steps whose requests hold a secret that the recordings do not tell.
UNTOLD = {"401 bad token", "token of another audience", "tokenreview", "role", "rolebinding", "sa lists pods"}
PATIENCE_SECONDS = 8.0


@pytest.fixture
async def session(embedded_client: Client) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=embedded_client.connection.tls or True)
    async with aiohttp.ClientSession(connector=connector) as found:
        yield found


async def _prepare(client: Client, namespaces: list[str]) -> str:
    token = ""
    for name in namespaces:
        await make_namespace(client, name)
    if namespaces:
        answer = await client.create_subresource(SERVICEACCOUNTS, "default", namespaces[0], "token", {"spec": {}})
        token = answer["status"]["token"]
    return token


async def _between(client: Client, scenario: str, step: int) -> None:
    """What happened in the recorded cluster but is not in the recording."""
    if (scenario, step) == ("21-list", 0):
        for i in range(1, 7):
            labels = {"n": str(i), "par": "odd" if i % 2 else "even"} | ({"has": ""} if i < 2 else {})
            await client.create(CONFIGMAPS, {"metadata": {"name": f"c{i}", "labels": labels}}, "rec-21")
    if (scenario, step) == ("23-delete", 11):  # five seconds passed, in which the pods came up

        async def running() -> bool:
            pods = await client.list(PODS, "rec-23")
            return all(one["status"]["phase"] == "Running" or one["metadata"]["name"] == "pend" for one in pods)

        await until(running, "pods of 23-delete running")


def _unexpected(scenario: str, found: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [
        (step, path, text)
        for step, path, text in found
        if not any(difference.covers(scenario, step, path) for difference in DIFFERENCES)
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_recorded_answers(
    scenario: str, embedded: Cluster, embedded_client: Client, session: aiohttp.ClientSession
) -> None:
    client = embedded_client  # the recordings use fixed names of namespaces, which another cluster may have
    namespaces, steps = SCENARIOS[scenario]
    token = await _prepare(client, namespaces)
    connection = client.connection
    player = replay.Replay(scenario, session, connection.server, connection.token or "", embedded.image, token)
    player.accept = lambda found: not _unexpected(scenario, found)
    sent = 0
    try:
        for index, step in enumerate(replay.load(scenario)):
            if index not in steps or "request" not in step or step["step"] in UNTOLD:
                continue
            await player.step(step, patience=PATIENCE_SECONDS)
            await _between(client, scenario, index)
            sent += 1
    finally:
        for name in namespaces:
            with contextlib.suppress(ApiError):  # some scenarios delete their namespace
                await client.delete(NAMESPACES, name)
    problems = _unexpected(scenario, player.found)
    assert sent > 5
    assert not problems, "\n" + "\n".join(f"{step} | {path}: {text}" for step, path, text in problems[:40])


def test_every_listed_difference_has_a_reason() -> None:
    for difference in DIFFERENCES:
        assert difference.reason
        assert difference.scenario == "*" or difference.scenario in SCENARIOS


def test_a_changed_answer_is_noticed() -> None:
    player: Any = replay.Replay("x", None, "", "", "python:3.11")  # type: ignore[arg-type]
    problems: list[Any] = []
    recorded = {"metadata": {"uid": "0b1b6a1e-0000-4000-8000-000000000000"}, "reason": "NotFound"}
    player._compare(recorded, {"metadata": {"uid": "u"}, "reason": "Gone"}, "", "step", problems)
    assert [path for _, path, _ in problems] == [".reason"]
    player._compare(recorded, {"metadata": {"uid": "other"}, "reason": "NotFound"}, "", "step", problems)
    assert [path for _, path, _ in problems] == [".reason", ".metadata.uid"]
