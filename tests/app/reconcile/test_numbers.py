"""Numbers of pods on a cluster: as the platform reads them, and as a Prometheus does."""

import datetime as dt
import io
from pathlib import Path
from typing import Any

import pytest
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


def test_a_prometheus_that_reads_the_pods_tells_the_same(
    cluster: Cluster, web: str, editor: User, version: DeploymentVersion, tmp_path: Path, settings: Any
) -> None:
    upload(editor, version)
    roll(version)
    instance = version.instances.get(deleted_at=None)
    # What service discovery would find; Debian's Prometheus is built without that of Kubernetes.
    labels = {"namespace": version.deployment.project.namespace, "pod": instance.pod_name}
    jobs: list[dict[str, object]] = [
        {"job_name": "pods", "static_configs": [{"targets": [f"{instance.address}:18080"], "labels": labels}]},
        {
            "job_name": "pilothouse",
            "honor_labels": True,
            "static_configs": [{"targets": [web.removeprefix("http://")]}],
        },
    ]
    with prometheus.running(jobs, tmp_path) as url:
        settings.PILOTHOUSE_PROMETHEUS_URL, settings.PILOTHOUSE_PROMETHEUS_INTERVAL = url, 1
        source = PrometheusSource.of_settings()
        eventually(lambda: _known(source, version), "the first readings of the pod and the platform")
        ask(editor, version, 20)
        eventually(lambda: total(version).counts["requests"] >= 18, "the requests")
        values = total(version).values()
        assert values["p95"] is not None
        assert values["error_rate"] == 0
        source.close()


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
        "image": "python:3.11-slim",
        "command": ["python", "-c", EXPORTER, text],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "exporter", "labels": {"app": "nvidia-dcgm-exporter"}},
        "spec": {"containers": [container]},
    }
    cluster.call("POST", f"/api/v1/namespaces/{namespace}/pods", body=body)
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
