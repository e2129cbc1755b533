"""Logs as they are kept and as they are read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from localcluster.kubelet.logs import LogOptions, read
from localcluster.kubelet.shim.log import Log
from tests.unit.localcluster.kubelet.test_shim import until

LOG = b"""2026-01-01T00:00:01.000000001Z stdout F one
2026-01-01T00:00:02.000000002Z stderr F two\r
2026-01-01T00:00:03.000000003Z stdout P thr
2026-01-01T00:00:03.500000003Z stdout F ee
2026-01-01T00:00:04.000000004Z stdout P rest
"""


async def logged(path: Path, **options: Any) -> bytes:
    return b"".join([block async for block in read(path, LogOptions(**options), lambda: False)])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"one\ntwo\nthree\nrest"),
        ({"tail": 2}, b"three\nrest"),
        ({"tail": 0}, b""),
        ({"tail": 2, "limit": 3}, b"thr"),
        ({"limit": 5}, b"one\nt"),
        ({"since": datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)}, b"three\nrest"),
        ({"timestamps": True, "tail": 2}, b"2026-01-01T00:00:03.000000003Z three\n2026-01-01T00:00:04.000000004Z rest"),
        ({"follow": True}, b"one\ntwo\nthree\nrest"),
    ],
)
async def test_log_options(tmp_path: Path, options: dict[str, Any], expected: bytes) -> None:
    (tmp_path / "log").write_bytes(LOG)
    assert await logged(tmp_path / "log", **options) == expected


async def test_what_was_rotated_away_is_not_read(tmp_path: Path) -> None:
    lines = LOG.splitlines(keepends=True)
    (tmp_path / "log.1").write_bytes(b"".join(lines[:4]))
    (tmp_path / "log").write_bytes(b"".join(lines[4:]))
    assert await logged(tmp_path / "log") == b"rest"


@pytest.mark.parametrize("rotations", [1, 2, 3])
async def test_following_loses_nothing_to_rotations(tmp_path: Path, rotations: int) -> None:
    """However often the log is rotated between two looks, as long as the file being read is kept."""
    log = Log(str(tmp_path / "log"), 10_000_000, 5)
    alive, got = True, b""

    async def follow() -> None:
        nonlocal got
        async for block in read(tmp_path / "log", LogOptions(follow=True), lambda: alive):
            got += block

    log.feed("stdout", b"0\n")
    task = asyncio.create_task(follow())
    await until(lambda: got == b"0\n")
    for number in range(1, rotations + 1):  # without giving the follower a look in between
        log.feed("stdout", b"old %d\n" % number)
        log._rotate()
        log.feed("stdout", b"new %d\n" % number)
    wanted = b"0\n" + b"".join(b"old %d\nnew %d\n" % (number, number) for number in range(1, rotations + 1))
    await until(lambda: got == wanted)
    alive = False
    await task
    log.finish()


async def test_following_goes_on_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = LOG.splitlines(keepends=True)
    log.write_bytes(lines[0])
    alive = True
    got = b""

    async def follow() -> None:
        nonlocal got
        async for block in read(log, LogOptions(follow=True), lambda: alive):
            got += block

    task = asyncio.create_task(follow())
    await until(lambda: got == b"one\n")
    with log.open("ab") as stream:
        stream.write(lines[1])
    log.rename(tmp_path / "log.1")
    log.write_bytes(b"".join(lines[2:4]))
    await until(lambda: got == b"one\ntwo\nthree\n")
    alive = False
    await task


async def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert await logged(tmp_path / "none") == b""
