"""Numbers over time from a real Prometheus, which reads a model server's text, an exporter's and the platform's own."""

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.errors import Unavailable
from deployments.models import Instance
from monitoring.metrics import query, sampling, source
from monitoring.metrics.cells import Cell, Scope
from monitoring.metrics.gpus import GpuUsage
from monitoring.metrics.prometheus import PrometheusSource, SourceUnavailable
from monitoring.metrics.scraping import Usage
from monitoring.models import MetricSample
from tests.app import factories
from tests.app.monitoring.conftest import Fleet
from tests.app.monitoring.place import Place
from tests.support import prometheus
from tests.support.http import QuietHandler, Server
from tests.support.stack import eventually


def test_what_pods_exporters_and_the_platform_tell_comes_together(place: Place, fleet: Fleet) -> None:
    version, instance = fleet.version, fleet.instance
    place.answer(40)
    place.answer(10, code=500, seconds=0.2)
    place.part.began()
    whole = eventually(lambda: _all_of(place, 50), "50 requests")
    assert whole.counts["errors"] == pytest.approx(10, rel=0.2)
    assert sum(whole.buckets) == pytest.approx(whole.counts["requests"], rel=0.01)
    values = whole.values()
    assert values["error_rate"] == pytest.approx(0.2, rel=0.1)
    assert values["p50"] == pytest.approx(0.0175, abs=0.008)
    assert values["p99"] is not None
    assert 0.1 < values["p99"] <= 0.25
    # Two GPUs at 80 and 40 per cent; the third is nobody's.
    eventually(lambda: place.total(minutes=0.2).levels.get("gpu_devices") == 2, "the exporter's readings")
    values = place.total(minutes=0.2).values()
    assert (values["gpu_use"], values["gpu_memory"]) == (pytest.approx(0.6), pytest.approx(3 * 2**30))
    measured = place.source.gpu_usage()[fleet.project.namespace, instance.pod_name]
    assert measured == GpuUsage(2, pytest.approx(1.2), 3 * 2**30)
    eventually(lambda: place.total(minutes=0.1).levels.get("in_flight") == 1, "one request under way")

    # Of one instance; of another nothing.
    eventually(lambda: _all_of(place, 50, Scope((version.pk,), instance.pk)), "50 requests of the instance")
    assert place.total(Scope((version.pk,), instance.pk), minutes=0.2).levels["gpu_devices"] == 2
    other = place.total(Scope((version.pk,), uuid.uuid4()))
    assert (other.counts["requests"], other.levels) == (0, {})


def test_restarts_cold_starts_queue_and_use_come_from_the_platform(place: Place, fleet: Fleet) -> None:
    Instance.objects.update(ready_at=timezone.now(), time_created=timezone.now() - dt.timedelta(seconds=40))
    Instance.objects.update(restarts=2)
    row = Instance.objects.select_related("version__deployment__project", "version__instance_type").get()
    usage = {(fleet.project.namespace, fleet.instance.pod_name): Usage(0.75, 5e8)}
    request = factories.request(fleet.version, batch=True)
    type(request).objects.update(time_created=timezone.now() - dt.timedelta(seconds=90))
    sampling.store([row], {}, usage, timezone.now())

    def told() -> bool:
        values = place.total().values()
        now = place.total(minutes=0.2).values()
        counted = all(values[name] for name in ("restarts", "cold_starts", "queue_age"))
        return counted and bool(now["queue"]) and now["cpu"] == pytest.approx(0.75)

    eventually(told, "the platform's numbers")
    # What grew is extrapolated to the edges of what was read: the more readings, the nearer.
    for name, count in (("restarts", 2), ("cold_starts", 1)):
        eventually(lambda n=name, c=count: place.total().values()[n] == pytest.approx(c, rel=0.2), f"{count} {name}")
    values = place.total().values()
    assert values["cold_start_seconds"] == pytest.approx(40, rel=0.05)
    assert values["cold_start_p95"] is not None
    assert 32 < values["cold_start_p95"] <= 48
    assert values["queue_age"] >= 90
    assert values["memory_peak"] == pytest.approx(5e8)


