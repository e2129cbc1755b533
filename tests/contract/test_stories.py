"""Recorded workloads of a real Kubernetes, played again against the embedded cluster: the same must come of them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from localcluster.client import Client
from tests.contract.conftest import Cluster
from tests.contract.differences import OF_STORIES
from tests.contract.scenarios import ALONE, TOGETHER, Scenario, play, told
from tests.contract.stories import Problem, Seen, state

AT_A_TIME = 6


@pytest.fixture(scope="module")
def outcomes(embedded: Cluster) -> dict[str, list[Problem] | BaseException]:
    """What differed in each recording."""

    async def run() -> list[Any]:
        room = asyncio.Semaphore(AT_A_TIME)

        async def one(scenario: Scenario) -> list[Problem]:
            async with room:
                return await play(client, embedded, scenario)

        async with Client.from_kubeconfig(embedded.kubeconfig, user_agent="contract-test") as client:
            return await asyncio.gather(*map(one, TOGETHER), return_exceptions=True)

    return dict(zip((scenario.name for scenario in TOGETHER), asyncio.run(run()), strict=True))


@pytest.mark.parametrize("name", [scenario.name for scenario in TOGETHER])
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
            re.fullmatch(difference.scenario if difference.scenario != "*" else ".*", scenario.name)
            for scenario in (*TOGETHER, ALONE)
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
