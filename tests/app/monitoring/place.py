"""What a Prometheus reads of one pod: its own numbers, its kubelet's, its GPUs', and the platform's."""

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.utils import timezone

from deployments.models import DeploymentVersion, Instance
from monitoring.metrics.cells import Cell, Scope
from monitoring.metrics.prometheus import PrometheusSource
from serving.metrics import ProcessMetrics, SharedMetrics
from tests.support import prometheus
from tests.support.http import telling
from tests.support.stack import eventually
from tests.support.web import serving

DCGM = """# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA A100",container="serving",{who}}} 80
DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA A100",container="serving",{who}}} 40
DCGM_FI_DEV_GPU_UTIL{{gpu="2",UUID="GPU-c",device="nvidia2",modelName="NVIDIA A100"}} 5
# HELP DCGM_FI_DEV_FB_USED Framebuffer memory used (in MiB).
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA A100",container="serving",{who}}} 1024
DCGM_FI_DEV_FB_USED{{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA A100",container="serving",{who}}} 2048
"""


def job(name: str, target: str, **labels: str) -> dict[str, object]:
    return {"job_name": name, "static_configs": [{"targets": [target], "labels": labels}]}


def answer(part: ProcessMetrics, count: int, code: int = 200, seconds: float = 0.02) -> None:
    """So many requests with one outcome."""
    for _ in range(count):
        part.began()
        part.ended("request", code, seconds)


class Place:
    """One pod that Prometheus reads, with the exporter of its GPUs, a kubelet and the platform."""

    def __init__(self, instance: Instance) -> None:
        self.whole = Scope((instance.version_id,))
        self.pod = SharedMetrics(1)
        self.part = self.pod.part(0)
        self.part.loading()
        self.kubelet = ""  # what a node's kubelet tells of its containers, with {cpu} seconds used
        self.url = self.platform = ""  # where Prometheus and the platform answer
        self.source: PrometheusSource

    def text(self) -> str:
        return self.pod.text({"deployment": "churn"})

    def answer(self, count: int, code: int = 200, seconds: float = 0.02) -> None:
        answer(self.part, count, code, seconds)

    def total(self, scope: Scope | None = None, minutes: float = 5) -> Cell:
        now = timezone.now()
        return self.source.total(scope or self.whole, now - dt.timedelta(minutes=minutes), now, now)


@contextmanager
def prometheus_reads(instance: Instance, folder: Path, settings: Any) -> Iterator[Place]:
    """A Prometheus that the platform asks and that has read everything once."""
    place = Place(instance)
    DeploymentVersion.objects.filter(pk=instance.version_id).update(ready_instances=1)
    namespace, name = instance.version.deployment.project.namespace, instance.pod_name
    who = f'namespace="{namespace}",pod="{name}"'
    with ExitStack() as stack:
        pod = stack.enter_context(telling(place.text))
        kubelet = stack.enter_context(telling(lambda: place.kubelet.replace("{cpu}", f"{time.monotonic() / 2:.3f}")))
        exporter = stack.enter_context(telling(lambda: DCGM.format(who=who)))
        place.platform = stack.enter_context(serving())
        jobs = [
            job("pods", pod, namespace=namespace, pod=name),
            job("pods-again", pod, namespace=namespace, pod=name),
            {**job("kubelet", kubelet), "honor_labels": True},
            job("dcgm", exporter, namespace="gpu-operator", pod="exporter-1"),
            {**job("pilothouse", urlsplit(place.platform).netloc), "honor_labels": True},
        ]
        place.url = settings.PILOTHOUSE_PROMETHEUS_URL = stack.enter_context(prometheus.running(jobs, folder))
        settings.PILOTHOUSE_PROMETHEUS_INTERVAL = 1
        place.source = PrometheusSource.of_settings()
        eventually(lambda: place.total(minutes=0.2).levels.get("instances"), "the platform's first readings")
        eventually(lambda: "in_flight" in place.total(minutes=0.2).levels, "the pod's first readings")
        yield place
        place.source.close()
