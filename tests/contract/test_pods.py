"""How pods run and end, on any cluster: phases, conditions, reasons and events."""

from __future__ import annotations

import pytest

from localcluster.client import Client
from localcluster.resources import PODS
from tests.contract.conftest import Cluster
from tests.contract.pods import ENDS_ON_TERM, IGNORES_TERM, SLEEP, finished, log_of, pod, terminated
from tests.contract.waiting import (
    condition,
    container_status,
    event_until,
    events,
    gone,
    is_ready,
    pod_until,
    recorded,
    state,
    until,
)

WRITE = "open('/dev/termination-log', 'w').write('written\\n')"


async def test_a_pod_that_fails_for_good(client: Client, cluster: Cluster, namespace: str) -> None:
    async with recorded(client, PODS, namespace) as seen:
        await client.create(
            PODS,
            pod(
                "p",
                cluster.image,
                "import sys, time; time.sleep(0.5); print('bye'); sys.exit(3)",
                restartPolicy="Never",
            ),
            namespace,
        )
        done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Failed"
    assert terminated(done) | {"startedAt": 0, "finishedAt": 0, "containerID": 0} == {
        "exitCode": 3,
        "reason": "Error",
        "startedAt": 0,
        "finishedAt": 0,
        "containerID": 0,
    }
    kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    assert [entry["type"] for entry in done["status"]["conditions"]] == kinds
    assert {k: condition(done, k)["status"] for k in kinds} == {
        "PodReadyToStartContainers": "False",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
    }
    assert condition(done, "Ready")["reason"] == "PodFailed"
    phases = [obj["status"]["phase"] for _, obj in seen]
    assert [p for i, p in enumerate(phases) if p not in phases[:i]] == ["Pending", "Running", "Failed"]
    assert seen[0][1]["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    # The phase is still Running when the end of the container is told.
    assert any(obj["status"]["phase"] == "Running" and terminated(obj) for _, obj in seen)
    assert await log_of(client, namespace, "p") == "bye\n"


async def test_a_pod_that_succeeds(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "pass", restartPolicy="OnFailure"), namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Succeeded"
    assert terminated(done)["reason"] == "Completed"
    assert condition(done, "Initialized") | {"lastTransitionTime": 0} == {
        "type": "Initialized",
        "observedGeneration": 1,
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": 0,
        "reason": "PodCompleted",
    }
    reasons = [event["reason"] for event in await events(client, namespace, "p")]
    assert sorted(reasons) == ["Created", "Pulled", "Scheduled", "Started"]


async def test_a_condition_that_somebody_else_wrote_is_put_right(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    """The node controller does so when it loses sight of a node; the kubelet's word stands once it is back."""
    await client.create(PODS, pod("p", cluster.image, SLEEP), namespace)
    await pod_until(client, namespace, "p", is_ready, "ready")
    wrong = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    await client.patch(PODS, "p", namespace, wrong, kind="strategic", subresource="status")
    await pod_until(client, namespace, "p", is_ready, "ready again")


async def test_crash_loop(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "print('run'); raise SystemExit(3)"), namespace)
    looping = await pod_until(
        client,
        namespace,
        "p",
        lambda p: state(p).get("waiting", {}).get("reason") == "CrashLoopBackOff",
        "in back-off",
    )
    uid = looping["metadata"]["uid"]
    status = container_status(looping)
    assert looping["status"]["phase"] == "Running"
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    pause = state(looping)["waiting"]["message"]
    assert pause.endswith(f"restarting failed container=c pod=p_{namespace}({uid})")
    assert pause.startswith("back-off ")
    event = await event_until(client, namespace, "p", "BackOff")
    assert event["message"] == f"Back-off restarting failed container c in pod p_{namespace}({uid})"
    assert event["type"] == "Warning"
    assert await log_of(client, namespace, "p", previous="true") == "run\n"
    await client.delete(PODS, "p", namespace, grace_seconds=0)


@pytest.mark.parametrize(
    ("policy", "script", "message"),
    [
        (
            "File",
            "open('/dev/termination-log', 'w').write('written\\n'); print('logged'); raise SystemExit(4)",
            "written\n",
        ),
        ("FallbackToLogsOnError", "print('first\\nlast'); raise SystemExit(5)", "first\nlast\n"),
        ("File", "print('logged'); raise SystemExit(6)", None),
    ],
)
async def test_termination_message(
    client: Client, cluster: Cluster, namespace: str, policy: str, script: str, message: str | None
) -> None:
    body = pod("p", cluster.image, script, container={"terminationMessagePolicy": policy}, restartPolicy="Never")
    await client.create(PODS, body, namespace)
    done = await finished(client, namespace, "p")
    assert terminated(done).get("message") == message


async def test_memory_limit(client: Client, cluster: Cluster, namespace: str) -> None:
    greedy = "x=[]\nwhile 1: x.append(bytearray(b'x'*4000000))"
    container = {"resources": {"limits": {"memory": "48Mi"}}}
    await client.create(PODS, pod("p", cluster.image, greedy, container=container, restartPolicy="Never"), namespace)
    done = await finished(client, namespace, "p")
    assert terminated(done)["reason"] == "OOMKilled"
    assert terminated(done)["exitCode"] == 137
    assert done["status"]["qosClass"] == "Burstable"


async def test_deadline_of_a_pod(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, SLEEP, activeDeadlineSeconds=1), namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Failed"
    assert done["status"]["reason"] == "DeadlineExceeded"


async def test_a_node_without_room_rejects(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, SLEEP), namespace)
    node = (await pod_until(client, namespace, "p", is_ready, "running"))["spec"]["nodeName"]
    big = {"resources": {"requests": {"cpu": "1000"}}}
    await client.create(PODS, pod("big", cluster.image, "pass", container=big, nodeName=node), namespace)
    rejected = await finished(client, namespace, "big")
    status = rejected["status"]
    assert status["phase"] == "Failed"
    assert status["reason"] == "OutOfcpu"
    text = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: "
    assert status["message"].startswith(text)
    assert not status.get("containerStatuses")


async def test_graceful_deletion(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, ENDS_ON_TERM, terminationGracePeriodSeconds=20), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    await until(lambda: log_of(client, namespace, "p"), "heeding signals")
    async with recorded(client, PODS, namespace) as seen:
        answer = await client.delete(PODS, "p", namespace)
        assert answer["metadata"]["deletionGracePeriodSeconds"] == 20
        await gone(client, PODS, namespace, "p", 15)
    kinds = [kind for kind, _ in seen]
    assert kinds[-1] == "DELETED"
    last = seen[-1][1]
    assert last["status"]["phase"] == "Succeeded"
    assert last["metadata"]["deletionGracePeriodSeconds"] == 0
    assert terminated(last)["exitCode"] == 0
    await event_until(client, namespace, "p", "Killing", "Stopping container c")


async def test_a_container_that_ignores_the_signal_is_killed(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, IGNORES_TERM, terminationGracePeriodSeconds=30), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    async with recorded(client, PODS, namespace) as seen:
        await client.delete(PODS, "p", namespace)
        await client.delete(PODS, "p", namespace, grace_seconds=1)  # may be shortened later
        await gone(client, PODS, namespace, "p", 25)
    assert seen[-1][1]["status"]["phase"] == "Failed"
    assert terminated(seen[-1][1])["exitCode"] == 137
