"""What a store of log lines does."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from monitoring.models import LogSource


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A line of a source; ``ordinal`` is its place among the source's lines of the same ``time`` (nanoseconds)."""

    source: int
    time: int
    ordinal: int
    text: str
    level: str = ""
    request_id: str = ""


class StoreUnavailable(Exception):
    """The store does not answer; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which lines are wanted: times in nanoseconds, ``begin`` inclusive, ``stop`` exclusive.

    ``forward`` gives the first ones in order, otherwise the last ones come first. All of ``needles`` are in the text.
    """

    begin: int = 0
    stop: int = 2**63 - 1
    forward: bool = False
    needles: tuple[str, ...] = ()
    request_id: str = ""


class LogStore(Protocol):
    def append(self, sources: Mapping[int, LogSource], lines: Sequence[StoredLine]) -> None:
        """Keep lines; those that are there already stay as they are.

        Part of the caller's transaction where the store can; raises StoreUnavailable or a database error otherwise.
        """

    def read(self, sources: Mapping[int, LogSource], window: Window) -> Iterator[StoredLine]:
        """Lines of the sources in the window's order, read in pages as they are asked for."""

    def prepare(self, now: dt.datetime) -> None:
        """Make room for the days to come."""

    def expire(self, now: dt.datetime) -> int:
        """Remove what is older than its project keeps it; how many lines or, where only that is known, tables."""
