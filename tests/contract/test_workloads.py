"""Deployments, ReplicaSets, services and what becomes of them: on any cluster."""

from __future__ import annotations

import asyncio
from typing import Any

from localcluster.client import Client
from localcluster.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    NAMESPACES,
    PODS,
    REPLICASETS,
    SERVICES,
)
from tests.contract.conftest import Cluster, Kubectl
from tests.contract.waiting import condition, event_until, gone, is_ready, object_until, recorded, until

Object = dict[str, Any]

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("V", "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
import signal, sys
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
print("serving", flush=True)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def deployment(image: str, replicas: int = 1, version: str = "1", **spec: Any) -> Object:
    container = {
        "name": "c",
        "image": image,
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "V", "value": version}],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 2, "containers": [container]},
            },
            **spec,
        },
    }


def is_complete(found: Object) -> bool:
    wanted, status = found["spec"]["replicas"], found.get("status", {})
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3


async def rolled_out(client: Client, namespace: str, name: str = "web") -> Object:
    return await object_until(client, DEPLOYMENTS, namespace, name, is_complete, "rolled out", 90)


async def set_version(client: Client, namespace: str, version: str) -> None:
    container = {"name": "c", "env": [{"name": "V", "value": version}]}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await client.patch(DEPLOYMENTS, "web", namespace, patch, kind="strategic")


async def test_deployment_becomes_available_behind_a_service(
    client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl
) -> None:
    service = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    await client.create(SERVICES, service, namespace)
    async with recorded(client, DEPLOYMENTS, namespace) as seen:
        await client.create(DEPLOYMENTS, deployment(cluster.image, 2), namespace)
        done = await rolled_out(client, namespace)

    reasons = [condition(obj, "Progressing").get("reason") for _, obj in seen]
    order = [reason for place, reason in enumerate(reasons) if reason and reason not in reasons[:place]]
    assert order == ["NewReplicaSetCreated", "ReplicaSetUpdated", "NewReplicaSetAvailable"]
    assert [entry["type"] for entry in done["status"]["conditions"]] == ["Available", "Progressing"]
    assert condition(done, "Available")["reason"] == "MinimumReplicasAvailable"
    assert condition(done, "Available")["message"] == "Deployment has minimum availability."
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert done["metadata"]["generation"] == 1
    assert "unavailableReplicas" not in done["status"]

    (rs,) = (await client.list(REPLICASETS, namespace)).items
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
        "deployment.kubernetes.io/revision": "1",
    }
    digest = rs["metadata"]["labels"]["pod-template-hash"]
    assert rs["metadata"]["name"] == f"web-{digest}"
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    name = condition(done, "Progressing")["message"]
    assert name == f'ReplicaSet "web-{digest}" has successfully progressed.'
    event = await event_until(client, namespace, "web", "ScalingReplicaSet")
    assert event["message"] == f"Scaled up replica set web-{digest} from 0 to 2"

    pods = (await client.list(PODS, namespace)).items
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 2

    async def served() -> bool:
        slices = (await client.list(ENDPOINTSLICES, namespace)).items
        endpoints = [entry for piece in slices for entry in piece["endpoints"] or []]
        ready = {entry["addresses"][0] for entry in endpoints if entry["conditions"]["ready"]}
        return ready == addresses and all(piece["ports"][0]["port"] == 8080 for piece in slices)

    await until(served, "both pods in the EndpointSlice")
    answer = await client.request("GET", f"/api/v1/namespaces/{namespace}/services/web/proxy/")
    assert answer == "1"
    assert "web-" in kubectl("get", "pods", "-o", "wide")


