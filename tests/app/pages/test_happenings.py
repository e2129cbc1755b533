"""Events as one list, rollouts as timelines of their instances, cold starts by day, metrics in words."""

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import InstanceEvent, Rollout
from deployments.services import cold_starts
from deployments.views.timelines import WIDTH, timeline
from monitoring.models import Alert
from tests.app import factories
from tests.app.pages.conftest import Site

NOW = timezone.now().replace(microsecond=0)


def second(number: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=number)


def event(site: Site, reason: str, at: dt.datetime, kind: str = "Normal", instance: object = None) -> InstanceEvent:
    return InstanceEvent.objects.create(
        instance=instance or site.instance,
        kind=kind,
        reason=reason,
        description=f"{reason} happened at {at:%H:%M:%S}",
        time_created=at,
        time_last_seen=at,
    )


def shown(client: Client, url: str, **query: str) -> list[tuple[str, int]]:
    return [(one.title, one.times) for one in client.get(url, query).context["happenings"]]


def test_equal_events_of_one_time_are_one_entry(site: Site, editor: Client):
    other = factories.instance(site.second)
    event(site, "BackOff", second(-60), "Warning")
    event(site, "BackOff", second(-30), "Warning", other)
    event(site, "BackOff", second(-7200), "Warning")
    event(site, "Started", second(-45))
    url = site.url("version-events")
    assert shown(editor, url, kind="instance") == [("BackOff", 2), ("Started", 1), ("BackOff", 1)]
    assert shown(editor, url, kind="warning") == [("BackOff", 2), ("BackOff", 1)]
    assert shown(editor, url, kind="instance", range="1h") == [("BackOff", 2), ("Started", 1)]
    page = editor.get(url).content.decode()
    assert site.instance.pod_name in page
    assert other.pod_name in page


def test_rollouts_and_alerts_stand_among_them(site: Site, editor: Client):
    Alert.objects.create(
        rule=site.rule, version=site.version, state="firing", changes=1, message="7 % of requests fail", since=NOW
    )
    titles = [title for title, _ in shown(editor, site.project_url("project-events"))]
    assert "Alert errors fires" in titles
    assert f"Rollout of revision {site.second.number}: complete" in titles
    assert "7 % of requests fail" in editor.get(site.project_url("project-events")).content.decode()


def test_events_of_other_projects_are_not_told(site: Site, editor: Client):
    other = factories.instance(factories.revision(factories.version(factories.deployment(factories.project()))))
    event(site, "Elsewhere", NOW, instance=other)
    assert "Elsewhere" not in editor.get(site.project_url("project-events")).content.decode()


@pytest.mark.parametrize("route", ["version-events", "version-rollouts", "version-metrics", "version-log-instances"])
def test_the_number_of_queries_does_not_grow(site: Site, editor: Client, route: str):
    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            assert editor.get(site.url(route)).status_code == 200
        return len(found)

    event(site, "Started", NOW)
    before = queries()
    for number in range(3):
        instance = factories.instance(site.second)
        event(site, f"Reason{number}", NOW, instance=instance)
        factories.rollout(factories.revision(site.version), state=Rollout.State.FAILED)
    assert queries() == before


def test_a_start_is_told_in_its_phases(site: Site):
    rollout = factories.rollout(site.second, state=Rollout.State.COMPLETE)
    rollout.queued_at, rollout.environment_at, rollout.finished_at = second(0), second(4), second(15)
    new = factories.instance(
        site.second, time_created=second(4), scheduled_at=second(5), package_at=second(7), started_at=second(8),
        loading_at=second(9), ready_at=second(12),
    )  # fmt: skip
    old = factories.instance(site.first, time_created=second(-99), ready_at=second(-90), deleted_at=second(14))
    early = factories.instance(site.first, time_created=second(-99), deleted_at=second(-50))
    found = timeline(rollout, [new, old, early], second(1), second(20))
    assert [(lane.instance, lane.new) for lane in found.lanes] == [(old, False), (new, True)]
    phases = [(phase.key, phase.seconds, phase.over) for phase in found.lanes[1].phases]
    assert phases == [
        ("queued", 1, True), ("environment", 3, True), ("scheduling", 1, True), ("package", 3, True),
        ("init", 1, True), ("loading", 3, True), ("ready", 8, False),
    ]  # fmt: skip
    assert found.lanes[1].took == 8
    assert sum(phase.width for phase in found.lanes[1].phases) == pytest.approx(WIDTH)
    assert [phase.key for phase in found.lanes[0].phases] == ["ready"]
    assert found.lanes[0].phases[0].width == pytest.approx(WIDTH * 14 / 20)


def test_a_start_under_way_ends_in_the_phase_it_is_in(site: Site):
    rollout = factories.rollout(site.second, state=Rollout.State.COMPLETE)
    rollout.queued_at, rollout.environment_at = second(0), second(0)
    pending = factories.instance(site.second, time_created=second(0), scheduled_at=None, ready_at=None)
    (lane,) = timeline(rollout, [pending], None, second(9)).lanes
    assert [(phase.key, phase.over) for phase in lane.phases] == [("scheduling", False)]
    assert lane.took is None


def test_what_was_not_stored_belongs_to_the_phase_that_follows(site: Site):
    rollout = factories.rollout(site.second, state=Rollout.State.COMPLETE)
    rollout.queued_at, rollout.environment_at = second(0), second(0)
    instance = factories.instance(
        site.second, time_created=second(0), scheduled_at=second(1), package_at=None, started_at=second(5),
        ready_at=second(6),
    )  # fmt: skip
    (lane,) = timeline(rollout, [instance], None, second(9)).lanes
    assert [(phase.key, phase.seconds) for phase in lane.phases] == [
        ("scheduling", 1), ("package", 4), ("loading", 1), ("ready", 3),
    ]  # fmt: skip


def test_cold_starts_are_told_by_day_without_restarted_instances(site: Site):
    site.instance.delete()
    yesterday = NOW.astimezone(dt.UTC).replace(hour=12, minute=0, second=0) - dt.timedelta(days=1)
    for took in (1, 2, 3, 40):
        factories.instance(site.second, time_created=yesterday, ready_at=yesterday + dt.timedelta(seconds=took))
    factories.instance(site.second, time_created=yesterday, ready_at=yesterday + dt.timedelta(hours=3), restarts=1)
    (day,) = cold_starts.by_day(site.version)
    assert (day.day, day.count, day.p50) == (yesterday.date(), 4, 2.5)
    assert day.p95 == pytest.approx(34.45)


def test_a_rollout_under_way_tells_its_deadline(site: Site, editor: Client):
    Rollout.objects.filter(pk=site.rollout.pk).update(
        state=Rollout.State.IN_PROGRESS, serving_at=None, finished_at=None, deadline_at=second(300)
    )
    assert "must be done" in editor.get(site.url("version-rollout", site.rollout.pk)).content.decode()
    fragment = editor.get(site.url("version-rollout", site.rollout.pk), headers={"HX-Request": "true"})
    assert 'id="timeline"' in fragment.content.decode()
    assert editor.get(site.url("version-rollout", site.deployment.pk)).status_code == 404
