"""Recorded requests of a real Kubernetes that its API server answers alone: the answers must be the same."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster.client import Client
from tests.contract import replay
from tests.contract.conftest import Cluster
from tests.contract.differences import DIFFERENCES
from tests.contract.scenarios import ALONE, ANSWERS, TOGETHER, WATCHES, Scenario, play, told

# The recordings use fixed names of namespaces, which another cluster may have.


@pytest.mark.parametrize("scenario", [*ANSWERS, WATCHES], ids=lambda scenario: scenario.name)
async def test_the_recorded_answers(scenario: Scenario, embedded: Cluster, embedded_client: Client) -> None:
    problems = await play(embedded_client, embedded, scenario)
    assert not problems, told(problems)


def test_every_recording_is_played() -> None:
    played = {scenario.name for scenario in (*ANSWERS, *TOGETHER, ALONE, WATCHES)}
    assert {path.name.removesuffix(".json.xz") for path in replay.FOLDER.iterdir()} == played


def test_what_is_left_out_is_in_the_recording() -> None:
    for scenario in (*ANSWERS, *TOGETHER, ALONE, WATCHES):
        steps = {step.get("step") for step in replay.load(scenario.name)}
        assert scenario.left_out.keys() | scenario.inputs.keys() <= steps, scenario.name
        assert all(scenario.left_out.values())


def test_every_listed_difference_has_a_reason() -> None:
    exact = {scenario.name for scenario in (*ANSWERS, *TOGETHER, WATCHES) if scenario.exact}
    for difference in DIFFERENCES:
        assert difference.reason
        assert difference.scenario == "*" or difference.scenario in exact


def test_a_changed_answer_is_noticed() -> None:
    player: Any = replay.Replay("x", None, "", "", "python:3.11")  # type: ignore[arg-type]
    problems: list[Any] = []
    recorded = {"metadata": {"uid": "0b1b6a1e-0000-4000-8000-000000000000"}, "reason": "NotFound"}
    player._compare(recorded, {"metadata": {"uid": "u"}, "reason": "Gone"}, "", "step", problems)
    assert [path for _, path, _ in problems] == [".reason"]
    player._compare(recorded, {"metadata": {"uid": "other"}, "reason": "NotFound"}, "", "step", problems)
    assert [path for _, path, _ in problems] == [".reason", ".metadata.uid"]
