"""Lines in a PostgreSQL table that is partitioned by day: written with COPY, expired by dropping days."""

import datetime as dt
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from monitoring.logstore.base import StoredLine, Window
from monitoring.models import LogRetention, LogSource

TABLE = "monitoring_logline"
COLUMNS = 'source_id, "time", ordinal, level, request_id, "text"'
DAY = 86400 * 10**9
PAGE = 4000
FEWEST = 10
DELETE_BATCH = 20_000
_PARTITION = re.compile(rf"^{TABLE}_(\d{{8}})$")
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


class PostgresStore:
    def append(self, sources: Mapping[int, LogSource], lines: Sequence[StoredLine]) -> None:
        if not lines:
            return
        data = "".join(map(_row, lines))
        try:
            with transaction.atomic():
                _copy(TABLE, data)
        except IntegrityError:
            # Some are there already, as after a clock that went back: let the table's key tell which.
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS fresh_lines (LIKE {TABLE}) ON COMMIT DROP")
                cursor.execute("TRUNCATE fresh_lines")
            _copy("fresh_lines", data)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO {TABLE} ({COLUMNS}) SELECT {COLUMNS} FROM fresh_lines "  # noqa: S608
                    "ON CONFLICT DO NOTHING"
                )

    def read(self, sources: Mapping[int, LogSource], window: Window) -> Iterator[StoredLine]:
        after: StoredLine | None = None
        while True:
            page, last = _page(list(sources), window, after)
            yield from page
            if last:
                return
            after = page[-1]

    def prepare(self, now: dt.datetime) -> None:
        prepare_days(now)

    def expire(self, now: dt.datetime) -> int:
        days = dict(LogRetention.objects.values_list("project_id", "days"))
        longest = max([settings.PILOTHOUSE_LOG_RETENTION_DAYS, *days.values()])
        gone = _drop_days(now - dt.timedelta(days=longest))
        of_project = "source_id IN (SELECT id FROM monitoring_logsource WHERE project_id = %s)"
        for project, kept in days.items():
            gone += _delete(of_project, project, now, kept)
        if days:
            of_others = "source_id IN (SELECT id FROM monitoring_logsource WHERE NOT project_id = ANY(%s::uuid[]))"
            gone += _delete(of_others, list(days), now, settings.PILOTHOUSE_LOG_RETENTION_DAYS)
        orphans = "NOT EXISTS (SELECT 1 FROM monitoring_logsource s WHERE s.id = source_id)"
        return gone + _delete_where(orphans, [])


def prepare_days(now: dt.datetime, ahead: int = 2) -> None:
    """Partitions for today and the days to come. Lines of other days are in the default partition until then."""
    for offset in range(ahead + 1):
        _prepare_day((now + dt.timedelta(days=offset)).date())


