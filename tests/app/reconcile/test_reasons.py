"""Each reason provoked on an embedded cluster: from what the cluster holds to the code and the sentence."""

import base64
import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from accounts.models import User
from deployments.models import DeploymentVersion, InstanceEvent, Rollout
from deployments.services import revisions
from kube import explain as explaining
from kube import specs
from kube.connect import Cluster, path_of
from kube.errors import ClusterUnreachable
from kube.explain import Reason, explain, unreachable
from kube.observe import observe, rooms
from kube.state import Observed
from tests.app import factories
from tests.app.reconcile.conftest import newest, passes_until, roll
from tests.support.registry import Registry, running
from tests.support.stack import eventually

IMAGE = "python:3.11-slim"
Object = dict[str, Any]


class Bench:
    """A namespace with one version's Deployment; what it looks like and what is said of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.version = str(uuid.uuid4())
        self.namespace = f"reasons-{self.version[:8]}"
        cluster.call("POST", path_of("Namespace"), body={"metadata": {"name": self.namespace}})

    def make(self, kind: str, body: Object) -> None:
        self.cluster.call("POST", path_of(kind, self.namespace), body=body)

    def deploy(self, code: str = "import time; time.sleep(600)", deadline: int = 600, **pod: Any) -> None:
        """A Deployment of one pod that runs the code; ``serving`` in ``pod`` adds to its container."""
        labels = {
            specs.MANAGED_BY: specs.MANAGER, specs.VERSION_ID: self.version, specs.DEPLOYMENT: "churn",
            specs.VERSION: "v1", "app": "x",
        }  # fmt: skip
        container = {
            "name": "serving", "image": IMAGE, "command": ["python", "-c", code],
            "terminationMessagePolicy": "FallbackToLogsOnError", **pod.pop("serving", {}),
        }  # fmt: skip
        spec = {
            "replicas": 1,
            "progressDeadlineSeconds": deadline,
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], **pod}},
        }
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        self.cluster.call("POST", path, body={"metadata": {"name": "churn", "labels": labels}, "spec": spec})

    def seen(self) -> Observed:
        return observe(self.cluster, self.namespace, self.version)

    def reason(self) -> Reason | None:
        return explain(self.seen(), dt.datetime.now(dt.UTC), rooms(self.cluster))

    def expect(self, code: str, *words: str, when: Callable[[Reason], bool] = lambda _: True) -> Reason:
        """The reason once it has this code, with these words in its sentence."""
        found: list[Reason | None] = []

        def said() -> bool:
            found.append(self.reason())
            return found[-1] is not None and found[-1].code == code and when(found[-1])

        eventually(said, f"reason {code}", seconds=120)
        reason = found[-1]
        assert reason is not None
        for word in words:
            assert word in reason.message, reason
        assert reason.next
        return reason


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[Bench]:
    made = Bench(cluster)
    yield made
    cluster.call("DELETE", path_of("Namespace", None, made.namespace))


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Callable[[Object], None]]:
    """Changes the spec of the cluster's node for the test."""
    path = path_of("Node", None, cluster.find("Node")[0]["metadata"]["name"])
    kind = "application/merge-patch+json"

    def change(spec: Object) -> None:
        cluster.call("PATCH", path, body={"spec": spec}, content_type=kind)

    yield change
    change({"taints": None, "unschedulable": None})


def test_does_not_fit_names_what_lacks_and_who_holds_it(bench: Bench) -> None:
    cores = next(room for room in rooms(bench.cluster) if room.allocatable["cpu"]).allocatable["cpu"]
    bench.deploy(serving={"resources": {"requests": {"cpu": f"{int(cores * 600)}m"}}})
    eventually(lambda: any(h.name == "churn/v1" for room in rooms(bench.cluster) for h in room.holders), "the pod")
    path = f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/churn/scale"
    bench.cluster.call("PATCH", path, body={"spec": {"replicas": 2}}, content_type="application/merge-patch+json")
    bench.expect(
        "does_not_fit", f"it asks for {cores * 0.6:.3g} CPU cores, the largest free slice is", "churn/v1 holds"
    )


