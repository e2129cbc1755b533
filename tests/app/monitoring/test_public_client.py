"""Metrics, time series, webhooks and logs by the public `ubiops` client, unchanged."""

import contextlib
import datetime as dt
from collections.abc import Iterator

import pytest
import ubiops
from django.utils import timezone
from ubiops.exceptions import ApiException

from deployments.models import Instance
from monitoring.metrics import samples, sampling
from monitoring.metrics.exposition import Reading, read
from monitoring.metrics.gpus import GpuUsage
from monitoring.metrics.scraping import Usage
from monitoring.models import Delivery
from serving.metrics import ProcessMetrics, SharedMetrics
from tests.app import factories
from tests.app.api.test_public_client import client_of
from tests.app.monitoring.conftest import Fleet
from tests.app.monitoring.place import Place, answer
from tests.support.stack import StackError, eventually
from tests.support.web import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(transactional_db: None) -> Iterator[ubiops.CoreApi]:
    with serving() as address:
        client = client_of(address, factories.superuser())
        yield client
        client.api_client.close()


def test_metrics_and_time_series(api: ubiops.CoreApi, fleet: Fleet) -> None:
    project = fleet.project.name
    names = [metric.name for metric in api.metrics_list(project)]
    assert {"deployments.requests", "deployments.failed_requests", "deployments.instances"} <= set(names)
    assert all(not metric.custom for metric in api.metrics_list(project, custom=False))

    made = api.metrics_create(
        project, ubiops.MetricCreate(name="custom.drift", metric_type="gauge", unit="%", labels=["feature"])
    )
    assert (made.custom, made.metric_type, made.labels) == (True, "gauge", ["feature"])
    assert api.metrics_get(project, "custom.drift").id == made.id
    assert [metric.name for metric in api.metrics_list(project, custom=True)] == ["custom.drift"]
    assert api.metrics_update(project, "custom.drift", ubiops.MetricUpdate(description="d")).description == "d"
    renamed = api.metrics_update(project, "custom.drift", ubiops.MetricUpdate(name="custom.shift"))
    assert (renamed.name, renamed.id) == ("custom.shift", made.id)
    api.metrics_update(project, "custom.shift", ubiops.MetricUpdate(name="custom.drift"))

    minute = timezone.now().replace(second=0, microsecond=0) - dt.timedelta(minutes=10)
    points = [{"date": (minute + dt.timedelta(minutes=n)).isoformat(), "value": float(n)} for n in range(3)]
    body = ubiops.TimeSeriesDataCreate(metric="custom.drift", labels={"feature": "age"}, data=points)
    for _ in range(2):
        api.time_series_data_create(project, body)
    api.time_series_data_aggregate(
        project,
        ubiops.TimeSeriesDataCreate(
            metric="custom.drift", labels={"feature": "age"}, data=[{"date": minute.isoformat(), "value": 8.0}]
        ),
    )
    found = api.time_series_data_list(project, metric="custom.drift", labels="feature:age", aggregation_period=60)
    assert [point.value for point in found.data_points] == [4.0, 1.0, 2.0]
    assert (found.metric_type, found.unit, found.aggregation_period) == ("gauge", "%", 60)
    (series,) = api.time_series_search(project, metric="custom.drift", labels="feature:age")
    assert series.labels == {"feature": "age"}
    api.time_series_delete(project, series.id)
    assert api.time_series_search(project, metric="custom.drift") == []
    api.metrics_delete(project, "custom.drift")
    with pytest.raises(ApiException) as gone:
        api.metrics_get(project, "custom.drift")
    assert gone.value.status == 404


