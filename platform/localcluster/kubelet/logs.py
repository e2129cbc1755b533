"""Reading container logs: all options of the API, following without polling faster than the eye."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from localcluster.times import parse_time

_BLOCK = 65536
_FOLLOW = 0.1  # seconds between looks at a followed file


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What to read. `since` is a moment in UTC; `tail` counts lines; `limit` bytes of answer."""

    follow: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored line: its time, whether it ends a line of the container, its text."""

    stamp: bytes
    complete: bool
    text: bytes


def parse_line(line: bytes) -> Entry | None:
    """An entry of a CRI log line without its newline; None for what is none."""
    parts = line.split(b" ", 3)
    if len(parts) < 4 or parts[2] not in (b"F", b"P"):
        return None
    return Entry(parts[0], parts[2] == b"F", parts[3])


def render(entry: Entry, continues: bool, timestamps: bool) -> bytes:
    """The bytes a client gets; a part that continues a line carries no time of its own."""
    text = entry.text
    if entry.complete and text.endswith(b"\r"):
        text = text[:-1]
    head = entry.stamp + b" " if timestamps and not continues else b""
    return head + text + (b"\n" if entry.complete else b"")


def files(log: Path) -> list[Path]:
    """The log's files, oldest first."""
    rotated = sorted(log.parent.glob(f"{log.name}.[0-9]"), reverse=True)
    return [*rotated, log]


def _entries(path: Path, position: int = 0) -> Iterator[tuple[Entry, int]]:
    """Entries of a file and the position behind each; an unfinished last line is left for later."""
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        stream.seek(position)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            entry = parse_line(line[:-1])
            if entry is not None:
                yield entry, position


def _wanted(entry: Entry, options: LogOptions) -> bool:
    return options.since is None or parse_time(entry.stamp.decode()) >= options.since


def snapshot(log: Path, options: LogOptions) -> tuple[list[tuple[Entry, bool]], int]:
    """(entries with whether they continue a line, position in the newest file)."""
    found: deque[tuple[Entry, bool]] | list[tuple[Entry, bool]] = []
    if options.tail is not None:
        found = _Tail(options.tail)
    position, continues = 0, False
    for path in files(log):
        position = 0
        for entry, end in _entries(path):
            position = end
            if _wanted(entry, options):
                found.append((entry, continues))
            continues = not entry.complete
    return list(found), position


class _Tail(deque):
    """Keeps the entries of the last `lines` whole lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines = lines
        self._starts = 0

    def append(self, item: tuple[Entry, bool]) -> None:
        if not self.lines:
            return
        super().append(item)
        self._starts += not item[1]
        while self._starts > self.lines:
            self.popleft()
            self._starts -= 1
            while self and self[0][1]:
                self.popleft()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


async def read(log: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log as a client sees it; with `follow` until `running()` is False and everything is read."""
    left = options.limit
    entries, position = await asyncio.to_thread(snapshot, log, options)
    block = bytearray()
    for entry, continues in entries:
        block += render(entry, continues, options.timestamps)
        if len(block) >= _BLOCK or (left is not None and len(block) >= left):
            yield bytes(block[:left])
            left = None if left is None else left - len(block)
            block.clear()
            if left is not None and left <= 0:
                return
    if block:
        yield bytes(block[:left])
        left = None if left is None else left - len(block)
    if not options.follow or (left is not None and left <= 0):
        return
    inode = _inode(log)
    continues = bool(entries) and not entries[-1][0].complete
    while True:
        alive = running()
        block.clear()
        for entry, end in _entries(log, position):
            position = end
            if _wanted(entry, options):
                block += render(entry, continues, options.timestamps)
            continues = not entry.complete
        if block:
            yield bytes(block[:left])
            left = None if left is None else left - len(block)
            if left is not None and left <= 0:
                return
        if _inode(log) not in (0, inode):
            # Rotated: what came after our position is in the file's new name, then the new file starts.
            older = log.with_name(f"{log.name}.1")
            for entry, _ in _entries(older, position):
                yield render(entry, continues, options.timestamps)
                continues = not entry.complete
            inode, position = _inode(log), 0
            continue
        if not alive:
            return
        await asyncio.sleep(_FOLLOW)