def test_quota_exceeded(bench: Bench) -> None:
    bench.make("ResourceQuota", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}})
    eventually(lambda: bench.cluster.get("ResourceQuota", bench.namespace, "q").get("status"), "the quota")
    bench.deploy()
    bench.expect("quota_exceeded", "asks for pods=1, pods=0 of pods=0 are used")


def test_admission_refused(bench: Bench) -> None:
    limits = {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}
    body = {"metadata": {"name": "small"}, "spec": limits}
    bench.cluster.call("POST", f"/api/v1/namespaces/{bench.namespace}/limitranges", body=body)
    bench.deploy(serving={"resources": {"limits": {"memory": "1Gi"}}})
    bench.expect("admission_refused", "maximum memory usage per Container is 64Mi")


def test_taint_mismatch(bench: Bench, node: Callable[[Object], None]) -> None:
    node({"taints": [{"key": "team", "value": "other", "effect": "NoSchedule"}]})
    bench.deploy()
    bench.expect("taint_mismatch", "0/1 nodes accept the instance", "untolerated taint")


def test_selector_mismatch(bench: Bench) -> None:
    bench.deploy(nodeSelector={"disk": "fast"})
    bench.expect("selector_mismatch", "match the labels that the instance type asks for")


def test_unschedulable(bench: Bench, node: Callable[[Object], None]) -> None:
    node({"unschedulable": True})
    bench.deploy()
    bench.expect("unschedulable", "No node takes the instance", "unschedulable")


def test_image_unknown(bench: Bench) -> None:
    bench.deploy(serving={"image": "registry.invalid/nobody/nothing:1"})
    bench.expect("image_unknown", "registry.invalid/nobody/nothing:1", when=lambda reason: reason.hopeless)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running(Registry()) as found:
        yield found


def deploy_image(editor: User, version: DeploymentVersion, image: str) -> None:
    version.environment = factories.environment("container-image")
    version.save()
    revisions.deploy_image(editor, version, image=image)


def test_image_refused(cluster: Cluster, editor: User, version: DeploymentVersion, registry: Registry) -> None:
    registry.access, registry.users = "basic", {"puller": "known-to-few"}
    image = registry.image()
    deploy_image(editor, version, image)
    rollout = roll(version)
    assert (rollout.state, rollout.reason_code) == (Rollout.State.FAILED, "image_refused")
    assert rollout.reason_message == f"The registry refuses to give out the image '{image}'."
    # With the credentials that the sentence's next step asks for the registry gives it out; the node has no use for it.
    namespace = version.deployment.project.namespace
    packed = base64.b64encode(b"puller:known-to-few").decode()
    content = json.dumps({"auths": {registry.address: {"auth": packed}}})
    body = {
        "metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": content},
    }  # fmt: skip
    cluster.call("POST", path_of("Secret", namespace), body=body)
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    patch = {"imagePullSecrets": [{"name": "pull"}]}
    cluster.call("PATCH", account, body=patch, content_type="application/merge-patch+json")
    deploy_image(editor, version, image)
    rollout = roll(version)
    assert (rollout.state, rollout.reason_code) == (Rollout.State.FAILED, "image_unknown")
    assert "this node runs no container images" in rollout.reason_message
    told = " ".join(InstanceEvent.objects.filter(instance__version=version).values_list("description", flat=True))
    assert image in told
    assert "known-to-few" not in told
    assert packed not in told


def test_image_pull_slow(
    cluster: Cluster,
    editor: User,
    version: DeploymentVersion,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explaining, "SLOW_PULL", dt.timedelta(seconds=1))
    registry.access = "silent"
    deploy_image(editor, version, registry.image())
    passes_until(version, lambda: version.reason_code == "image_pull_slow")
    assert re.fullmatch(r"The node \S+ has been pulling the image for \d+ seconds\.", version.reason_message)
    assert newest(version).state == Rollout.State.IN_PROGRESS
    registry.answering.set()
    passes_until(version, lambda: version.reason_code == "image_unknown")