async def test_rolling_update_keeps_the_bounds_and_undo_goes_back(
    client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl
) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, 4), namespace)
    await rolled_out(client, namespace)
    async with recorded(client, REPLICASETS, namespace) as seen:
        await set_version(client, namespace, "2")
        await rolled_out(client, namespace)

    sizes: dict[str, int] = {}
    for _, rs in seen:
        sizes[rs["metadata"]["name"]] = rs["spec"]["replicas"]
        assert sum(sizes.values()) <= 5
    # Each ReplicaSet moved one way only, the old one down to nothing.
    for name in sizes:
        path = [rs["spec"]["replicas"] for _, rs in seen if rs["metadata"]["name"] == name]
        assert path in (sorted(path), sorted(path, reverse=True))
    assert sorted(sizes.values()) == [0, 4]
    for _, rs in seen:
        if rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2":
            assert rs["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"] == "5"

    history = kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    kubectl("rollout", "undo", "deployment/web")
    done = await rolled_out(client, namespace)
    assert done["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "V", "value": "1"}]
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    sets = (await client.list(REPLICASETS, namespace)).items
    assert len(sets) == 2
    current = next(rs for rs in sets if rs["spec"]["replicas"] == 4)
    assert current["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert current["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"


async def test_history_limit_removes_old_replica_sets(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, 1, revisionHistoryLimit=1), namespace)
    await rolled_out(client, namespace)
    for version in ("2", "3"):
        await set_version(client, namespace, version)
        await rolled_out(client, namespace)

    async def revisions() -> bool:
        sets = (await client.list(REPLICASETS, namespace)).items
        found = sorted(rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for rs in sets)
        return found == ["2", "3"]

    await until(revisions, "only the last two revisions are kept")


async def test_recreate_ends_all_old_pods_first(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, 2, strategy={"type": "Recreate"}), namespace)
    await rolled_out(client, namespace)
    old = {pod["metadata"]["uid"] for pod in await client.list(PODS, namespace)}
    async with recorded(client, PODS, namespace) as seen:
        await set_version(client, namespace, "2")
        await object_until(
            client,
            DEPLOYMENTS,
            namespace,
            "web",
            lambda d: d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2" and is_complete(d),
            "recreated",
        )
    ended = set()
    for kind, pod in seen:
        if pod["metadata"]["uid"] not in old:
            break
        if kind == "DELETED" or pod["status"]["phase"] in ("Succeeded", "Failed"):
            ended.add(pod["metadata"]["uid"])
    assert ended == old


async def test_pause_holds_the_template_but_not_the_size(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, 1), namespace)
    await rolled_out(client, namespace)
    await client.patch(DEPLOYMENTS, "web", namespace, {"spec": {"paused": True}})
    paused = await object_until(
        client,
        DEPLOYMENTS,
        namespace,
        "web",
        lambda d: condition(d, "Progressing").get("reason") == "DeploymentPaused",
        "told that it is paused",
    )
    assert condition(paused, "Progressing")["message"] == "Deployment is paused"
    await set_version(client, namespace, "2")
    await client.patch(DEPLOYMENTS, "web", namespace, {"spec": {"replicas": 2}})
    await object_until(
        client, DEPLOYMENTS, namespace, "web", lambda d: d["status"].get("availableReplicas") == 2, "scaled"
    )
    sets = (await client.list(REPLICASETS, namespace)).items
    assert [rs["spec"]["replicas"] for rs in sets] == [2]
    await client.patch(DEPLOYMENTS, "web", namespace, {"spec": {"paused": False}})
    await object_until(
        client,
        DEPLOYMENTS,
        namespace,
        "web",
        lambda d: is_complete(d) and d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2",
        "resumed and rolled out",
    )


async def test_progress_deadline_is_told(client: Client, cluster: Cluster, namespace: str) -> None:
    body = deployment(cluster.image, 1, progressDeadlineSeconds=2)
    body["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = 9
    await client.create(DEPLOYMENTS, body, namespace)
    stuck = await object_until(
        client,
        DEPLOYMENTS,
        namespace,
        "web",
        lambda d: condition(d, "Progressing").get("status") == "False",
        "timed out",
    )
    progressing = condition(stuck, "Progressing")
    assert progressing["reason"] == "ProgressDeadlineExceeded"
    (rs,) = (await client.list(REPLICASETS, namespace)).items
    assert progressing["message"] == f'ReplicaSet "{rs["metadata"]["name"]}" has timed out progressing.'
    assert stuck["status"]["unavailableReplicas"] == 1


async def test_replica_set_replaces_a_deleted_pod_and_adopts_an_orphan(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, 1), namespace)
    await rolled_out(client, namespace)
    (pod,) = (await client.list(PODS, namespace)).items
    await client.delete(PODS, pod["metadata"]["name"], namespace)

    async def replaced() -> bool:
        pods = (await client.list(PODS, namespace)).items
        return len(pods) == 1 and pods[0]["metadata"]["uid"] != pod["metadata"]["uid"] and is_ready(pods[0])

    await until(replaced, "a new pod took the place of the deleted one")
    (rs,) = (await client.list(REPLICASETS, namespace)).items
    await client.delete(REPLICASETS, rs["metadata"]["name"], namespace, propagation="Orphan")

    async def adopted() -> bool:
        sets = (await client.list(REPLICASETS, namespace)).items
        pods = (await client.list(PODS, namespace)).items
        owners = [owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or []]
        fresh = [s for s in sets if s["metadata"]["uid"] != rs["metadata"]["uid"]]
        return len(fresh) == 1 and len(pods) == 1 and owners == [fresh[0]["metadata"]["uid"]]

    await until(adopted, "a new ReplicaSet adopted the orphaned pod")


