"""kubectl, the present one and an older one: what people type."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import Cluster, Kubectl
from tests.support.kubernetes_tools import kubectl as present_kubectl
from tests.support.kubernetes_tools import older_kubectl
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


@pytest.fixture(params=[present_kubectl, older_kubectl], ids=["1.37", "1.35"])
def kubectl(request: pytest.FixtureRequest, cluster: Cluster, namespace: str) -> Kubectl:
    return Kubectl(cluster, namespace, request.param())


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
    kubectl("rollout", "pause", "deployment/web")
    kubectl("set", "env", "deployment/web", "V=3")
    assert kubectl.run("rollout", "undo", "deployment/web").returncode == 1
    assert kubectl("get", "replicasets", "-o", "name").count("web-") == 2
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout=70)
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
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
    assert kubectl("get", "configmap", "c", "-o", "wide").split()[:3] == ["NAME", "DATA", "AGE"]
    assert "a:\n----\n1\n" in kubectl("describe", "configmap", "c")
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
    crash = "import sys; print('first and last', flush=True); sys.exit(3)"
    kubectl("run", "crash", f"--image={cluster.image}", "--command", "--", "python3", "-c", crash)
    kubectl("run", "p", f"--image={cluster.image}", "--restart=Never", "--command", "--", "python3", "-c", script)
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s", timeout=70)
    eventually(lambda: kubectl.run("logs", "p").stdout == "hello\n", "the first line")
    assert kubectl("exec", "p", "--", "python3", "-c", "print(6 * 7)") == "42\n"
    assert kubectl("exec", "-i", "p", "--", "python3", "-c", "print(input()[::-1])", stdin="abc\n") == "cba\n"
    failed = kubectl.run("exec", "p", "--", "python3", "-c", "raise SystemExit(3)")
    assert failed.returncode == 3
    wide = kubectl("get", "pod", "p", "-o", "wide").splitlines()
    assert wide[0].split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    assert wide[1].split()[:4] == ["p", "1/1", "Running", "0"]
    assert "Container started" in kubectl("describe", "pod", "p")
    eventually(lambda: kubectl.run("logs", "crash", "--previous").stdout == "first and last\n", "a log of before")
    followed = kubectl("logs", "-f", "crash", "--previous")
    assert followed == "first and last\n"
    kubectl("delete", "pod", "p", "crash", "--grace-period=1")