def test_config_missing(bench: Bench) -> None:
    bench.deploy(serving={"envFrom": [{"secretRef": {"name": "gone"}}]})
    assert bench.expect("config_missing", 'secret "gone" not found').hopeless


def test_volume_failed(bench: Bench) -> None:
    bench.deploy(
        volumes=[{"name": "data", "configMap": {"name": "gone"}}],
        serving={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
    )
    bench.expect("volume_failed", 'configmap "gone" not found')


def test_package_failed(bench: Bench) -> None:
    code = "import sys; sys.exit('The package cannot be fetched: the storage answered 503.')"
    init = {
        "name": "package", "image": IMAGE, "command": ["python", "-c", code],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    bench.deploy(initContainers=[init])
    bench.expect("package_failed", "The package cannot be fetched: the storage answered 503.")


def test_import_error(bench: Bench) -> None:
    bench.deploy("import a_module_that_nobody_has")
    reason = bench.expect(
        "import_error", "No module named 'a_module_that_nobody_has'", when=lambda reason: reason.hopeless
    )
    assert "requirements.txt" in reason.next


def test_start_failed(bench: Bench) -> None:
    bench.deploy("raise ValueError('no weights')")
    bench.expect("start_failed", "ValueError: no weights", when=lambda reason: reason.hopeless)


def test_crash_loop(bench: Bench) -> None:
    bench.deploy("import sys; print('cannot open the model', flush=True); sys.exit(3)")
    bench.expect(
        "crash_loop", "exit code 3", "Its last words: cannot open the model", when=lambda reason: reason.hopeless
    )


def test_out_of_memory(bench: Bench) -> None:
    hog = "hog = bytearray(400 * 2**20)\nfor i in range(0, len(hog), 4096): hog[i] = 1\n"
    bench.deploy(hog, serving={"resources": {"limits": {"memory": "64Mi"}}})
    bench.expect("out_of_memory", "more memory than its limit of 64 MiB")


def test_evicted(bench: Bench) -> None:
    code = "import time\nopen('/scratch/file', 'wb').write(bytes(30 * 2**20))\ntime.sleep(600)"
    bench.deploy(
        code,
        serving={"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
        volumes=[{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}],
    )
    bench.expect("evicted", "was evicted from its node", 'EmptyDir volume "scratch" exceeds the limit "1Mi"')


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)
    def log_message(self, *_): pass
http.server.HTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_probe_failing(bench: Bench, probe: str) -> None:
    bench.deploy(
        SERVER,
        serving={
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            probe: {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2},
            **({"readinessProbe": {"exec": {"command": ["false"]}}} if probe == "livenessProbe" else {}),
        },
        terminationGracePeriodSeconds=1,
    )
    bench.expect("probe_failing", "503", when=lambda reason: "503" in reason.message)


def test_deadline_passed(bench: Bench) -> None:
    # Never ready, and nothing to blame: its start takes longer than it may.
    bench.deploy(deadline=5, serving={"startupProbe": {"exec": {"command": ["false"]}, "failureThreshold": 600}})
    assert bench.expect("deadline_passed", "1 of 1 started, 0 ready").hopeless


def test_node_lost(bench: Bench) -> None:
    bench.deploy()
    eventually(lambda: all(pod.ready for pod in bench.seen().pods) and bench.seen().pods, "a ready pod")
    kubelets = [
        process for process in psutil.Process().children(recursive=True) if "localcluster.kubelet" in process.cmdline()
    ]
    assert len(kubelets) == 1
    kubelets[0].suspend()
    try:
        # The node controller is patient for most of a minute, as it should be.
        bench.expect("node_lost", "is not answering")
    finally:
        kubelets[0].resume()
    eventually(lambda: all(pod.ready for pod in bench.seen().pods), "the node to be back")


def test_cluster_unreachable(bench: Bench, kubeconfig: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(re.sub(r'https://[^"\s]+', "https://127.0.0.1:1", kubeconfig.read_text()))
    away = Cluster.load(elsewhere)
    with pytest.raises(ClusterUnreachable) as caught:
        observe(away, bench.namespace, bench.version)
    away.close()
    assert unreachable(str(caught.value)).code == "cluster_unreachable"
