"""Restarting containers: whether, after what pause, and what a later kubelet finds of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localcluster.kubelet import recovery
from localcluster.kubelet.attempts import PodRecord
from localcluster.kubelet.restarts import Backoff, go_duration, is_wanted, policy_of
from localcluster.kubelet.status import View

Object = dict[str, Any]
SPEC = {"name": "c", "image": "i"}
ENDED = {0: {"terminated": {"exitCode": 0}}, 1: {"terminated": {"exitCode": 1}}, None: {"waiting": {"reason": "R"}}}


@pytest.mark.parametrize(
    ("policy", "init", "code", "wanted"),
    [
        ("Always", False, 0, True),
        ("Always", False, 1, True),
        ("OnFailure", False, 0, False),
        ("OnFailure", False, 1, True),
        ("Never", False, 1, False),
        ("Never", False, None, True),
        ("Always", True, 0, False),
        ("Always", True, 1, True),
        ("Never", True, 1, False),
        ("Never", True, None, False),
    ],
)
def test_who_is_started_again(policy: str, init: bool, code: int | None, wanted: bool) -> None:
    view = View(spec=SPEC, init=init, state=ENDED[code])
    assert is_wanted(view, {"spec": {"restartPolicy": policy}}) is wanted


def test_sidecars_are_always_started_again() -> None:
    view = View(spec=SPEC | {"restartPolicy": "Always"}, init=True, state=ENDED[0])
    assert policy_of(view, {"spec": {"restartPolicy": "Never"}}) == "Always"
    assert is_wanted(view, {"spec": {"restartPolicy": "Never"}})


def test_pauses_grow_and_begin_again() -> None:
    backoff = Backoff(at_once=True)
    assert [backoff.next() for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    backoff.reset()
    assert backoff.next() == 0
    pulls = Backoff()
    assert [pulls.next() for _ in range(3)] == [10, 20, 40]


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_durations(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


async def test_what_is_left_of_a_container(tmp_path: Path) -> None:
    record = PodRecord(tmp_path, "u")
    assert await recovery.find(record, SPEC) is None
    first = record.begin("c", 0)
    left = await recovery.find(record, SPEC)
    assert left == recovery.Left(0), "prepared, never started"
    (first / "state.json").write_text(json.dumps({"startedAt": 5}))
    left = await recovery.find(record, SPEC)
    assert left is not None
    assert left.outcome is not None
    assert (left.outcome["unknown"], left.outcome["startedAt"]) == (True, 5), "its shim has vanished"
    (first / "exit.json").write_text(json.dumps({"exitCode": 3, "startedAt": 5, "finishedAt": 6}))
    second = record.begin("c", 1)
    (second / "exit.json").write_text(json.dumps({"exitCode": 4, "startedAt": 7, "finishedAt": 8}))
    left = await recovery.find(record, SPEC)
    assert left is not None
    assert (left.number, left.shim) == (1, None)
    assert left.outcome is not None
    assert left.outcome["exitCode"] == 4
    assert left.last_state["terminated"]["exitCode"] == 3