def test_the_cold_start_of_an_instance_counts_once(place: Place, fleet: Fleet) -> None:
    version, now = fleet.version.pk, timezone.now()
    old = factories.instance(fleet.revision, ready_at=now - dt.timedelta(hours=2))
    new = factories.instance(fleet.revision, ready_at=None)
    began = dt.timedelta(seconds=40)
    one = Scope((version,), new.pk)
    assert place.total(one).counts["cold_starts"] == 0
    ready = timezone.now()
    Instance.objects.filter(pk=new.pk).update(time_created=ready - began, ready_at=ready)
    eventually(lambda: place.total(one).counts["cold_starts"], "the start of the instance")
    values = place.total(one).values()
    assert (values["cold_starts"], values["cold_start_seconds"]) == (1, 40)
    assert 32 < (values["cold_start_p95"] or 0) <= 48

    # Once it lies back, neither what is told later nor another cell of a chart has it again.
    eventually(lambda: not place.total(one, minutes=0.15).counts["cold_starts"], "time after the start")
    for step in (10, 60):
        now = timezone.now()
        _, cells = place.source.cells(one, now - dt.timedelta(minutes=5), now, now, step)
        starts = [cell for cell in cells if cell.counts["cold_starts"]]
        assert [(cell.counts["cold_starts"], sum(cell.start_buckets)) for cell in starts] == [(1, 1)]
        assert ready.timestamp() - step < starts[0].at < now.timestamp()

    # What had long been ready when Prometheus was told of it did not start then.
    other = Scope((version,), old.pk)
    told = f'pilothouse_instance_cold_start_seconds{{instance_id="{old.pk}"}}'
    eventually(lambda: prometheus.ask(place.url, told), "the reading of the other")
    assert place.total(other).counts["cold_starts"] == 0


def test_use_comes_from_the_kubelets_where_prometheus_reads_them(place: Place, fleet: Fleet) -> None:
    who = f'container="serving",namespace="{fleet.project.namespace}",pod="{fleet.instance.pod_name}"'
    pause = who.replace("serving", "")
    place.kubelet = (
        f"container_cpu_usage_seconds_total{{{who}}} {{cpu}}\ncontainer_cpu_usage_seconds_total{{{pause}}} {{cpu}}\n"
        f"container_memory_working_set_bytes{{{who}}} 3e8\ncontainer_memory_working_set_bytes{{{pause}}} 9e8\n"
    )

    def told() -> bool:
        values = place.total(minutes=0.2).values()
        return bool(values["cpu"]) and bool(values["memory"])

    eventually(told, "the kubelet's numbers")
    eventually(lambda: place.total(minutes=0.2).values()["cpu"] == pytest.approx(0.5, rel=0.2), "half a core")
    values = place.total(minutes=0.2).values()
    assert (values["memory"], values["memory_peak"]) == (pytest.approx(3e8), pytest.approx(3e8))


def test_charts_and_the_public_api_read_it(place: Place, fleet: Fleet, client: Client) -> None:
    place.answer(30)
    eventually(lambda: _all_of(place, 30), "30 requests")
    MetricSample.objects.all().delete()  # nothing of this is the platform's own

    def shown() -> dict[str, Any] | None:
        now = timezone.now()
        found = query.series(Scope((fleet.version.pk,)), now - dt.timedelta(minutes=5), now, now)
        return found if any(found["series"]["requests"]) else None

    found = eventually(shown, "a chart with requests")
    assert found["step"] == 10
    assert {len(column) for column in found["series"].values()} == {len(found["times"])}
    rates = [rate for rate in found["series"]["requests"] if rate is not None]
    assert 20 < sum(rates) * 10 < 130  # extrapolated, and what comes at the border of two cells is in both
    assert found["series"]["requests"][0] is None  # Prometheus was not there yet: a gap, not a zero
    client.force_login(factories.superuser())
    url = f"/api/v1/projects/{fleet.project.name}/time-series/data"
    answer = client.get(url, {"metric": "deployments.requests", "aggregation_period": 60})
    assert answer.status_code == 200, answer.content
    assert sum(point["value"] for point in answer.json()["data_points"]) > 0
    page = client.get(f"/projects/{fleet.project.name}/deployments/named/churn/versions/v1/metrics/")
    assert page.status_code == 200


