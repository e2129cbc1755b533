"""The collector's work in the database: lines and positions in one transaction."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db import connection, transaction

from kube.logs import Line
from monitoring.entries import LONGEST_LEVEL, LONGEST_REQUEST_ID, line_labels
from monitoring.logstore.base import LogStore, StoredLine
from monitoring.logstore.sources import Position, advance
from monitoring.models import LogSource

# Key of the session lock that says who collects.
LOCK = 0x70696C6F  # "pilo"
_locked_on: object = None


@dataclass(frozen=True, slots=True)
class Collected:
    """A line as read. ``moves``: the position moves with it; not so for what an earlier container left behind."""

    source: int
    line: Line
    ordinal: int
    moves: bool = True


def lock() -> bool:
    """Whether this thread's connection holds the collector's lock, taking it when it is free."""
    global _locked_on
    connection.ensure_connection()
    if _locked_on is connection.connection:
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return False
    _locked_on = connection.connection
    return True


def disconnect() -> None:
    """Close this thread's connection, and give the lock back with it; the next use opens a new one."""
    connection.close()


def keep(store: LogStore, sources: Mapping[int, LogSource], batch: Sequence[Collected]) -> set[int]:
    """Store lines and move their sources' positions; the sources that another collector has moved on meanwhile."""
    moves: dict[int, tuple[Position, Position]] = {}
    for item in batch:
        if item.moves and item.source in sources:
            source = sources[item.source]
            before = Position(source.position_time, source.position_count)
            moves[item.source] = (before, Position(item.line.time, item.ordinal + 1))
    with transaction.atomic():
        left = advance(moves)
        # The answer to a commit may have been lost: then the lines and the positions are where they should be.
        there = _already(left, moves)
        lines = [_stored(item) for item in batch if item.source in sources and item.source not in left]
        store.append(sources, lines)
    for key, (_, after) in moves.items():
        if key not in left or key in there:
            sources[key].position_time, sources[key].position_count = after.time, after.count
    return left - there


def restarted(source: LogSource, restarts: int) -> None:
    """The container's predecessor was read to its end."""
    LogSource.objects.filter(pk=source.pk).update(restarts=restarts)
    source.restarts = restarts


def ended(keys: Iterable[int], now: dt.datetime) -> None:
    """Instances that will write no more."""
    LogSource.objects.filter(pk__in=list(keys)).update(ended_at=now)


def end_missing(there: Iterable[uuid.UUID], now: dt.datetime) -> int:
    """End instances that were known at ``now`` and are not ``there``; how many."""
    rows = LogSource.objects.filter(ended_at=None, created_at__lt=now)
    return rows.exclude(instance_id__in=list(there)).update(ended_at=now)


def _already(left: set[int], moves: Mapping[int, tuple[Position, Position]]) -> set[int]:
    if not left:
        return set()
    rows = LogSource.objects.filter(pk__in=left).values_list("pk", "position_time", "position_count")
    return {key for key, time, count in rows if moves[key][1] == Position(time, count)}


def _stored(item: Collected) -> StoredLine:
    labels = line_labels(item.line.text)
    return StoredLine(
        item.source,
        item.line.time,
        item.ordinal,
        item.line.text,
        _short(labels.get("level", ""), LONGEST_LEVEL),
        _short(labels.get("deployment_request_id", ""), LONGEST_REQUEST_ID),
    )


def _short(text: str, longest: int) -> str:
    return text[:longest].replace("\x00", "")
