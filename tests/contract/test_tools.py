"""The tools that people use: kubectl and the official Python client."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from localcluster.client import Client
from tests.contract.conftest import Cluster, Kubectl
from tests.support.stack import eventually

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {image}
        command: [python3, -m, http.server, "8080"]
        ports: [{{containerPort: 8080}}]
        env: [{{name: V, value: "{version}"}}]
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


def manifest(cluster: Cluster, *, version: int = 1, replicas: int = 1) -> str:
    return DEPLOYMENT.format(image=cluster.image, version=version, replicas=replicas)


def test_kubectl_takes_a_deployment_through_its_life(kubectl: Kubectl, cluster: Cluster) -> None:
    assert "deployment.apps/web created" in kubectl("apply", "-f", "-", stdin=manifest(cluster))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout=70)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=manifest(cluster))
    difference = kubectl.run("diff", "-f", "-", stdin=manifest(cluster, version=2))
    assert difference.returncode == 1
    assert '+          value: "2"' in difference.stdout
    kubectl("apply", "-f", "-", stdin=manifest(cluster, version=2))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout=70)
    assert kubectl("rollout", "history", "deployment/web").split()[-4:] == ["1", "<none>", "2", "<none>"]
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout=70)
    path = "jsonpath={.spec.template.spec.containers[0].env[0].value} {.status.readyReplicas}"
    assert kubectl("get", "deployment", "web", "-o", path) == "1 1"
    kubectl("scale", "deployment/web", "--replicas=0")
    eventually(lambda: "0/0" in kubectl("get", "deployment", "web"), "no instance")
    assert "Replicas:               0 desired" in kubectl("describe", "deployment", "web")
    assert "ScalingReplicaSet" in kubectl("events")
    kubectl("delete", "deployment,service", "web", "--wait=false")


def test_kubectl_shows_objects_in_every_form(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("label", "configmap", "c", "x=y")
    assert kubectl("get", "configmap", "c", "-o", "jsonpath={.data.a}{.metadata.labels.x}") == "1y"
    assert kubectl("get", "configmap", "-l", "x=y", "-o", "name") == "configmap/c\n"
    columns = kubectl("get", "configmap", "c", "-o", "custom-columns=N:.metadata.name,A:.data.a")
    assert columns.split() == ["N", "A", "c", "1"]
    assert json.loads(kubectl("get", "configmap", "c", "-o", "json"))["kind"] == "ConfigMap"
    assert "kind: ConfigMap" in kubectl("get", "configmap", "c", "-o", "yaml")
    applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {b: '2'}\n"
    kubectl("apply", "--server-side", "-f", "-", stdin=applied)
    conflict = kubectl.run("apply", "--server-side", "-f", "-", stdin=applied.replace("b: '2'", "a: '9'"))
    assert "conflict" in conflict.stderr
    assert "FIELD: strategy" in kubectl("explain", "deployment.spec.strategy")
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    kubectl("create", "secret", "generic", "s", "--from-literal=p=q")
    assert "1" in kubectl("get", "secret", "s").split()
    kubectl("wait", "--for=jsonpath={.data.a}=1", "configmap/c", "--timeout=10s")
    kubectl("delete", "configmap", "c")
    assert kubectl.run("get", "configmap", "c").returncode == 1


def test_kubectl_reads_logs_and_runs_commands(kubectl: Kubectl, cluster: Cluster) -> None:
    script = "import time; print('hello', flush=True); time.sleep(600)"
    kubectl("run", "p", f"--image={cluster.image}", "--restart=Never", "--command", "--", "python3", "-c", script)
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s", timeout=70)
    assert kubectl("logs", "p") == "hello\n"
    assert kubectl("exec", "p", "--", "python3", "-c", "print(6 * 7)") == "42\n"
    assert kubectl("exec", "-i", "p", "--", "python3", "-c", "print(input()[::-1])", stdin="abc\n") == "cba\n"
    failed = kubectl.run("exec", "p", "--", "python3", "-c", "raise SystemExit(3)")
    assert failed.returncode == 3
    kubectl("delete", "pod", "p", "--grace-period=1")


async def test_the_service_proxy_reaches_a_pod(
    client: Client, kubectl: Kubectl, cluster: Cluster, namespace: str
) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(cluster))
    await asyncio.to_thread(kubectl, "rollout", "status", "deployment/web", "--timeout=60s", timeout=70)
    path = f"/api/v1/namespaces/{namespace}/services/web:80/proxy"
    url = client.connection.server + path
    for _ in range(100):
        async with client.session.get(url + "/") as answer:
            if answer.status == 200:
                assert "Directory listing" in await answer.text()
                break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the service has no endpoint although its pod is ready")
    async with client.session.get(url + "/no-such-file") as missing:
        assert missing.status == 404
    async with client.session.get(url, allow_redirects=False) as moved:
        assert moved.status == 301
        assert moved.headers["Location"] == path + "/"
    async with client.session.get(url.replace("web:80", "web:none") + "/") as unknown:
        assert unknown.status == 503


def test_the_official_client_lists_watches_and_applies(cluster: Cluster, namespace: str) -> None:
    from kubernetes import client as official
    from kubernetes import config, dynamic, watch

    api_client = config.new_client_from_config(str(cluster.kubeconfig))
    try:
        core = official.CoreV1Api(api_client)
        body: Any = {"metadata": {"name": "c"}, "data": {"a": "1"}}
        made = core.create_namespaced_config_map(namespace, body)
        core.patch_namespaced_config_map("c", namespace, {"data": {"a": "2"}})
        seen = []
        stream = watch.Watch().stream(
            core.list_namespaced_config_map,
            namespace,
            resource_version=made.metadata.resource_version,
            timeout_seconds=20,
        )
        for event in stream:
            seen.append((event["type"], event["object"].data["a"]))
            break
        assert seen == [("MODIFIED", "2")]
        deployments = dynamic.DynamicClient(api_client).resources.get(api_version="apps/v1", kind="Deployment")
        assert deployments.get(namespace=namespace).items == []
        names = [one.metadata.name for one in core.list_namespaced_config_map(namespace).items]
        assert "c" in names
    finally:
        api_client.close()


async def test_the_official_asynchronous_client_works(cluster: Cluster, namespace: str) -> None:
    from kubernetes import aio
    from kubernetes.aio import client as official
    from kubernetes.aio import config

    configuration = official.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with official.ApiClient(configuration) as api_client:
        core = official.CoreV1Api(api_client)
        made = await core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "1"}})
        await core.patch_namespaced_config_map("c", namespace, {"data": {"a": "2"}})
        seen = []
        async with aio.watch.Watch() as watch:
            stream = watch.stream(
                core.list_namespaced_config_map, namespace, resource_version=made.metadata.resource_version
            )
            async for event in stream:
                seen.append((event["type"], event["object"].data["a"]))
                break
        assert seen == [("MODIFIED", "2")]


def test_the_official_informer_follows(cluster: Cluster, namespace: str) -> None:
    from kubernetes import client as official
    from kubernetes import config
    from kubernetes.informer import ADDED, SharedInformer

    api_client = config.new_client_from_config(str(cluster.kubeconfig))
    core = official.CoreV1Api(api_client)
    informer = SharedInformer(core.list_namespaced_secret, namespace=namespace)
    added = threading.Event()
    informer.add_event_handler(ADDED, lambda obj: added.set() if obj.metadata.name == "late" else None)
    informer.start()
    try:
        core.create_namespaced_secret(namespace, {"metadata": {"name": "late"}})
        assert added.wait(30)
    finally:
        core.create_namespaced_secret(namespace, {"metadata": {"name": "wakes-the-watch-to-its-end"}})
        informer.stop()
        api_client.close()