def test_how_well_a_span_is_known(place: Place, fleet: Fleet) -> None:
    now = timezone.now()
    known = place.source.coverage(fleet.version.pk, now - dt.timedelta(minutes=10), now)
    assert known.latest is not None
    assert abs((now - known.latest).total_seconds()) < 30
    assert 0 < known.share < 0.8
    assert not known.held
    assert place.source.coverage(uuid.uuid4(), now - dt.timedelta(minutes=10), now).latest is None


def test_a_question_about_weeks_is_asked_in_parts(place: Place, fleet: Fleet) -> None:
    now = timezone.now()
    step, cells = place.source.cells(Scope((fleet.version.pk,)), now - dt.timedelta(days=10), now, now, step=60)
    assert step == 60
    assert cells
    assert cells[-1].at > now.timestamp() - 180


def test_rates_of_a_cell_under_way_are_of_the_time_so_far() -> None:
    began = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
    now = began + dt.timedelta(seconds=80)
    # One request a second: a window reaches one reading further back than its cell, and not beyond now.
    ends = [began.timestamp() + 60, began.timestamp() + 120]
    series = {"metric": {"name": "requests"}, "values": [[ends[0], "61"], [ends[1], "21"]]}

    class Handler(QuietHandler):
        def post(self) -> None:
            self.body()
            self.answer(200, json.dumps({"status": "success", "data": {"result": [series]}}).encode())

    with Server(Handler).running() as server:
        asked = PrometheusSource(server.url, interval=1)
        _, cells = asked.cells(Scope((uuid.uuid4(),)), began, now, now, step=60)
        asked.close()
    assert [(cell.seconds, cell.counts["requests"]) for cell in cells] == [(60, 60), (20, 20)]
    assert [cell.values()["requests"] for cell in cells] == [1, 1]


def _all_of(place: Place, count: int, scope: Scope | None = None) -> Cell | None:
    """Once the requests are these, give or take what Prometheus extrapolates while it has few readings."""
    whole = place.total(scope)
    return whole if whole.counts["requests"] == pytest.approx(count, rel=0.15) else None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b"overloaded", "answers 503: overloaded"),
        (400, b'{"status": "error", "error": "parse error"}', "answers 400: parse error"),
        (200, b"<html>", "answers 200: <html>"),
    ],
)
def test_trouble_is_told_with_the_answer_and_without_secrets(status: int, body: bytes, said: str) -> None:
    class Handler(QuietHandler):
        def post(self) -> None:
            self.body()
            self.answer(status, body)

    now = timezone.now()
    with Server(Handler).running() as server:
        asked = PrometheusSource(f"http://user:hunter2@{server.address}", token="hunter3")
        with pytest.raises(SourceUnavailable) as caught:
            asked.total(Scope((uuid.uuid4(),)), now - dt.timedelta(hours=1), now, now)
        asked.close()
    assert said in caught.value.message
    assert "hunter" not in caught.value.message


@pytest.mark.django_db
def test_without_it_the_api_says_so_and_the_page_stands(fleet: Fleet, client: Client, settings: Any) -> None:
    settings.PILOTHOUSE_PROMETHEUS_URL = "http://127.0.0.1:1"
    assert isinstance(source.current(), PrometheusSource)
    with pytest.raises(Unavailable, match=r"Prometheus at 127\.0\.0\.1:1 cannot be reached"):
        query.total(Scope((fleet.version.pk,)), timezone.now() - dt.timedelta(hours=1), timezone.now(), timezone.now())
    client.force_login(factories.superuser())
    answer = client.get(f"/api/v1/projects/{fleet.project.name}/deployments/churn/metrics")
    assert answer.status_code == 503
    assert "cannot be reached" in str(answer.json())
    page = client.get(f"/projects/{fleet.project.name}/deployments/named/churn/versions/v1/metrics/")
    assert page.status_code == 200
    assert "cannot be reached" in page.content.decode()
