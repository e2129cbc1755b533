"""Probes of containers, on any cluster."""

from __future__ import annotations

from localcluster.client import Client
from localcluster.resources import PODS
from tests.contract.conftest import Cluster, Kubectl
from tests.contract.pods import SLEEP, pod, run
from tests.contract.waiting import (
    condition,
    container_status,
    event_until,
    is_ready,
    pod_until,
    state,
)

IS_THERE = "import os; raise SystemExit(not os.path.exists('/tmp/ok'))"


async def test_probes(client: Client, cluster: Cluster, namespace: str) -> None:
    file_there = {"exec": {"command": run(IS_THERE)}, "periodSeconds": 1, "timeoutSeconds": 10}
    await client.create(PODS, pod("ready", cluster.image, SLEEP, container={"readinessProbe": file_there}), namespace)
    broken = run("print('broken'); raise SystemExit(1)")
    alive = {"exec": {"command": broken}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10}
    await client.create(PODS, pod("live", cluster.image, SLEEP, container={"livenessProbe": alive}), namespace)
    port = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    server = {"command": ["python3", "-m", "http.server", "8080"], "startupProbe": port | {"failureThreshold": 30}}
    await client.create(PODS, pod("start", cluster.image, "", container=server), namespace)

    waiting = await pod_until(client, namespace, "ready", lambda p: state(p).get("running"), "running")
    assert condition(waiting, "Ready")["message"] == "containers with unready status: [c]"
    await event_until(client, namespace, "ready", "Unhealthy", "Readiness probe failed: ")
    killed = await pod_until(
        client,
        namespace,
        "live",
        lambda p: p["status"].get("containerStatuses") and container_status(p)["restartCount"] > 0,
        "restarted",
    )
    assert container_status(killed)["lastState"]["terminated"]["exitCode"] == 137
    await event_until(client, namespace, "live", "Unhealthy", "Liveness probe failed: broken")
    await event_until(client, namespace, "live", "Killing", "Container c failed liveness probe, will be restarted")
    await pod_until(client, namespace, "start", is_ready, "started")


async def test_readiness_turns(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    probe = {"exec": {"command": run(IS_THERE)}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10}
    body = pod("p", cluster.image, f"open('/tmp/ok', 'w'); {SLEEP}", container={"readinessProbe": probe})
    await client.create(PODS, body, namespace)
    await pod_until(client, namespace, "p", is_ready, "ready")
    kubectl("exec", "p", "--", *run("import os; os.unlink('/tmp/ok')"))
    await pod_until(client, namespace, "p", lambda p: not is_ready(p), "not ready any more")
    kubectl("exec", "p", "--", *run("open('/tmp/ok', 'w')"))
    await pod_until(client, namespace, "p", is_ready, "ready again")