async def test_deletion_in_background_and_foreground(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(cluster.image, 1), namespace)
    await rolled_out(client, namespace)
    (rs,) = (await client.list(REPLICASETS, namespace)).items
    async with recorded(client, DEPLOYMENTS, namespace) as seen, recorded(client, PODS, namespace) as pods:
        await client.delete(DEPLOYMENTS, "web", namespace, propagation="Foreground")
        await gone(client, DEPLOYMENTS, namespace, "web")
    assert seen[0][1]["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert seen[0][1]["metadata"]["deletionGracePeriodSeconds"] == 0
    assert pods[-1][0] == "DELETED"
    assert await client.get_or_none(REPLICASETS, rs["metadata"]["name"], namespace) is None

    await client.create(DEPLOYMENTS, deployment(cluster.image, 1), namespace)
    await rolled_out(client, namespace)
    await client.delete(DEPLOYMENTS, "web", namespace, propagation="Background")
    await gone(client, DEPLOYMENTS, namespace, "web", 5)

    async def empty() -> bool:
        return not (await client.list(PODS, namespace)).items and not (await client.list(REPLICASETS, namespace)).items

    await until(empty, "dependents collected")


async def test_namespace_is_emptied_and_waits_for_finalizers(client: Client, cluster: Cluster, namespace: str) -> None:
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}, "data": {"a": "b"}}
    await client.create(CONFIGMAPS, held, namespace)
    await client.create(DEPLOYMENTS, deployment(cluster.image, 1), namespace)
    await rolled_out(client, namespace)
    await client.delete(NAMESPACES, namespace)

    async def told() -> Object | None:
        found = await client.get(NAMESPACES, namespace)
        waiting = condition(found, "NamespaceFinalizersRemaining")
        return found if waiting.get("status") == "True" else None

    found = await until(told, "the namespace tells what holds it")
    assert found["status"]["phase"] == "Terminating"
    assert condition(found, "NamespaceContentRemaining")["message"] == (
        "Some resources are remaining: configmaps. has 1 resource instances"
    )
    assert "example.com/hold in 1 resource instances" in condition(found, "NamespaceFinalizersRemaining")["message"]
    assert not (await client.list(PODS, namespace)).items
    await client.patch(CONFIGMAPS, "held", namespace, {"metadata": {"finalizers": None}})
    await gone(client, NAMESPACES, "", namespace)


async def test_every_namespace_gets_its_defaults_back(client: Client, namespace: str) -> None:
    async def there() -> Object | None:
        return await client.get_or_none(CONFIGMAPS, "kube-root-ca.crt", namespace)

    first = await until(there, "the root certificate")
    await client.delete(CONFIGMAPS, "kube-root-ca.crt", namespace)

    async def again() -> bool:
        found = await there()
        return found is not None and found["metadata"]["uid"] != first["metadata"]["uid"]

    await until(again, "the root certificate again")


async def test_unready_and_terminating_pods_leave_the_ready_endpoints(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    service = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }
    await client.create(SERVICES, service, namespace)

    async def slices() -> list[Object]:
        return (await client.list(ENDPOINTSLICES, namespace)).items

    (empty,) = await until(slices, "a slice for a service without pods")
    assert empty["endpoints"] is None
    assert empty["ports"] is None
    body = deployment(cluster.image, 1)
    body["spec"]["template"]["spec"]["readinessGates"] = [{"conditionType": "example.com/ok"}]
    await client.create(DEPLOYMENTS, body, namespace)

    async def endpoint(ready: bool) -> Object | None:
        for piece in await slices():
            for entry in piece["endpoints"] or []:
                if entry["conditions"]["ready"] == ready:
                    return piece
        return None

    piece = await until(lambda: endpoint(False), "an endpoint that is not ready")
    assert piece["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    name = piece["endpoints"][0]["targetRef"]["name"]
    waiting = condition(await client.get(PODS, name, namespace), "Ready")
    assert waiting["reason"] == "ReadinessGatesNotReady" or waiting["reason"] == "ContainersNotReady"
    gate = {"status": {"conditions": [{"type": "example.com/ok", "status": "True"}]}}
    await client.patch(PODS, name, namespace, gate, kind="strategic", subresource="status")
    await until(lambda: endpoint(True), "an endpoint that is ready")
    await asyncio.sleep(0)
