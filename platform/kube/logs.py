"""Following a container's log without loss or repeats across broken connections."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from kube.connect import Cluster, path_of
from kube.errors import ClusterUnreachable, KubeError, from_answer

# Longer lines are cut; a line of a megabyte is a mistake, and would be one in a browser too.
LONGEST = 16 * 1024
CUT = " [cut]"
# No log line for this long: ask again, since a connection may be dead without anybody saying so.
QUIET_SECONDS = 300

_STAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


@dataclass(frozen=True, slots=True)
class Line:
    """One log line; ``time`` in nanoseconds since 1970."""

    time: int
    text: str


@dataclass(slots=True)
class Cursor:
    """How far a log was read: the time of the last line and how many lines of that time."""

    time: int = 0
    count: int = 0

    def advance(self, line: Line) -> None:
        if line.time == self.time:
            self.count += 1
        else:
            self.time, self.count = line.time, 1

    @property
    def since(self) -> str:
        """For ``sinceTime``, which the API rounds to seconds."""
        seconds = self.time // 10**9
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Resume:
    """Lets through what lies behind a cursor when a log is read again from its second on."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor, self._time, self._left = cursor, cursor.time, cursor.count

    def fresh(self, line: Line) -> bool:
        if self._left and line.time < self._time:
            return False
        if self._left and line.time == self._time:
            self._left -= 1
            return False
        self._left = 0
        self._cursor.advance(line)
        return True


def parse(raw: bytes, fallback: int = 0) -> Line:
    """A line of a log read with ``timestamps=true``; broken UTF-8 is replaced, NUL and long tails are dropped."""
    found = _STAMP.match(raw)
    time = fallback
    if found:
        time = _second(found[1], found[3]) * 10**9 + int((found[2] or b"0").ljust(9, b"0"))
        raw = raw[found.end() :]
    cut = len(raw) > LONGEST
    text = raw[:LONGEST].decode("utf-8", "replace").replace("\x00", "").rstrip("\r")
    return Line(time, text + CUT if cut else text)


@functools.lru_cache(maxsize=64)
def _second(moment: bytes, zone: bytes) -> int:
    """Seconds since 1970; lines of one second are many."""
    return int(datetime.datetime.fromisoformat((moment + zone.replace(b"Z", b"+00:00")).decode()).timestamp())


async def lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of a byte stream, each cut a little above `LONGEST` whatever its length."""
    longest = LONGEST + 64  # room for the timestamp and one byte over
    rest, skipping = b"", False
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        if skipping and whole:
            del whole[0]  # the end of a line that was given already
            skipping = False
        for line in whole:
            yield line[:longest]
        if len(rest) > longest:
            if not skipping:
                yield rest[:longest]
            rest, skipping = b"", True
    if rest and not skipping:
        yield rest


async def follow(
    session: aiohttp.ClientSession,
    cluster: Cluster,
    namespace: str,
    pod: str,
    container: str,
    cursor: Cursor,
    *,
    tail: int = 200,
) -> AsyncIterator[Line]:
    """Lines after ``cursor`` (or the last ``tail`` ones when it is new) until the container ends or falls silent.

    The cursor moves along, so that calling again goes on where this ended. Raises `KubeError` (400 while the
    container waits to start, 404 when the pod is gone) and `ClusterUnreachable`.
    """
    query: dict[str, str] = {"container": container, "follow": "true", "timestamps": "true"}
    if cursor.time:
        query["sinceTime"] = cursor.since
    else:
        query["tailLines"] = str(tail)
    url = cluster.server + path_of("Pod", namespace, pod, "log")
    limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=QUIET_SECONDS)
    resume = Resume(cursor)
    try:
        async with session.get(url, params=query, headers=cluster.auth_headers(), timeout=limits) as response:
            if response.status >= 400:
                raise from_answer(response.status, await response.read())
            async for raw in lines(response.content):
                line = parse(raw, cursor.time)
                if resume.fresh(line):
                    yield line
    except TimeoutError:
        return
    except (aiohttp.ClientError, OSError) as error:
        raise ClusterUnreachable(f"The log stream of {pod} broke: {error}") from error


async def read(
    session: aiohttp.ClientSession,
    cluster: Cluster,
    namespace: str,
    pod: str,
    container: str,
    *,
    since: int = 0,
    limit_bytes: int = 8 << 20,
    previous: bool = False,
) -> list[Line]:
    """Lines of a container from ``since`` (nanoseconds) on; empty when it has no log (yet, or any more)."""
    query: dict[str, str] = {"container": container, "timestamps": "true", "limitBytes": str(limit_bytes)}
    if since:
        query["sinceTime"] = Cursor(since).since
    if previous:
        query["previous"] = "true"
    url = cluster.server + path_of("Pod", namespace, pod, "log")
    limits = aiohttp.ClientTimeout(total=20, sock_connect=5)
    try:
        async with session.get(url, params=query, headers=cluster.auth_headers(), timeout=limits) as response:
            if response.status >= 400:
                error = from_answer(response.status, await response.read())
                if isinstance(error, KubeError):
                    return []
                raise error
            found = [parse(raw) async for raw in lines(response.content)]
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise ClusterUnreachable(f"The log of {pod} cannot be read: {error}") from error
    return [line for line in found if line.time >= since]
