"""Keeping lines in PostgreSQL: exactly once, cut by days, read in order, gone when their time is over."""

import datetime as dt
import threading

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from kube.logs import Line
from monitoring import keeping
from monitoring.keeping import Collected
from monitoring.logstore import StoredLine, postgres
from monitoring.logstore.base import Window
from monitoring.logstore.postgres import PAGE, PostgresStore, partitions, prepare_days
from monitoring.logstore.sources import remove_empty
from monitoring.models import LogLine, LogRetention, LogSource
from tests.app.monitoring.conftest import Fleet, nanoseconds, source

pytestmark = pytest.mark.django_db

NOW = timezone.now().replace(microsecond=0)
BASE = nanoseconds(NOW)


def collected(row: LogSource, *times: int, moves: bool = True) -> list[Collected]:
    """Lines at these nanoseconds after `BASE`, with their ordinals."""
    found = []
    for number, time in enumerate(times):
        ordinal = 0
        while ordinal < number and times[number - ordinal - 1] == time:
            ordinal += 1
        found.append(Collected(row.pk, Line(BASE + time, f"line at {time} no {ordinal}"), ordinal, moves))
    return found


def keep(row: LogSource, batch: list[Collected]) -> set[int]:
    return keeping.keep(PostgresStore(), {row.pk: row}, batch)


def kept(row: LogSource) -> list[tuple[int, int]]:
    lines = LogLine.objects.filter(source=row).order_by("time", "ordinal")
    return [(line.time - BASE, line.ordinal) for line in lines]


def test_lines_and_position_go_together(fleet: Fleet) -> None:
    row = source(fleet)
    assert keep(row, collected(row, 1, 5, 5, 5)) == set()
    assert kept(row) == [(1, 0), (5, 0), (5, 1), (5, 2)]
    row.refresh_from_db()
    assert (row.position_time, row.position_count) == (BASE + 5, 3)


def test_a_position_that_somebody_else_moved_keeps_nothing(fleet: Fleet) -> None:
    row, other = source(fleet), source(fleet)
    LogSource.objects.filter(pk=row.pk).update(position_time=BASE + 99, position_count=1)
    batch = collected(row, 1, 2) + collected(other, 3)
    assert keeping.keep(PostgresStore(), {row.pk: row, other.pk: other}, batch) == {row.pk}
    assert kept(row) == []
    assert kept(other) == [(3, 0)]


def test_a_commit_whose_answer_was_lost_is_not_repeated(fleet: Fleet) -> None:
    row = source(fleet)
    as_before = LogSource.objects.get(pk=row.pk)
    keep(row, collected(row, 1, 2))
    assert keep(as_before, collected(as_before, 1, 2)) == set()
    assert kept(row) == [(1, 0), (2, 0)]
    assert (as_before.position_time, as_before.position_count) == (BASE + 2, 1)


def test_lines_that_are_there_already_are_not_repeated(fleet: Fleet) -> None:
    row = source(fleet)
    keep(row, collected(row, 10, 11))
    # The clock went back, so the log is read again from before lines that were kept.
    keep(row, collected(row, 9, 10, 11, 12))
    assert kept(row) == [(9, 0), (10, 0), (11, 0), (12, 0)]
    # What an earlier container left behind does not move the position.
    keep(row, collected(row, 7, 9, moves=False))
    assert kept(row) == [(7, 0), (9, 0), (10, 0), (11, 0), (12, 0)]
    assert row.position_time == BASE + 12


def test_a_failing_store_moves_no_position(fleet: Fleet) -> None:
    class Broken(PostgresStore):
        def append(self, sources: object, lines: object) -> None:
            raise RuntimeError("full")

    row = source(fleet)
    with pytest.raises(RuntimeError), transaction.atomic():
        keeping.keep(Broken(), {row.pk: row}, collected(row, 1))
    row.refresh_from_db()
    assert row.position_time == 0


@pytest.mark.parametrize("text", ["", "a\tb\\n\\.", "x\r\ny", "\u2028 é 🦀 \x1b[31m", "\\.", "\\N"])
def test_any_text_comes_back_as_it_was(fleet: Fleet, text: str) -> None:
    row = source(fleet)
    PostgresStore().append({row.pk: row}, [StoredLine(row.pk, BASE, 0, text, "info", "id\\1")])
    (line,) = PostgresStore().read({row.pk: row}, Window())
    assert (line.text, line.level, line.request_id) == (text, "info", "id\\1")


def test_reading_is_ordered_over_sources_and_pages(fleet: Fleet) -> None:
    rows = [source(fleet), source(fleet)]
    sources = {row.pk: row for row in rows}
    count = PAGE + 10
    lines = [
        StoredLine(row.pk, BASE + number * 2 + place, 0, f"{number}")
        for place, row in enumerate(rows)
        for number in range(count)
    ]
    PostgresStore().append(sources, lines)
    forward = [line.time - BASE for line in PostgresStore().read(sources, Window(forward=True))]
    assert forward == list(range(2 * count))
    assert [line.time - BASE for line in PostgresStore().read(sources, Window())] == forward[::-1]
    part = Window(begin=BASE + 3, stop=BASE + 7, forward=True)
    assert [line.time - BASE for line in PostgresStore().read(sources, part)] == [3, 4, 5, 6]


