"""The status of pods: phases and conditions as recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from localcluster.kubelet.reporter import status_patch
from localcluster.kubelet.status import Facts, View, phase, pod_status, qos_class

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = Facts(sandbox_ready=True, host_ip="127.0.0.1", pod_ip="127.1.0.1", start_time="2026-01-01T00:00:00Z")


def view(name: str = "c", state: str = "waiting", code: int = 0, **more: Any) -> View:
    states: dict[str, Object] = {
        "waiting": {"waiting": {"reason": "ContainerCreating"}},
        "running": {"running": {"startedAt": "x"}},
        "terminated": {"terminated": {"exitCode": code}},
    }
    running = state == "running"
    defaults = {"started": running, "ready": running}
    return View(spec={"name": name, "image": "i", **more.pop("spec", {})}, state=states[state], **(defaults | more))


def pod(policy: str = "Always", **spec: Any) -> Object:
    return {
        "metadata": {"name": "p", "uid": "u", "generation": 1},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c"}], **spec},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }


@pytest.mark.parametrize(
    ("policy", "init", "main", "expected"),
    [
        ("Always", [], [view()], "Pending"),
        ("Always", [], [view(state="running")], "Running"),
        ("Always", [], [view(state="running"), view("d")], "Pending"),
        ("Always", [], [view(state="terminated", code=3)], "Running"),
        ("Always", [], [view(last_state={"terminated": {"exitCode": 128}})], "Running"),
        ("Never", [], [view(state="terminated", code=3)], "Failed"),
        ("Never", [], [view(state="terminated")], "Succeeded"),
        ("OnFailure", [], [view(state="terminated", code=1)], "Running"),
        ("Never", [], [view(state="terminated", code=1), view("d", state="running")], "Running"),
        ("Never", [view("i", init=True)], [view()], "Pending"),
        ("Never", [view("i", state="terminated", code=1, init=True)], [view()], "Failed"),
        ("Always", [view("i", state="terminated", code=1, init=True)], [view()], "Pending"),
        ("Always", [view("i", state="terminated", init=True)], [view(state="running")], "Running"),
    ],
)
def test_phase(policy: str, init: list[View], main: list[View], expected: str) -> None:
    assert phase(policy, init, main) == expected


def conditions(status: Object) -> dict[str, tuple[str, str | None, str | None]]:
    return {c["type"]: (c["status"], c.get("reason"), c.get("message")) for c in status["conditions"]}


def test_first_report() -> None:
    facts = Facts(sandbox_ready=False, host_ip="127.0.0.1", pod_ip=None, start_time="2026-01-01T00:00:00Z")
    status = pod_status(pod(), [], [view()], facts, NOW)
    assert [c["type"] for c in status["conditions"]] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    unready = ("False", "ContainersNotReady", "containers with unready status: [c]")
    assert conditions(status) == {
        "PodReadyToStartContainers": ("False", None, None),
        "Initialized": ("True", None, None),
        "Ready": unready,
        "ContainersReady": unready,
        "PodScheduled": ("True", None, None),
    }
    assert "podIP" not in status
    assert status["containerStatuses"] == [
        {
            "name": "c",
            "state": {"waiting": {"reason": "ContainerCreating"}},
            "lastState": {},
            "ready": False,
            "restartCount": 0,
            "image": "i",
            "imageID": "",
            "started": False,
        }
    ]
    assert all(c["lastProbeTime"] is None and c["observedGeneration"] == 1 for c in status["conditions"])


def test_the_end_is_told_in_two_steps() -> None:
    body = pod("Never")
    body["status"]["phase"] = "Running"
    ended = [view(state="terminated", code=3)]
    first = pod_status(body, [], ended, FACTS, NOW)
    assert first["phase"] == "Running"
    assert conditions(first)["Ready"] == ("False", "PodFailed", None)
    gone = Facts(False, "127.0.0.1", "127.1.0.1", "2026-01-01T00:00:00Z", ended=True)
    last = pod_status(body, [], ended, gone, NOW)
    assert last["phase"] == "Failed"
    assert conditions(last)["PodReadyToStartContainers"][0] == "False"
    done = pod_status(body, [], [view(state="terminated")], gone, NOW)
    assert done["phase"] == "Succeeded"
    assert conditions(done)["Initialized"] == ("True", "PodCompleted", None)


def test_a_deleted_pod_ends_by_its_exit_codes() -> None:
    gone = Facts(False, "h", "a", "t", ended=True, ending=True)
    assert pod_status(pod("Always"), [], [view(state="terminated", code=137)], gone, NOW)["phase"] == "Failed"
    assert pod_status(pod("Always"), [], [view(state="terminated")], gone, NOW)["phase"] == "Succeeded"


def test_readiness_gates_and_foreign_conditions() -> None:
    body = pod(readinessGates=[{"conditionType": "example.com/ok"}])
    status = pod_status(body, [], [view(state="running")], FACTS, NOW)
    assert conditions(status)["Ready"] == (
        "False",
        "ReadinessGatesNotReady",
        'corresponding condition of pod readiness gate "example.com/ok" does not exist.',
    )
    assert conditions(status)["ContainersReady"][0] == "True"
    body["status"]["conditions"] = [*status["conditions"], {"type": "example.com/ok", "status": "False"}]
    status = pod_status(body, [], [view(state="running")], FACTS, NOW)
    text = 'the status of pod readiness gate "example.com/ok" is not "True", but False'
    assert conditions(status)["Ready"][2] == text
    assert status["conditions"][0]["type"] == "example.com/ok"
    body["status"]["conditions"][-1]["status"] = "True"
    status = pod_status(body, [], [view(state="running")], FACTS, NOW)
    assert conditions(status)["Ready"] == ("True", None, None)


def test_init_containers_and_sidecars() -> None:
    init = [view("i1", state="terminated", init=True, ready=True), view("i2", init=True)]
    status = pod_status(pod(), init, [view()], FACTS, NOW)
    assert conditions(status)["Initialized"] == (
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [i2]",
    )
    side = view("s", state="running", init=True, spec={"restartPolicy": "Always"})
    status = pod_status(pod(), [side], [view(state="running")], FACTS, NOW)
    assert conditions(status)["Ready"][0] == "True"
    side.ready = False
    status = pod_status(pod(), [side], [view(state="running")], FACTS, NOW)
    assert conditions(status)["Ready"][2] == "containers with unready status: [s]"


def test_transition_times_stay() -> None:
    body = pod()
    body["status"] = pod_status(body, [], [view(state="running")], FACTS, NOW)
    later = pod_status(body, [], [view(state="running", ready=False)], FACTS, NOW.replace(hour=5))
    times = {c["type"]: c["lastTransitionTime"] for c in later["conditions"]}
    assert times["Initialized"] == "2026-01-01T00:00:00Z"
    assert times["Ready"] == "2026-01-01T05:00:00Z"


def test_patch_clears_what_a_condition_lost() -> None:
    status = pod_status(pod(), [], [view(state="running")], FACTS, NOW)
    patch = status_patch("u", status)
    ready = next(c for c in patch["status"]["conditions"] if c["type"] == "Ready")
    assert ready["reason"] is None
    assert ready["message"] is None
    order = [entry["type"] for entry in patch["status"]["$setElementOrder/conditions"]]
    assert order == [c["type"] for c in status["conditions"]]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
    ],
)
def test_qos(resources: Object, expected: str) -> None:
    assert qos_class({"spec": {"containers": [{"name": "c", "resources": resources}]}}) == expected
