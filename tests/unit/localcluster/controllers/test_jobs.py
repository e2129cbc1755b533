"""Rules of Jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster.controllers import job_rules as rules

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


def job(policy: str = "Never", **spec: Any) -> Object:
    return {"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": policy}}, **spec}, "status": {}}


def pod(phase: str = "Running", code: int | None = None, restarts: int = 0, **more: Any) -> Object:
    state: Object = {}
    if code is not None:
        state = {"terminated": {"exitCode": code, "finishedAt": more.get("ended", "2026-01-01T00:00:55Z")}}
    status = {"name": "c", "restartCount": restarts, "state": state}
    return {"metadata": {"name": "p", "namespace": "x"}, "status": {"phase": phase, "containerStatuses": [status]}}


@pytest.mark.parametrize(
    ("spec", "succeeded", "active", "wanted"),
    [
        ({"parallelism": 2, "completions": 3}, 0, 0, 2),
        ({"parallelism": 2, "completions": 3}, 2, 0, 1),
        ({"parallelism": 2, "completions": 3}, 3, 0, 0),
        ({"parallelism": 3}, 0, 1, 3),
        ({"parallelism": 3}, 1, 2, 2),
        ({"parallelism": 0, "completions": 1}, 0, 0, 0),
    ],
)
def test_wanted_active(spec: Object, succeeded: int, active: int, wanted: int) -> None:
    assert rules.wanted_active(job(**spec), succeeded, active) == wanted


def test_success() -> None:
    assert rules.has_succeeded(job(completions=2), 2, 1)
    assert not rules.has_succeeded(job(completions=2), 1, 0)
    assert rules.has_succeeded(job(), 1, 0)
    assert not rules.has_succeeded(job(), 1, 1)


def test_failure_reasons() -> None:
    assert rules.failure(job(backoffLimit=1), [], 1, NOW) is None
    assert rules.failure(job(backoffLimit=1), [], 2, NOW) == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )
    assert rules.failure(job("OnFailure", backoffLimit=2), [pod(restarts=1)], 0, NOW) is None
    failed = rules.failure(job("OnFailure", backoffLimit=2), [pod(restarts=2)], 0, NOW)
    assert failed is not None
    late = job(activeDeadlineSeconds=30)
    late["status"]["startTime"] = "2026-01-01T00:00:00Z"
    assert rules.failure(late, [], 0, NOW) == ("DeadlineExceeded", "Job was active longer than specified deadline")
    late["spec"]["suspend"] = True
    assert rules.failure(late, [], 0, NOW) is None


def test_pod_failure_policy() -> None:
    policy = {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
        ]
    }
    body = job(podFailurePolicy=policy)
    assert rules.policy_action(body, pod("Failed", 1))[0] is None
    action, text = rules.policy_action(body, pod("Failed", 42))
    assert action == "FailJob"
    assert text == "Container c for pod x/p failed with exit code 42 matching FailJob rule at index 1"
    disrupted = pod("Failed", 42)
    disrupted["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    assert rules.policy_action(body, disrupted)[0] == "Ignore"


def test_backoff_doubles_from_the_last_end() -> None:
    assert rules.backoff_left([], 0, NOW) == 0
    assert rules.backoff_left([pod("Failed", 1)], 1, NOW) == 5
    assert rules.backoff_left([pod("Failed", 1)], 2, NOW) == 15
    assert rules.backoff_left([pod("Failed", 1)], 30, NOW) == 595


def test_index_text() -> None:
    assert rules.format_indexes([0, 1]) == "0,1"
    assert rules.format_indexes([0, 1, 2, 5, 7, 8]) == "0-2,5,7,8"


@given(st.sets(st.integers(0, 200)))
def test_indexes_come_back(indexes: set[int]) -> None:
    assert rules.parse_indexes(rules.format_indexes(indexes)) == indexes


def test_conditions_are_replaced_in_place() -> None:
    first = rules.make_condition("Suspended", "True", "JobSuspended", "", NOW)
    other = rules.make_condition("X", "True", "Y", "", NOW)
    resumed = rules.make_condition("Suspended", "False", "JobResumed", "", NOW)
    assert rules.put_condition([first, other], resumed) == [resumed, other]
    assert rules.put_condition([first], first | {"reason": "Z"}) == [first]
