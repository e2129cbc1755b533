"""Numbers of pods on a cluster: as the platform reads them, and as a Prometheus does."""

import datetime as dt
import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from django.utils import timezone

from accounts.models import User
from deployments import background
from deployments.models import DeploymentVersion
from deployments.services import revisions, routing
from deployments.services.requests import direct_request
from deployments.tasks.reconciling import reconcile
from deployments.views import timelines
from kube.connect import Cluster
from monitoring.metrics import query, sampling
from monitoring.metrics.cells import Cell, Scope
from monitoring.metrics.prometheus import PrometheusSource
from tests.app import factories
from tests.app.reconcile.conftest import roll
from tests.support import prometheus
from tests.support.stack import eventually

PROVIDED = Path(__file__).parents[3] / "docs" / "prometheus" / "scrape.yml"
SLOW_TO_LOAD = """
import time
time.sleep(1.5)
class Deployment:
    def __init__(self, base_directory, context):
        time.sleep(3)
    def request(self, data):
        return "done"
"""

EXPORTER = """
import http.server, os, sys
TEXT = sys.argv[1].encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 9400), Handler).serve_forever()
"""


def upload(actor: User, version: DeploymentVersion) -> None:
    content = factories.package({"deployment.py": SLOW_TO_LOAD})
    revisions.upload_package(actor, version, io.BytesIO(content), file_name="package.zip")


def ask(actor: User, version: DeploymentVersion, times: int) -> None:
    found = DeploymentVersion.objects.select_related("deployment__project").get(pk=version.pk)

    async def call() -> None:
        try:
            for _ in range(times):
                await direct_request(actor, found, {}, 30)
        finally:
            await routing.close()

    background.run(call(), timeout=120)


def total(version: DeploymentVersion) -> Cell:
    now = timezone.now()
    return query.total(Scope((version.pk,)), now - dt.timedelta(minutes=5), now + dt.timedelta(seconds=20), now)


def test_a_start_is_told_in_its_phases_and_counted(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    upload(editor, version)
    rollout = roll(version)
    sampling.collect()
    instance = version.instances.get(deleted_at=None)
    assert instance.loading_at is not None
    assert instance.started_at is not None
    assert instance.ready_at is not None
    assert instance.started_at < instance.loading_at < instance.ready_at
    build = rollout.to_revision.environment_build
    line = timelines.timeline(rollout, [instance], build.started_at if build else None, timezone.now())
    phases = {phase.key: phase.seconds for phase in line.lanes[0].phases}
    assert [phase.key for phase in line.lanes[0].phases if phase.key in ("init", "loading", "ready")] == [
        "init", "loading", "ready",
    ]  # fmt: skip
    # The module is imported while the process starts; only what __init__ does is loading. Times are whole seconds.
    assert phases["init"] >= 0.5
    assert phases["loading"] >= 2

    ask(editor, version, 6)
    sampling.collect()
    whole = total(version)
    assert whole.counts["requests"] == pytest.approx(6)
    assert whole.counts["cold_starts"] == 1
    values = whole.values()
    assert values["cold_start_p50"] is not None
    assert values["cold_start_p50"] >= 4
    assert values["gpu_use"] is None


def provided_jobs(web: str, kubeconfig: Path, token: str) -> list[dict[str, Any]]:
    """The jobs of docs/prometheus/scrape.yml; changed is only what is each installation's own."""
    platform, pods = yaml.safe_load(PROVIDED.read_text())["scrape_configs"]
    platform["scheme"], host = web.split("://")
    platform["authorization"]["credentials"] = token
    platform["static_configs"] = [{"targets": [host]}]
    (pods["kubernetes_sd_configs"][0])["kubeconfig_file"] = str(kubeconfig)
    return [platform, pods]


def told_apart(url: str) -> set[tuple[str, ...]]:
    """All targets: job, address, namespace, pod, and whether they answer."""
    return {
        (labels["job"], urlsplit(one["scrapeUrl"]).netloc, labels.get("namespace", ""), labels.get("pod", ""),
         one["health"])
        for one in prometheus.targets(url)
        for labels in [one["labels"]]
    }  # fmt: skip


def discovered(url: str, folder: Path) -> Path:
    """A file (``file_sd_configs``) of all containers that the discovery found, with what it knows of each."""
    path = folder / "discovered.json"
    everything = [*prometheus.targets(url), *prometheus.targets(url, "dropped")]
    labels = [one["discoveredLabels"] for one in everything if one["discoveredLabels"]["job"] == "pilothouse-pods"]
    assert {one["__meta_kubernetes_pod_container_name"] for one in labels} >= {"serving", "package"}
    path.write_text(json.dumps([{"targets": [one["__address__"]], "labels": one} for one in labels]))
    return path


def run_pod(cluster: Cluster, namespace: str, name: str, labels: dict[str, str], container: dict[str, Any]) -> None:
    """A pod of somebody else."""
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container | {"image": "python:3.11-slim"}]},
    }
    cluster.call("POST", f"/api/v1/namespaces/{namespace}/pods", body=body)


