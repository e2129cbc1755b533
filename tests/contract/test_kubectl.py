"""kubectl, the present one and an older one: what people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.conftest import Cluster, Kubectl
from tests.contract.pods import ENDS_ON_TERM, run
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


def test_kubectl_creates_what_the_server_does_not_validate(kubectl: Kubectl, namespace: str) -> None:
    """A review has no PATCH, so kubectl checks it itself, by the definitions of /openapi/v2."""
    attributes = {"verb": "get", "resource": "pods", "namespace": namespace}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    asked = json.dumps(review | {"spec": {"user": "nobody", "resourceAttributes": attributes}})
    shown = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=asked))
    assert shown["status"]["allowed"] is False
    wrong = kubectl.run("create", "-f", "-", stdin=json.dumps(review | {"spec": {"usr": "nobody"}}))
    assert 'unknown field "usr"' in wrong.stderr


def test_kubectl_copies_a_pod(kubectl: Kubectl, cluster: Cluster) -> None:
    script = "import time; time.sleep(600)"
    kubectl("run", "p", f"--image={cluster.image}", "--command", "--", "python3", "-c", script)
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s", timeout=70)
    copy = ("debug", "p", "--copy-to=q", f"--image={cluster.image}", "--container=p", "--", "python3", "-c", script)
    assert kubectl.run(*copy).returncode == 0
    kubectl("wait", "--for=condition=Ready", "pod/q", "--timeout=60s", timeout=70)
    kubectl("delete", "pod", "p", "q", "--grace-period=0", "--force")


def test_kubectl_takes_a_workload_by_its_parts(kubectl: Kubectl, cluster: Cluster) -> None:
    kubectl("create", "deployment", "d", f"--image={cluster.image}", "--", *run(ENDS_ON_TERM))
    kubectl("rollout", "status", "deployment/d", "--timeout=60s", timeout=70)
    kubectl("set", "resources", "deployment/d", "--limits=memory=64Mi")
    kubectl("patch", "deployment", "d", "--subresource=scale", "--type=merge", "-p", '{"spec": {"replicas": 2}}')
    assert kubectl("get", "deployment", "d", "-o", "jsonpath={.spec.replicas}") == "2"
    refused = kubectl.run("scale", "deployment/d", "--current-replicas=9", "--replicas=1")
    assert "Expected replicas to be 9, was 2" in refused.stderr
    kubectl("expose", "deployment", "d", "--port=80")
    kubectl("autoscale", "deployment", "d", "--min=1", "--max=3", "--cpu=50%")
    assert "cpu: " in kubectl("get", "hpa", "d")
    kubectl("delete", "hpa", "d")
    kubectl("delete", "deployment", "d", "--cascade=orphan")
    owners = "jsonpath={.items[*].metadata.ownerReferences}"
    eventually(lambda: kubectl("get", "replicasets", "-o", owners) == "", "ReplicaSets without an owner")
    kubectl("delete", "replicasets", "-l", "app=d", "--cascade=foreground", "--timeout=60s", timeout=70)
    assert kubectl("get", "pods", "-l", "app=d", "-o", "name") == ""


def test_kubectl_applies_what_kustomize_makes_and_prunes(kubectl: Kubectl, tmp_path: Path) -> None:
    config = "labels: [{pairs: {team: x}}]\ngeneratorOptions: {disableNameSuffixHash: true}\n"
    config += "configMapGenerator:\n- {name: a, literals: [k=1]}\n"
    (tmp_path / "kustomization.yaml").write_text(config + "- {name: b, literals: [k=2]}\n")
    kubectl("apply", "-k", str(tmp_path))
    (tmp_path / "kustomization.yaml").write_text(config)
    # Without a list of kinds kubectl looks for what to remove among all that it takes every cluster to have.
    assert "configmap/b pruned" in kubectl("apply", "-k", str(tmp_path), "--prune", "-l", "team=x")
    assert kubectl("get", "configmaps", "-l", "team=x", "-o", "name") == "configmap/a\n"


def test_kubectl_edits_and_replaces(kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=old")
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/old/new/")
    kubectl("edit", "configmap", "c")
    assert kubectl("get", "configmap", "c", "-o", "jsonpath={.data.a}") == "new"
    before = kubectl("get", "configmap", "c", "-o", "jsonpath={.metadata.uid}")
    (tmp_path / "c.json").write_text(kubectl("get", "configmap", "c", "-o", "json"))
    kubectl("replace", "--force", "-f", str(tmp_path / "c.json"))
    assert kubectl("get", "configmap", "c", "-o", "jsonpath={.metadata.uid}") != before
