"""Numbers of instances: read, counted once, rolled up, asked for."""

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from deployments.models import Instance
from kube.errors import ClusterUnreachable
from monitoring.metrics import query, samples, sampling, scraping, stored
from monitoring.metrics.cells import MOST_POINTS, Cell, Scope
from monitoring.metrics.exposition import Reading, read
from monitoring.metrics.histograms import BOUNDS, no_buckets, quantile
from monitoring.metrics.scraping import Usage
from monitoring.models import WHOLE_VERSION, InstanceCounters, MetricSample
from serving.metrics import SharedMetrics
from tests.app import factories
from tests.app.monitoring.conftest import Fleet
from tests.support.http import telling

NOW = dt.datetime(2026, 5, 1, 12, 0, 5, tzinfo=dt.UTC)
TEN = dt.timedelta(seconds=10)


def reading(requests: float, errors: float = 0, seconds: float = 0.02, in_flight: float = 0) -> Reading:
    """An instance all of whose requests took so long."""
    buckets = no_buckets()
    buckets[next((n for n, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] = requests
    return Reading(requests, errors, requests * seconds, buckets, in_flight)


def store(fleet: Fleet, found: Reading | None, at: dt.datetime, cpu: float = 0, memory: float = 0) -> None:
    instance = Instance.objects.select_related("version__deployment__project", "version__instance_type").get(
        pk=fleet.instance.pk
    )
    usage = {(fleet.project.namespace, instance.pod_name): Usage(cpu, memory)}
    sampling.store([instance], {instance.pk: found} if found is not None else {}, usage, at)


def total(fleet: Fleet, minutes: float = 5, now: dt.datetime = NOW) -> Cell:
    return query.total(Scope((fleet.version.pk,)), now - dt.timedelta(minutes=minutes), now + TEN, now + TEN)


def test_the_model_servers_own_text_is_read() -> None:
    shared = SharedMetrics(2)
    part = shared.part(0)
    for code, seconds in ((200, 0.02), (200, 0.02), (500, 40), (422, 0.0005)):
        part.began()
        part.ended("request", code, seconds)
    part.began()
    found = read(shared.text({"deployment": 'a "b" \\ c'}))
    assert found is not None
    assert (found.requests, found.errors, found.in_flight) == (4, 1, 1)
    assert found.duration == pytest.approx(40.0405)
    assert (found.buckets[0], found.buckets[4], found.buckets[-1]) == (1, 2, 1)
    assert sum(found.buckets) == 4


@pytest.mark.parametrize("text", ["", "<html>", "vllm:requests_total 3\n", "x{ NaN\n\x00", "# HELP pilothouse_x\n"])
def test_the_text_of_another_server_says_nothing(text: str) -> None:
    assert read(text) is None


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    read(text)
    read("pilothouse_requests_in_flight 1\n" + text)


def test_quantiles_lie_within_their_bucket() -> None:
    assert quantile(no_buckets(), 0.5) is None
    found = reading(100, seconds=0.02).buckets
    assert quantile(found, 0.5) == pytest.approx(0.0175)
    assert quantile(found, 1.0) == pytest.approx(0.025)
    assert quantile(reading(1, seconds=99).buckets, 0.99) == 30.0


@pytest.mark.django_db
class TestSampling:
    def test_counters_become_counts(self, fleet: Fleet) -> None:
        store(fleet, reading(10, 1), NOW - TEN)
        store(fleet, reading(30, 2), NOW, cpu=0.5, memory=1e6)
        cell = total(fleet)
        assert (cell.counts["requests"], cell.counts["errors"]) == (pytest.approx(30), pytest.approx(2))
        assert sum(cell.buckets) == pytest.approx(30)
        assert cell.peaks["memory_peak"] == 1e6
        latest = MetricSample.objects.filter(instance_id=fleet.instance.pk).latest("at")
        assert (latest.requests, latest.cpu, latest.samples) == (20, 0.5, 1)

    def test_a_counter_that_went_back_begins_anew(self, fleet: Fleet) -> None:
        store(fleet, reading(100), NOW - TEN)
        store(fleet, reading(7), NOW)
        assert total(fleet).counts["requests"] == pytest.approx(107)

    def test_a_new_process_counts_from_zero_however_far_it_is(self, fleet: Fleet) -> None:
        first, second = reading(5), reading(20)
        first.process_start, second.process_start = 1000.0, 2000.0
        store(fleet, first, NOW - TEN)
        store(fleet, second, NOW)
        assert total(fleet).counts["requests"] == pytest.approx(25)
        again = reading(21)
        again.process_start = 2000.0
        store(fleet, again, NOW + TEN)
        assert total(fleet).counts["requests"] == pytest.approx(26)

    def test_a_clock_that_was_set_back_loses_and_repeats_nothing(self, fleet: Fleet) -> None:
        store(fleet, reading(10), NOW)
        store(fleet, reading(20), NOW + dt.timedelta(hours=2))  # it had gone ahead
        store(fleet, reading(30), NOW + TEN)
        store(fleet, reading(40), NOW + 2 * TEN)
        near = total(fleet, now=NOW + 2 * TEN)
        assert near.counts["requests"] == pytest.approx(30)
        at = MetricSample.objects.filter(instance_id=WHOLE_VERSION, at__lte=NOW + 3 * TEN).values_list("at", flat=True)
        assert [(moment - NOW).total_seconds() for moment in at.order_by("at")] == [-5, 5, 15]
        assert sum(MetricSample.objects.values_list("requests", flat=True)) == pytest.approx(40)

    def test_what_is_measured_of_an_instance_is_kept_with_it(self, fleet: Fleet) -> None:
        started = NOW - dt.timedelta(seconds=30)
        Instance.objects.update(started_at=started, ready_at=None)
        loading = reading(0)
        loading.loading_at = (started + dt.timedelta(seconds=4)).timestamp()
        store(fleet, loading, NOW, memory=5e8)
        row = Instance.objects.get()
        assert (row.loading_at, row.memory_peak) == (started + dt.timedelta(seconds=4), 500_000_000)
        # A restarted container loads anew, and a lower reading is no peak.
        Instance.objects.update(restarts=1)
        loading.loading_at += 100
        store(fleet, loading, NOW + TEN, memory=4e8)
        same = Instance.objects.get()
        assert (same.loading_at, same.memory_peak, same.gpu_busy_at) == (row.loading_at, 500_000_000, None)

    def test_the_same_reading_twice_counts_once(self, fleet: Fleet) -> None:
        store(fleet, reading(5), NOW - TEN)
        store(fleet, reading(5), NOW - TEN)
        store(fleet, reading(5), NOW)
        assert total(fleet).counts["requests"] == pytest.approx(5)

    def test_what_happened_while_nobody_read_is_spread_over_the_time(self, fleet: Fleet) -> None:
        store(fleet, reading(0), NOW - dt.timedelta(minutes=10))
        store(fleet, reading(600), NOW)
        counts = MetricSample.objects.filter(instance_id=fleet.instance.pk, requests__gt=0)
        assert counts.count() == 60
        assert {row.requests for row in counts} == {10}

    def test_a_readings_time_snaps_to_its_cell(self, fleet: Fleet) -> None:
        for late in (0, 10.9, 19.4, 30.2):
            store(fleet, reading(1), NOW + dt.timedelta(seconds=late))
        at = MetricSample.objects.filter(instance_id=WHOLE_VERSION).order_by("at").values_list("at", flat=True)
        assert [(moment - NOW).total_seconds() for moment in at] == [-5, 5, 15, 25]

    def test_restarts_and_the_cold_start_count_once(self, fleet: Fleet) -> None:
        created = NOW - dt.timedelta(seconds=42)
        Instance.objects.update(restarts=2, time_created=created, ready_at=NOW - dt.timedelta(seconds=2))
        store(fleet, reading(0), NOW - TEN)
        Instance.objects.update(restarts=3)
        store(fleet, None, NOW)
        cell = total(fleet)
        assert cell.counts["restarts"] == 3
        assert cell.values()["cold_start_seconds"] == 40
        assert cell.values()["cold_starts"] == 1

    def test_an_old_start_is_not_told_as_a_new_one(self, fleet: Fleet) -> None:
        Instance.objects.update(ready_at=NOW - dt.timedelta(hours=3))
        store(fleet, reading(0), NOW)
        assert total(fleet).counts["cold_starts"] == 0

    def test_a_waiting_queue_is_seen_without_any_instance(self, fleet: Fleet) -> None:
        request = factories.request(fleet.version, batch=True)
        type(request).objects.update(time_created=NOW - dt.timedelta(seconds=90))
        sampling.store([], {}, {}, NOW)
        cell = total(fleet)
        assert (cell.levels["queue"], cell.peaks["queue_age"], cell.levels["instances"]) == (1, 90, 0)

    def test_levels_add_up_over_instances_and_versions(self, fleet: Fleet) -> None:
        second = factories.instance(fleet.revision)
        other = factories.instance(factories.revision(factories.version(fleet.version.deployment, "v2")))
        rows = Instance.objects.select_related("version__deployment__project", "version__instance_type")
        for at in (NOW - TEN, NOW):
            found = {row.pk: reading(0, in_flight=2) for row in (fleet.instance, second, other)}
            sampling.store(list(rows.all()), found, {}, at)
        scope = Scope((fleet.version.pk, other.version_id))
        whole = query.total(scope, NOW - dt.timedelta(minutes=1), NOW + TEN, NOW + TEN)
        assert (whole.levels["instances"], whole.levels["in_flight"]) == (3, 6)
        one = query.total(Scope((fleet.version.pk,), second.pk), NOW - dt.timedelta(minutes=1), NOW + TEN, NOW + TEN)
        assert one.levels["in_flight"] == 2

    def test_another_collector_at_work_leaves_it_nothing_to_do(self, fleet: Fleet) -> None:
        from django.db import connections

        other = connections.create_connection("default")
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", [sampling.LOCK])
            assert sampling.collect() == 0
        finally:
            other.close()


@pytest.mark.django_db
class TestRollingUp:
    def test_minutes_and_hours_hold_the_same_as_the_samples(self, fleet: Fleet) -> None:
        for number in range(13):
            store(fleet, reading(number * 6, number), NOW - TEN * (12 - number), cpu=1)
        for _ in range(2):  # repeating changes nothing
            samples.roll_up(NOW)
        for resolution in (samples.MINUTE, samples.HOUR):
            rows = MetricSample.objects.filter(resolution=resolution, instance_id=fleet.instance.pk)
            assert sum(row.requests for row in rows) == pytest.approx(72)
            assert sum(row.errors for row in rows) == pytest.approx(12)
            assert sum(sum(row.buckets) for row in rows) == pytest.approx(72)
            assert sum(row.cpu for row in rows) == sum(row.samples for row in rows) == 13

    def test_each_resolution_is_forgotten_at_its_time(self, fleet: Fleet) -> None:
        ages = {samples.RAW: (1, 2), samples.MINUTE: (2, 50), samples.HOUR: (50, 32 * 24)}
        for resolution, hours in ages.items():
            for age in hours:
                MetricSample.objects.create(
                    resolution=resolution, at=NOW - dt.timedelta(hours=age), project=fleet.project,
                    deployment_id=fleet.version.deployment_id, version_id=fleet.version.pk,
                )  # fmt: skip
        assert samples.forget(NOW) == 3
        left = MetricSample.objects.values_list("resolution", "at")
        assert {(r, (NOW - at).total_seconds() / 3600) for r, at in left} == {(10, 1), (60, 2), (3600, 50)}


@pytest.mark.django_db
class TestSeries:
    def test_columns_have_gaps_where_nothing_was_read(self, fleet: Fleet) -> None:
        store(fleet, reading(0), NOW - dt.timedelta(seconds=60))
        store(fleet, reading(20, 5), NOW - dt.timedelta(seconds=50))
        InstanceCounters.objects.update(read_at=NOW - TEN)
        store(fleet, reading(50, 5), NOW)
        found = query.series(Scope((fleet.version.pk,)), NOW - dt.timedelta(minutes=5), NOW + TEN, NOW + TEN)
        assert found["step"] == 10
        assert {len(column) for column in found["series"].values()} == {len(found["times"])}
        by_time = dict(zip(found["times"], found["series"]["requests"], strict=True))
        base = int(NOW.timestamp()) - 5
        assert (by_time[base - 50], by_time[base - 40], by_time[base]) == (2, None, 3)
        rates = dict(zip(found["times"], found["series"]["error_rate"], strict=True))
        assert (rates[base - 50], rates[base]) == (0.25, 0)

    @pytest.mark.parametrize(
        ("span", "expected"),
        [
            (dt.timedelta(minutes=5), (10, 10)),
            (dt.timedelta(hours=1), (10, 10)),
            (dt.timedelta(hours=6), (60, 60)),
            (dt.timedelta(days=1), (60, 300)),
            (dt.timedelta(days=7), (3600, 3600)),
            (dt.timedelta(days=30), (3600, 7200)),
        ],
    )
    def test_the_span_chooses_resolution_and_step(self, span: dt.timedelta, expected: tuple[int, int]) -> None:
        resolution, step = stored.resolution_for(NOW - span, NOW, NOW)
        assert (resolution, step) == expected
        assert span.total_seconds() / step <= MOST_POINTS

    def test_history_stays_when_everything_is_renamed(self, fleet: Fleet, client: Client) -> None:
        now = timezone.now()
        store(fleet, reading(0), now - 2 * TEN)
        store(fleet, reading(20), now - TEN)
        factories.rollout(fleet.revision, state="complete", serving_at=now - TEN)
        client.force_login(factories.superuser())
        path = f"/api/v1/projects/{fleet.project.name}/deployments"
        for url, body in (
            (f"{path}/churn/versions/v1", {"version": "v9"}),
            (f"{path}/churn", {"name": "retention"}),
            (f"/api/v1/projects/{fleet.project.name}", {"name": "renamed-project"}),
        ):
            answer = client.patch(url, body, content_type="application/json")
            assert answer.status_code == 200, answer.content
        store(fleet, reading(30), now)
        base = "/api/v1/projects/renamed-project"
        for url in ("/deployments/retention/metrics", "/deployments/retention/versions/v9/metrics"):
            found = client.get(f"{base}{url}?range=15m").json()
            total = sum(rate or 0 for rate in found["series"]["requests"]) * found["step"]
            assert total == pytest.approx(30, rel=0.4)  # of the cell under way the rate is of the time so far
            assert {marker["version"] for marker in found["markers"]} == {"v9"}
        samples.roll_up(now)
        data = client.get(f"{base}/time-series/data?metric=deployments.requests").json()
        assert sum(point["value"] for point in data["data_points"]) > 0

    def test_rollouts_are_marked(self, fleet: Fleet) -> None:
        rollout = factories.rollout(fleet.revision, state="complete", serving_at=NOW)
        type(rollout).objects.update(queued_at=NOW - dt.timedelta(minutes=1))
        found = query.series(Scope((fleet.version.pk,)), NOW - dt.timedelta(minutes=5), NOW, NOW)
        (marker,) = found["markers"]
        assert (marker["time"], marker["revision"], marker["state"]) == (int(NOW.timestamp()), 1, "complete")
        later = query.series(Scope((fleet.version.pk,)), NOW - dt.timedelta(seconds=10), NOW - TEN / 2, NOW)
        assert later["markers"] == []


@pytest.fixture
def pod() -> Iterator[str]:
    """A pod's ``/metrics``; gives its port."""
    with telling(lambda: SharedMetrics(1).text({})) as address:
        yield address.rpartition(":")[2]


async def test_instances_that_do_not_answer_are_left_out(
    pod: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise ClusterUnreachable("away")

    monkeypatch.setattr(scraping.clusters, "current", away)
    settings.PILOTHOUSE_ROUTE = "pods"
    good, bad = uuid.uuid4(), uuid.uuid4()
    found = await scraping.scrape(
        [
            scraping.Endpoint(good, "n", "good", "127.0.0.1", int(pod)),
            scraping.Endpoint(bad, "n", "bad", "127.0.0.1", 1),
        ]
    )
    assert set(found) == {good}
    assert (found[good].requests, found[good].process_start > 0) == (0, True)


def test_usage_is_summed_over_containers() -> None:
    class Here:
        def call(self, method: str, path: str, **_: Any) -> Any:
            containers = [{"usage": {"cpu": "250m", "memory": "1Mi"}}, {"usage": {"cpu": "1000000n", "memory": "1Ki"}}]
            return {"items": [{"metadata": {"namespace": "n", "name": "p"}, "containers": containers}]}

    class Without:
        def call(self, *_: Any, **__: Any) -> Any:
            raise ClusterUnreachable("503")

    assert scraping.usage(Here()) == {("n", "p"): Usage(pytest.approx(0.251), 2**20 + 2**10)}  # type: ignore[arg-type]
    assert scraping.usage(Without()) == {}  # type: ignore[arg-type]