def partitions() -> list[str]:
    """Names of the partitions of days, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = %s::regclass ORDER BY c.relname",
            [TABLE],
        )
        return [name for (name,) in cursor.fetchall() if _PARTITION.match(name)]


def _prepare_day(day: dt.date) -> None:
    name, start = f"{TABLE}_{day:%Y%m%d}", _start_of(day)
    if name in partitions():
        return
    with transaction.atomic(), connection.cursor() as cursor:
        # One at a time, and nobody may write into the default partition what the new one is for.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [TABLE])
        if name in partitions():
            return
        cursor.execute(f"LOCK TABLE {TABLE} IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING ALL)")
        cursor.execute(
            f'WITH moved AS (DELETE FROM {TABLE}_rest WHERE "time" >= %s AND "time" < %s RETURNING *) '  # noqa: S608
            f"INSERT INTO {name} SELECT * FROM moved",
            [start, start + DAY],
        )
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({start + DAY})")


def _start_of(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp()) * 10**9


def _drop_days(before: dt.datetime) -> int:
    dropped = 0
    for name in partitions():
        found = _PARTITION.match(name)
        assert found is not None
        day = dt.datetime.strptime(found[1], "%Y%m%d").date()
        if day < before.date():
            with connection.cursor() as cursor:
                cursor.execute(f"DROP TABLE {name}")
            dropped += 1
    cutoff = int(before.timestamp()) * 10**9
    with connection.cursor() as cursor:
        cursor.execute(f'DELETE FROM {TABLE}_rest WHERE "time" < %s', [cutoff])  # noqa: S608
    return dropped


def _delete(condition: str, value: Any, now: dt.datetime, days: int) -> int:
    cutoff = int((now - dt.timedelta(days=days)).timestamp()) * 10**9
    return _delete_where(f'"time" < %s AND {condition}', [cutoff, value])


def _delete_where(condition: str, values: list[Any]) -> int:
    """In batches, so that no statement holds many locks for long."""
    gone = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {TABLE} WHERE (source_id, time, ordinal) IN "  # noqa: S608
                f"(SELECT source_id, time, ordinal FROM {TABLE} WHERE {condition} LIMIT {DELETE_BATCH})",
                values,
            )
            gone += cursor.rowcount
            if cursor.rowcount < DELETE_BATCH:
                return gone


def _copy(table: str, data: str) -> None:
    with connection.wrap_database_errors, connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({COLUMNS}) FROM STDIN", io.StringIO(data))


def _row(line: StoredLine) -> str:
    text = line.text
    if _SPECIAL.search(text):
        text = _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text)
    return f"{line.source}\t{line.time}\t{line.ordinal}\t{_plain(line.level)}\t{_plain(line.request_id)}\t{text}\n"


def _plain(text: str) -> str:
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text) if text else ""


def _page(sources: list[int], window: Window, after: StoredLine | None) -> tuple[list[StoredLine], bool]:
    """The lines that follow in the window's order, at least one when there is any, and whether these are the last."""
    if not sources:
        return [], True
    order = "ASC" if window.forward else "DESC"
    conditions: list[str] = ['l."time" >= %s', 'l."time" < %s']
    values: list[Any] = [window.begin, window.stop]
    if after is not None:
        sign = ">" if window.forward else "<"
        conditions += [f'l."time" {sign}= %s', f'(l."time", l.source_id, l.ordinal) {sign} (%s, %s, %s)']
        values += [after.time, *_key(after)]
    for needle in window.needles:
        conditions.append('position(%s in l."text") > 0')
        values.append(needle)
    where = " AND ".join(conditions)
    if window.request_id:
        # A request has few lines, and an index of its own.
        most = PAGE
        statement = (
            f"SELECT {COLUMNS} FROM {TABLE} l WHERE l.source_id = ANY(%s::bigint[]) AND {where} "  # noqa: S608
            f'AND l.request_id = %s ORDER BY l."time" {order}, l.source_id {order}, l.ordinal {order} LIMIT {most}'
        )
        values.append(window.request_id)
    else:
        # Of each source its part of a page, by the table's key.
        most = max(PAGE // len(sources), FEWEST)
        columns = COLUMNS.replace("source_id", "l.source_id")
        statement = f"""
            SELECT l.* FROM unnest(%s::bigint[]) AS s(id) CROSS JOIN LATERAL (
                SELECT {columns} FROM {TABLE} l WHERE l.source_id = s.id AND {where}
                ORDER BY l."time" {order}, l.ordinal {order} LIMIT {most}
            ) l
        """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(statement, [sources, *values])
        found = [
            StoredLine(source, time, ordinal, text, level, request_id)
            for source, time, ordinal, level, request_id, text in cursor.fetchall()
        ]
    if window.request_id:
        return found, len(found) < most
    found.sort(key=_key, reverse=not window.forward)
    counts, lasts = Counter(line.source for line in found), {line.source: _key(line) for line in found}
    cut = [lasts[source] for source, count in counts.items() if count == most]
    if not cut:
        return found, True
    # Beyond the first end of a part that was cut, lines of that source may be missing: they come with the next page.
    end = min(cut) if window.forward else max(cut)
    return [line for line in found if (_key(line) <= end if window.forward else _key(line) >= end)], False


def _key(line: StoredLine) -> tuple[int, int, int]:
    return line.time, line.source, line.ordinal
