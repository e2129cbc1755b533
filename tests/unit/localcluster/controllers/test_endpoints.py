"""When what endpoints show was caused."""

from __future__ import annotations

from typing import Any

from localcluster.controllers.endpoints import TriggerTimes

SERVICE = {"metadata": {"name": "s", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}}


def pod(name: str, second: int) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": f"2026-01-01T00:01:{second:02}Z"}
    return {"metadata": {"name": name}, "status": {"conditions": [ready]}}


def test_the_oldest_new_cause_is_told_and_each_only_once() -> None:
    times = TriggerTimes()
    assert times.of(SERVICE, [pod("a", 1)]) == "2026-01-01T00:00:00Z"  # a new service: its own time
    assert times.of(SERVICE, [pod("a", 1)]) == ""
    assert times.of(SERVICE, [pod("a", 3), pod("b", 2)]) == "2026-01-01T00:01:02Z"
    assert times.of(SERVICE, [pod("a", 3)]) == ""  # a pod that leaves is no cause with a time
    assert times.of(SERVICE, [pod("a", 3), pod("b", 2)]) == "2026-01-01T00:01:02Z"


def test_a_service_made_again_is_new() -> None:
    times = TriggerTimes()
    times.of(SERVICE, [])
    times.forget(("n", "s"))
    assert times.of(SERVICE, []) == "2026-01-01T00:00:00Z"