def test_the_platforms_own_metrics(api: ubiops.CoreApi, fleet: Fleet) -> None:
    project, version = fleet.project.name, fleet.version
    at = dt.datetime.fromtimestamp(timezone.now().timestamp() // 60 * 60 - 300, dt.UTC)
    samples.add(
        60,
        [
            samples.Sample(
                at, fleet.project.pk, version.deployment_id, version.pk, fleet.instance.pk, requests=120, errors=6
            )
        ],
    )
    labels = f"deployment_version_id:{version.pk}"
    found = api.time_series_data_list(
        project, metric="deployments.requests", labels=labels, aggregation_period=60, unit_period=60
    )
    assert [(point.start_date, point.value) for point in found.data_points] == [(at, 120.0)]
    failed = api.time_series_data_list(
        project, metric="deployments.failed_requests", labels=f"deployment_id:{version.deployment_id}"
    )
    assert failed.data_points[0].value * failed.aggregation_period == pytest.approx(6)
    series = api.time_series_search(project, metric="deployments.requests", labels=labels)
    assert [one.labels["deployment_version_id"] for one in series] == [str(version.pk)]
    with pytest.raises(ApiException) as refused:
        api.time_series_delete(project, series[0].id)
    assert refused.value.status == 403
    for bad in ({"labels": "colour:red"}, {"aggregation_period": 61}, {"unit_period": 2}, {"start_date": "yesterday"}):
        with pytest.raises(ApiException) as refused:
            api.time_series_data_list(project, metric="deployments.requests", **bad)
        assert refused.value.status == 400


# What each of the platform's own metrics may be after `busy`: in all for deltas, the highest of its minutes for gauges.
BUSY = {
    "requests": (20, 31),
    "failed_requests": (4, 6.5),
    "request_duration": (0.05, 0.062),
    "request_duration_p95": (0.1, 0.25),
    "instances": (0.9, 1.1),
    "express_queue_size": (0.01, 1.1),  # averages of what came in the course of the minute
    "batch_queue_size": (0.01, 1.1),
    "batch_queue_time": (90, 600),
    "memory_utilization": (4.9e8, 5.1e8),
    "cpu_utilization": (0.7, 0.8),
    "instance_start_time": (39, 41),
    "instance_start_time_p95": (32, 48),
    "gpu_utilization": (0.55, 0.65),
    "gpu_memory_utilization": (2.9 * 2**30, 3.1 * 2**30),
}


def work(part: ProcessMetrics) -> None:
    """25 requests of which 5 fail, and one that is under way."""
    answer(part, 20)
    answer(part, 5, code=500, seconds=0.2)
    part.began()


def busy(fleet: Fleet, *readings: Reading) -> None:
    """An instance that took 40 s to start, with two GPUs, and a batch request that waits."""
    request = factories.request(fleet.version, batch=True)
    type(request).objects.update(time_created=timezone.now() - dt.timedelta(seconds=90))
    now = timezone.now()
    Instance.objects.update(time_created=now - dt.timedelta(seconds=45), ready_at=now - dt.timedelta(seconds=5))
    row = Instance.objects.select_related("version__deployment__project", "version__instance_type").get()
    pod = (fleet.project.namespace, row.pod_name)
    for ago, reading in enumerate(reversed(readings)):
        at = now - dt.timedelta(seconds=10 * ago)
        sampling.store([row], {row.pk: reading}, {pod: Usage(0.75, 5e8)}, at, {pod: GpuUsage(2, 1.2, 3 * 2**30)})


def amounts(api: ubiops.CoreApi, fleet: Fleet) -> dict[str, float]:
    """Of each of the platform's own metrics what it tells of the version in the last minutes, without the prefix."""
    found = {}
    for metric in api.metrics_list(fleet.project.name, custom=False):
        told = api.time_series_data_list(
            fleet.project.name,
            metric=metric.name,
            labels=f"deployment_version_id:{fleet.version.pk}",
            start_date=(timezone.now() - dt.timedelta(minutes=10)).isoformat(),
            aggregation_period=60,
        )
        # The last minute is not over: its rate is that of the time so far.
        now = timezone.now()
        parts = [max((min(one.end_date, now) - one.start_date).total_seconds(), 10) for one in told.data_points]
        values = [one.value for one in told.data_points]
        if metric.metric_type == "delta":
            values = [sum(value * seconds for value, seconds in zip(values, parts, strict=True))]
        found[metric.name.removeprefix("deployments.")] = max(values, default=0.0)
    return found


def beside(found: dict[str, float]) -> dict[str, float]:
    """What is not as it may be."""
    assert set(found) == set(BUSY)
    return {name: value for name, value in found.items() if not BUSY[name][0] <= value <= BUSY[name][1]}


def test_every_metric_of_the_platform_from_its_own_samples(api: ubiops.CoreApi, fleet: Fleet) -> None:
    shared = SharedMetrics(1)
    part = shared.part(0)
    part.loading()
    before = read(shared.text({}))
    work(part)
    after = read(shared.text({}))
    assert before is not None
    assert after is not None
    busy(fleet, before, after)
    assert beside(amounts(api, fleet)) == {}


def test_every_metric_of_the_platform_from_a_prometheus(place: Place, fleet: Fleet) -> None:
    api = client_of(place.platform, factories.superuser())
    busy(fleet, Reading())
    work(place.part)
    left: dict[str, float] = {}

    def all_told() -> bool:
        left.clear()
        left.update(beside(amounts(api, fleet)))
        return not left

    with contextlib.suppress(StackError):
        eventually(all_told, "all metrics", pause=1)
    api.api_client.close()
    assert left == {}


def test_webhooks(api: ubiops.CoreApi, fleet: Fleet) -> None:
    project = fleet.project.name
    made = api.webhooks_create(
        project,
        ubiops.WebhookCreate(
            name="done",
            object_type="deployment",
            object_name="churn",
            version="v1",
            url="https://example.com/hook",
            event="deployment_request_completed",
            headers=[ubiops.WebhookHeader(key="Authorization", value="Bearer hush", protected=True)],
            labels={"team": "search"},
            timeout=5,
            retry=True,
        ),
    )
    assert (made.object_name, made.version, made.timeout, made.retry) == ("churn", "v1", 5, True)
    assert [(header.key, header.value) for header in made.headers] == [("Authorization", None)]
    assert [hook.name for hook in api.webhooks_list(project, labels="team:search", event=made.event)] == ["done"]
    assert api.webhooks_list(project, object_type="pipeline") == []
    assert api.webhooks_get(project, "done").id == made.id
    changed = api.webhooks_update(project, "done", ubiops.WebhookUpdate(name="finished", enabled=False))
    assert (changed.name, changed.enabled, changed.headers[0].key) == ("finished", False, "Authorization")
    api.webhooks_delete(project, "finished")
    assert api.webhooks_list(project) == []


def test_webhook_tests(api: ubiops.CoreApi, fleet: Fleet) -> None:
    project = fleet.project.name
    made = api.webhook_tests_create(
        project,
        ubiops.WebhookTestCreate(
            object_type="deployment", object_name="churn", url="https://example.com/", event="deployment_request_failed"
        ),
    )
    assert made.status == "pending"
    Delivery.objects.update(state="failed", error_message="No answer")
    found = api.webhook_tests_get(project, made.id)
    assert (found.status, found.error_message) == ("failed", "No answer")