def test_reading_leaves_out_nothing_where_sources_are_unequal(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "PAGE", 6)
    monkeypatch.setattr(postgres, "FEWEST", 2)
    rows = [source(fleet) for _ in range(3)]
    times = ([1, 1, 1, 1, 1, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], [5, 5, 9])
    lines = [
        StoredLine(row.pk, BASE + time, ordinal, "x")
        for row, own in zip(rows, times, strict=True)
        for ordinal, time in enumerate(own)
    ]
    sources = {row.pk: row for row in rows}
    PostgresStore().append(sources, lines)
    expected = sorted(lines, key=lambda line: (line.time, line.source, line.ordinal))
    assert list(PostgresStore().read(sources, Window(forward=True))) == expected
    assert list(PostgresStore().read(sources, Window())) == expected[::-1]


def test_the_store_looks_for_texts_and_requests_itself(fleet: Fleet) -> None:
    row = source(fleet)
    texts = ["a 100% match", "a 100 match", "other"]
    PostgresStore().append(
        {row.pk: row}, [StoredLine(row.pk, BASE + n, 0, text, "", f"r{n}") for n, text in enumerate(texts)]
    )
    found = PostgresStore().read({row.pk: row}, Window(needles=("100%", "match")))
    assert [line.text for line in found] == ["a 100% match"]
    assert [line.text for line in PostgresStore().read({row.pk: row}, Window(request_id="r2"))] == ["other"]


def test_a_day_gets_its_partition_with_what_was_written_before(fleet: Fleet) -> None:
    row = source(fleet)
    keep(row, collected(row, 1, 2))
    prepare_days(NOW)
    prepare_days(NOW)
    today = f"monitoring_logline_{NOW:%Y%m%d}"
    assert today in partitions()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM monitoring_logline")
        assert {name for (name,) in cursor.fetchall()} == {today}
    keep(row, collected(row, 2, 3))
    assert kept(row) == [(1, 0), (2, 0), (3, 0)]


def test_lines_go_when_their_projects_time_is_over(fleet: Fleet, settings: Settings) -> None:
    settings.PILOTHOUSE_LOG_RETENTION_DAYS = 10
    store, row = PostgresStore(), source(fleet)
    day = 86400 * 10**9

    def put() -> None:
        store.append(
            {row.pk: row}, [StoredLine(row.pk, BASE - age * day, 0, f"{age}") for age in (0, 1, 5, 9, 20, 400)]
        )

    def ages() -> list[str]:
        return [line.text for line in store.read({row.pk: row}, Window())]

    put()
    store.expire(NOW)
    assert ages() == ["0", "1", "5", "9"]
    LogRetention.objects.create(project=fleet.project, days=3)
    store.expire(NOW)
    assert ages() == ["0", "1"]
    LogRetention.objects.update(days=30)
    put()
    store.expire(NOW)
    assert ages() == ["0", "1", "5", "9", "20"]
    # With its source, out of reach and then gone.
    LogSource.objects.all().delete()
    store.expire(NOW)
    assert not LogLine.objects.exists()


def test_old_days_are_dropped_whole(fleet: Fleet) -> None:
    prepare_days(NOW - dt.timedelta(days=40), ahead=0)
    old = f"monitoring_logline_{NOW - dt.timedelta(days=40):%Y%m%d}"
    assert old in partitions()
    PostgresStore().prepare(NOW)
    PostgresStore().expire(NOW)
    assert old not in partitions()
    assert f"monitoring_logline_{NOW:%Y%m%d}" in partitions()


def test_instances_are_forgotten_with_their_last_line(fleet: Fleet) -> None:
    LogRetention.objects.create(project=fleet.project, days=3)
    old = source(fleet, ended_at=NOW - dt.timedelta(days=4))
    fresh, running = source(fleet, ended_at=NOW - dt.timedelta(days=2)), source(fleet)
    assert remove_empty(NOW) == 1
    assert set(LogSource.objects.values_list("pk", flat=True)) == {fresh.pk, running.pk}
    assert old.pk not in LogSource.objects.values_list("pk", flat=True)


@pytest.mark.django_db(transaction=True)
def test_only_one_collector_works_at_a_time() -> None:
    assert keeping.lock()
    assert keeping.lock()
    taken = []

    def other() -> None:
        try:
            keeping._locked_on = None
            taken.append(keeping.lock())
        finally:
            connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert taken == [False]
    connection.close()  # as when it dies: the lock goes with the connection
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert taken == [False, True]
