"""What Prometheus reads of the platform, and who may."""

import datetime as dt
import re
from typing import Any

import pytest
from django.db.models import F
from django.test import Client
from django.utils import timezone

from deployments.models import Instance
from monitoring.metrics import sampling
from monitoring.metrics.exposition import samples
from monitoring.metrics.gpus import GpuUsage
from monitoring.metrics.samples import count_starts
from monitoring.models import InstanceCounters, MetricSample
from tests.app import factories
from tests.app.monitoring.conftest import Fleet

pytestmark = pytest.mark.django_db


def test_the_loopback_may_read_and_others_may_not(client: Client, settings: Any) -> None:
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="10.0.0.1").status_code == 403
    assert client.get("/metrics", HTTP_X_FORWARDED_FOR="10.0.0.1").status_code == 403
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert client.get("/metrics").status_code == 403
    assert client.post("/metrics").status_code == 405


def test_with_a_token_only_its_holder_may(client: Client, settings: Any) -> None:
    settings.PILOTHOUSE_METRICS_TOKEN = "open sesame"
    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer wrong").status_code == 403
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer open sesame").status_code == 200


def test_versions_instances_and_queues_are_told(client: Client, fleet: Fleet) -> None:
    InstanceCounters.objects.create(instance_id=fleet.instance.pk, read_at=fleet.instance.time_created, requests=7)
    factories.request(fleet.version, batch=True)
    answer = client.get("/metrics")
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.content.decode()
    found = {(name, labels.get("deployment", "")): value for name, labels, value in samples(text)}
    assert found["pilothouse_instance_requests_total", "churn"] == 7
    assert found["pilothouse_version_queue", "churn"] == 1
    assert found["pilothouse_version_wanted_instances", "churn"] == 1
    assert found["pilothouse_version_phase", "churn"] == 1
    assert ("pilothouse_alerts_firing", "") in found
    # Every line is one of the format's, and every metric says what it is.
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? \S+', line), line
    told = {re.sub(r"(cold_start_seconds)_(bucket|sum|count)$", r"\1", name) for name, _ in found}
    assert told <= set(re.findall(r"# TYPE (\w+) ", text))


def test_cold_starts_are_a_histogram_of_every_version(client: Client, fleet: Fleet) -> None:
    def told() -> dict[tuple[str, str], float]:
        text = client.get("/metrics").content.decode()
        return {
            (name.removeprefix("pilothouse_version_cold_start_seconds"), labels.get("le", "")): value
            for name, labels, value in samples(text)
            if name.startswith("pilothouse_version_cold_start_seconds")
        }

    assert set(told().values()) == {0}
    for seconds in (0.4, 7, 7.5, 9000):
        count_starts([(fleet.version.pk, seconds)])
    found = told()
    assert (found["_bucket", "0.5"], found["_bucket", "6"], found["_bucket", "8"]) == (1, 1, 3)
    assert (found["_bucket", "3600"], found["_bucket", "+Inf"], found["_count", ""]) == (3, 4, 4)
    assert found["_sum", ""] == 9014.9


def test_gpus_are_told_where_they_are_measured(client: Client, fleet: Fleet) -> None:
    row = Instance.objects.select_related("version__deployment__project", "version__instance_type").get()
    now = timezone.now()
    sampling.store([row], {}, {}, now)
    assert "pilothouse_instance_gpu_busy{" not in client.get("/metrics").content.decode()
    usage = {(fleet.project.namespace, row.pod_name): GpuUsage(2, 0.5, 2**30)}
    sampling.store([row], {}, {}, now + dt.timedelta(seconds=10), usage)
    MetricSample.objects.update(at=F("at") - dt.timedelta(minutes=1))
    found = {name: value for name, _, value in samples(client.get("/metrics").content.decode())}
    assert found["pilothouse_instance_gpu_devices"] == 2
    assert found["pilothouse_instance_gpu_busy"] == 0.5
    assert found["pilothouse_instance_gpu_memory_bytes"] == 2**30
