"""What pods use, and the autoscaler that goes by it: on any cluster with metrics, else on an embedded one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import DEPLOYMENTS, HPAS, POD_METRICS, PODS
from tests.contract.conftest import Cluster, Kubectl
from tests.contract.pods import SLEEP, pod, run
from tests.contract.waiting import condition, event_until, object_until, pod_until, state, until
from tests.support.kubernetes_tools import kubectl as present_kubectl
from tests.support.kubernetes_tools import older_kubectl
from tests.support.stack import eventually


@pytest.fixture
def cluster(measured: Cluster) -> Cluster:
    return measured


BURN = "while True: pass"


def deployment(image: str, program: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": image,
        "command": run(program),
        "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}},
    }
    return {
        "metadata": {"name": "burn"},
        "spec": {
            "selector": {"matchLabels": {"app": "burn"}},
            "template": {
                "metadata": {"labels": {"app": "burn"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


async def test_replicas_follow_the_measured_load(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, BURN), namespace)
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "burn"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2, "metrics": [metric]}
    await client.create(HPAS, {"metadata": {"name": "burn"}, "spec": spec}, namespace)

    def grown(found: dict[str, Any]) -> bool:
        return found["status"].get("readyReplicas") == 2

    await object_until(client, DEPLOYMENTS, namespace, "burn", grown, "grown to two replicas", 150)
    event = await event_until(client, namespace, "burn", "SuccessfulRescale")
    assert event["message"] == "New size: 2; reason: cpu resource utilization (percentage of request) above target"

    def limited(found: dict[str, Any]) -> bool:
        return condition(found, "ScalingLimited").get("reason") == "TooManyReplicas"

    hpa = await object_until(client, HPAS, namespace, "burn", limited, "at its upper bound", 60)
    assert hpa["status"]["desiredReplicas"] == 2
    assert hpa["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"] > 50
    assert condition(hpa, "ScalingActive")["reason"] == "ValidMetricFound"

    await client.patch(HPAS, "burn", namespace, {"spec": {"maxReplicas": 1}}, kind="merge")

    def shrunk(found: dict[str, Any]) -> bool:
        return found["spec"]["replicas"] == 1

    await object_until(client, DEPLOYMENTS, namespace, "burn", shrunk, "shrunk to its new bound", 60)


async def test_a_container_gets_no_more_cpu_than_its_limit(
    client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl
) -> None:
    """It measures itself: processor time over a stretch of wall time; twice the limit is allowed for."""
    measure = (
        "import json, time\n"
        "time.sleep(1)\n"
        "wall, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() - wall < 6: pass\n"
        "print(json.dumps((time.process_time() - used) / (time.monotonic() - wall)))"
    )
    body = pod("p", cluster.image, measure, restartPolicy="Never")
    body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "100m"}}
    await client.create(PODS, body, namespace)
    await pod_until(client, namespace, "p", lambda found: "terminated" in state(found), "ended")
    assert json.loads(kubectl("logs", "p")) < 0.2


async def test_what_a_pod_uses_is_told(client: Client, cluster: Cluster, namespace: str) -> None:
    script = f"held = bytearray(60_000_000); {SLEEP}"
    await client.create(PODS, pod("p", cluster.image, script), namespace)

    async def usage() -> dict[str, Any] | None:
        try:
            return await client.get(POD_METRICS, "p", namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    found = await until(usage, "metrics of the pod", 120)
    (container,) = found["containers"]
    assert container["name"] == "c"
    assert int(container["usage"]["memory"].removesuffix("Ki")) > 50_000


def test_kubectl_shows_what_pods_and_nodes_use(cluster: Cluster, namespace: str) -> None:
    both = [Kubectl(cluster, namespace, program()) for program in (present_kubectl, older_kubectl)]
    script = "import time; time.sleep(600)"
    both[0]("run", "p", f"--image={cluster.image}", "--command", "--", "python3", "-c", script)
    for kubectl in both:
        eventually(lambda: kubectl.run("top", "pod", "p", "--no-headers").stdout.split()[:1] == ["p"], "metrics")  # noqa: B023
        assert "MEMORY" in kubectl("top", "nodes").splitlines()[0]
    both[0]("delete", "pod", "p", "--grace-period=0", "--force")
