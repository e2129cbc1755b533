"""What Prometheus reads of the platform, and who may."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from monitoring.metrics.exposition import samples
from monitoring.models import InstanceCounters
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
    assert {name for name, _ in found} <= set(re.findall(r"# TYPE (\w+) ", text))


def test_the_dashboard_asks_for_metrics_that_there_are(client: Client, fleet: Fleet) -> None:
    told = set(re.findall(r"# TYPE (\w+) ", client.get("/metrics").content.decode()))
    dashboard = json.loads((Path(__file__).parents[3] / "docs" / "grafana" / "pilothouse.json").read_text())
    asked = set(re.findall(r"\bpilothouse_\w+", json.dumps([panel["targets"] for panel in dashboard["panels"]])))
    assert len(asked) > 10
    assert asked <= told
