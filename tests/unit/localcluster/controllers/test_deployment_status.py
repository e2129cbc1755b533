"""Conditions of Deployments in their recorded order and words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from localcluster.controllers import deployment_status as progress

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def deployment(replicas: int = 3, **status: Any) -> Object:
    return {
        "metadata": {"name": "web", "generation": 1},
        "spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate"}, "progressDeadlineSeconds": 10},
        "status": status,
    }


def replica_set(replicas: int = 3, ready: int = 0, created: int = 3) -> Object:
    return {
        "metadata": {"name": "web-x"},
        "spec": {"replicas": replicas},
        "status": {"replicas": created, "readyReplicas": ready, "availableReplicas": ready},
    }


def kinds(status: Object) -> list[tuple[str, str, str]]:
    return [(c["type"], c["status"], c["reason"]) for c in status["conditions"]]


def test_the_recorded_way_to_available() -> None:
    made = progress.make("Progressing", "True", "NewReplicaSetCreated", "", NOW)
    body = deployment(conditions=[made])
    rs = replica_set(created=0)
    status = progress.rolled_out(body, [rs], rs, NOW)
    assert kinds(status) == [
        ("Progressing", "True", "NewReplicaSetCreated"),
        ("Available", "False", "MinimumReplicasUnavailable"),
    ]
    assert status["unavailableReplicas"] == 3
    assert "replicas" not in status
    assert status["terminatingReplicas"] == 0
    body["status"] = status
    rs = replica_set()
    status = progress.rolled_out(body, [rs], rs, NOW)
    assert kinds(status) == [
        ("Available", "False", "MinimumReplicasUnavailable"),
        ("Progressing", "True", "ReplicaSetUpdated"),
    ]
    assert status["conditions"][1]["message"] == 'ReplicaSet "web-x" is progressing.'
    body["status"] = status
    rs = replica_set(ready=3)
    status = progress.rolled_out(body, [rs], rs, NOW)
    assert kinds(status) == [
        ("Available", "True", "MinimumReplicasAvailable"),
        ("Progressing", "True", "NewReplicaSetAvailable"),
    ]
    assert "unavailableReplicas" not in status
    body["status"] = status
    assert progress.rolled_out(body, [rs], rs, NOW + timedelta(hours=1)) == status
    assert progress.seconds_to_deadline(body, status, NOW) is None


def test_deadline() -> None:
    rs = replica_set()
    body = deployment()
    body["status"] = progress.rolled_out(body, [rs], rs, NOW)
    assert progress.seconds_to_deadline(body, body["status"], NOW) == 11
    status = progress.rolled_out(body, [rs], rs, NOW + timedelta(seconds=11))
    assert kinds(status)[-1] == ("Progressing", "False", "ProgressDeadlineExceeded")
    assert status["conditions"][-1]["message"] == 'ReplicaSet "web-x" has timed out progressing.'
    body["spec"]["progressDeadlineSeconds"] = 2**31 - 1
    status = progress.rolled_out(body, [rs], rs, NOW)
    assert [kind for kind, _, _ in kinds(status)] == ["Available"]


def test_failure_of_a_replica_set_is_shown_and_goes() -> None:
    rs = replica_set()
    rs["status"]["conditions"] = [
        {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": "no",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ]
    body = deployment()
    body["status"] = progress.rolled_out(body, [rs], rs, NOW)
    assert ("ReplicaFailure", "True", "FailedCreate") in kinds(body["status"])
    rs["status"].pop("conditions")
    status = progress.rolled_out(body, [rs], rs, NOW)
    assert "ReplicaFailure" not in [kind for kind, _, _ in kinds(status)]


def test_pausing_is_told_once() -> None:
    body = deployment()
    body["spec"]["paused"] = True
    told = progress.paused_conditions(body, NOW)
    assert told is not None
    assert told[0]["reason"] == "DeploymentPaused"
    assert told[0]["status"] == "Unknown"
    body["status"]["conditions"] = told
    assert progress.paused_conditions(body, NOW) is None
    body["spec"]["paused"] = False
    told = progress.paused_conditions(body, NOW)
    assert told is not None
    assert told[0]["reason"] == "DeploymentResumed"


def test_transition_time_stays_while_the_status_does() -> None:
    first = progress.make("Available", "True", "A", "", NOW)
    later = progress.put([first], progress.make("Available", "True", "B", "", NOW + timedelta(seconds=5)))
    assert later[0]["lastTransitionTime"] == first["lastTransitionTime"]
    assert later[0]["lastUpdateTime"] != first["lastUpdateTime"]
