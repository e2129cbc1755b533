"""Reading container logs: all options of the API, following without polling faster than the eye."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

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


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _entries(stream: BinaryIO) -> Iterator[Entry]:
    """The entries from here on; an unfinished last line is left for later."""
    while True:
        position = stream.tell()
        line = stream.readline()
        if not line.endswith(b"\n"):
            stream.seek(position)
            return
        entry = parse_line(line[:-1])
        if entry is not None:
            yield entry


def _wanted(entry: Entry, options: LogOptions) -> bool:
    return options.since is None or parse_time(entry.stamp.decode()) >= options.since


def snapshot(stream: BinaryIO, options: LogOptions) -> list[tuple[Entry, bool]]:
    """The entries of a file that were asked for, each with whether it continues a line."""
    found: deque[tuple[Entry, bool]] | list[tuple[Entry, bool]] = []
    if options.tail is not None:
        found = _Tail(options.tail)
    continues = False
    for entry in _entries(stream):
        if _wanted(entry, options):
            found.append((entry, continues))
        continues = not entry.complete
    return list(found)


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


class _Follower:
    """Reads on in a log that grows and is rotated: what was begun is read to its end, then what came after it."""

    def __init__(self, path: Path, stream: BinaryIO | None) -> None:
        self.path = path
        self._stream = stream

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def entries(self) -> Iterator[Entry]:
        """What has been added since the last call."""
        if self._stream is None:
            self._stream = _open(self.path)
        if self._stream is None:
            return
        # Asked first: what is written to the old file comes before anything in the newer ones.
        newer = self._newer(self._stream)
        yield from _entries(self._stream)
        for stream in newer:
            self._stream.close()
            self._stream = stream
            yield from _entries(stream)

    def _newer(self, stream: BinaryIO) -> list[BinaryIO]:
        """The files that were begun after the open one, oldest first."""
        mine, found = os.fstat(stream.fileno()).st_ino, dict[int, BinaryIO]()
        # From the newest on: a rotation that comes between only moves files to where they are looked for next.
        for path in (self.path, *sorted(self.path.parent.glob(f"{self.path.name}.[0-9]"))):
            other = _open(path)
            if other is None:
                continue
            number = os.fstat(other.fileno()).st_ino
            if number == mine or number in found:
                other.close()
            else:
                found[number] = other
            if number == mine:
                break
        return [*found.values()][::-1]


class _Output:
    """Renders entries up to a number of bytes."""

    def __init__(self, options: LogOptions) -> None:
        self.options = options
        self.left = options.limit
        self.continues = False

    @property
    def full(self) -> bool:
        return self.left is not None and self.left <= 0

    def render(self, entries: Iterable[tuple[Entry, bool]]) -> Iterator[bytes]:
        """Blocks of bytes; stops when the limit is reached."""
        block = bytearray()
        for entry, continues in entries:
            block += render(entry, continues, self.options.timestamps)
            if len(block) >= _BLOCK or (self.left is not None and len(block) >= self.left):
                yield self._cut(block)
                block.clear()
                if self.full:
                    return
        if block:
            yield self._cut(block)

    def _cut(self, block: bytearray) -> bytes:
        data = bytes(block[: self.left])
        if self.left is not None:
            self.left -= len(data)
        return data

    def fresh(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bool]]:
        """Entries that were asked for, each with whether it continues a line."""
        for entry in entries:
            if _wanted(entry, self.options):
                yield entry, self.continues
            self.continues = not entry.complete


async def read(log: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log as a client sees it; with `follow` until `running()` is False and everything is read.

    As in Kubernetes, what was rotated away before is not shown.
    """
    stream = _open(log)
    follower = _Follower(log, stream)
    try:
        entries = await asyncio.to_thread(snapshot, stream, options) if stream is not None else []
        output = _Output(options)
        for block in output.render(entries):
            yield block
        if not options.follow or output.full:
            return
        output.continues = bool(entries) and not entries[-1][0].complete
        while not output.full:
            alive = running()  # asked before reading, so that the last words are read after the end
            for block in output.render(output.fresh(follower.entries())):
                yield block
            if not alive:
                return
            await asyncio.sleep(_FOLLOW)
    finally:
        follower.close()