def run_beside(cluster: Cluster, namespace: str) -> None:
    """One that looks much like one of ours."""
    ports = [{"name": "http", "containerPort": 18080}]
    container = {"name": "serving", "command": ["sleep", "600"], "ports": ports}
    run_pod(cluster, namespace, "beside", {"app.kubernetes.io/managed-by": "pilothouse"}, container)


def test_the_provided_configuration_finds_the_pods_and_their_numbers_are_the_same(
    cluster: Cluster, web: str, kubeconfig: Path, editor: User, version: DeploymentVersion, tmp_path: Path,
    settings: Any,
) -> None:  # fmt: skip
    settings.PILOTHOUSE_METRICS_TOKEN = "read-only"
    settings.PILOTHOUSE_PROMETHEUS_INTERVAL = 1
    upload(editor, version)
    roll(version)
    instance = version.instances.get(deleted_at=None)
    namespace = version.deployment.project.namespace
    run_beside(cluster, namespace)
    jobs = provided_jobs(web, kubeconfig, "read-only")
    wanted = {
        ("pilothouse", web.removeprefix("http://"), "", "", "up"),
        ("pilothouse-pods", f"{instance.address}:18080", namespace, instance.pod_name, "up"),
    }
    with ExitStack() as stack:
        victoria = stack.enter_context(prometheus.running_victoria_metrics(jobs, tmp_path))
        eventually(lambda: told_apart(victoria) == wanted, "the platform and the pod to be found and read")
        # The Prometheus is told what was discovered and sorts it by the same rules.
        jobs[1].pop("kubernetes_sd_configs")
        jobs[1]["file_sd_configs"] = [{"files": [str(discovered(victoria, tmp_path))]}]
        real = stack.enter_context(prometheus.running(jobs, tmp_path))
        eventually(lambda: told_apart(real) == wanted, "the same targets")
        for number, url in enumerate((victoria, real), 1):
            settings.PILOTHOUSE_PROMETHEUS_URL = url
            source = PrometheusSource.of_settings()
            stack.callback(source.close)
            eventually(lambda asked=source: _known(asked, version), f"the first readings of {url}")
            ask(editor, version, 20)
            wanted_count = pytest.approx(20 * number, rel=0.15)
            eventually(lambda n=wanted_count: total(version).counts["requests"] == n, "the requests")
            values = total(version).values()
            assert values["p95"] is not None
            assert values["error_rate"] == 0


def _known(source: PrometheusSource, version: DeploymentVersion) -> bool:
    now = timezone.now()
    levels = source.total(Scope((version.pk,)), now - dt.timedelta(seconds=12), now, now).levels
    return levels.get("instances") == 1 and "in_flight" in levels


def test_use_of_gpus_comes_from_the_exporters_pods(
    cluster: Cluster, editor: User, version: DeploymentVersion, settings: Any
) -> None:
    settings.PILOTHOUSE_GPU_EXPORTER_SELECTOR = "app=nvidia-dcgm-exporter"
    upload(editor, version)
    roll(version)
    namespace = version.deployment.project.namespace
    pod = version.instances.get(deleted_at=None).pod_name
    who = f'UUID="GPU-a",gpu="0",container="serving",namespace="{namespace}",pod="{pod}"'
    text = f"DCGM_FI_DEV_GPU_UTIL{{{who}}} 65\nDCGM_FI_DEV_FB_USED{{{who}}} 512\n"
    container = {
        "name": "exporter",
        "command": ["python", "-c", EXPORTER, text],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    run_pod(cluster, namespace, "exporter", {"app": "nvidia-dcgm-exporter"}, container)
    # The machine has no GPU to give, so the type of what already runs says that it holds one.
    kind = version.instance_type
    assert kind is not None
    type(kind).objects.filter(pk=kind.pk).update(accelerator=1)

    def measured() -> bool:
        sampling.collect()
        return version.instances.filter(gpu_busy_at__isnull=False).exists()

    eventually(measured, "the exporter's numbers", pause=1)
    values = total(version).values()
    assert (values["gpu_use"], values["gpu_memory"]) == (pytest.approx(0.65), pytest.approx(512 * 2**20, rel=0.6))
    # Through the API's proxy as well, where pods cannot be reached by their addresses.
    settings.PILOTHOUSE_ROUTE = "apiserver"
    version.instances.update(gpu_busy_at=None)
    eventually(measured, "the exporter's numbers through the proxy", pause=1)
    reconcile(version.pk)
    assert version.instances.get(deleted_at=None).gpu_busy_at is not None
