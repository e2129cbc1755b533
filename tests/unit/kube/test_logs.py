"""Reading log lines: cut, cleaned, and never twice or not at all when a stream breaks."""

import asyncio
from unittest import mock

import aiohttp
from hypothesis import given
from hypothesis import strategies as st

from kube.logs import CUT, LONGEST, Cursor, Line, Resume, lines, parse


def stream_of(chunks: list[bytes]) -> aiohttp.StreamReader:
    reader = aiohttp.StreamReader(mock.Mock(), 2**16, loop=asyncio.get_running_loop())
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    return reader


def test_a_timestamp_becomes_nanoseconds() -> None:
    assert parse(b"2026-01-02T03:04:05.000000007Z hello") == Line(1767323045_000000007, "hello")
    assert parse(b"2026-01-02T05:04:05.5+02:00 hello") == Line(1767323045_500000000, "hello")
    assert parse(b"2026-01-02T03:04:05Z ") == Line(1767323045_000000000, "")


def test_without_a_timestamp_the_line_takes_the_time_before() -> None:
    assert parse(b"plain", fallback=7) == Line(7, "plain")


def test_broken_text_is_made_harmless() -> None:
    line = parse(b"2026-01-02T03:04:05Z \xff\x00<b>\x1b[31m")
    assert line.text == "\ufffd<b>\x1b[31m"


def test_a_long_line_is_cut_and_marked() -> None:
    line = parse(b"2026-01-02T03:04:05Z " + b"x" * (LONGEST + 1))
    assert line.text == "x" * LONGEST + CUT


async def test_a_line_of_a_megabyte_does_not_take_a_megabyte() -> None:
    chunks = [b"a\n", *[b"x" * 4096] * 256, b"\nb\n", b"end"]
    found = [line async for line in lines(stream_of(chunks))]
    assert [len(line) for line in found] == [1, LONGEST + 64, 1, 3]
    assert found[2:] == [b"b", b"end"]


@given(
    times=st.lists(st.integers(0, 6), min_size=1, max_size=30).map(sorted),
    broken_at=st.integers(0, 30),
)
def test_a_resumed_log_has_every_line_once(times: list[int], broken_at: int) -> None:
    """The API goes back to the beginning of the cursor's second, so lines come again, several of one time too."""
    log = [Line(1_000_000_000 + time, str(number)) for number, time in enumerate(times)]
    cursor = Cursor()
    resume = Resume(cursor)
    first = [line for line in log[:broken_at] if resume.fresh(line)]
    again = Resume(cursor)
    rest = [line for line in log if again.fresh(line)]
    assert first + rest == log


def test_the_cursor_asks_for_its_whole_second() -> None:
    assert Cursor(1767323045_900000000, 1).since == "2026-01-02T03:04:05Z"
