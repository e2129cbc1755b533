"""Times as the API writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_RFC3339 = re.compile(
    r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d{2}:\d{2})$"
)


def now() -> str:
    """The present second: 2026-11-23T19:58:33Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """The present microsecond, for MicroTime fields."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@lru_cache(1024)
def check_time(text: str) -> None:
    """ValueError, worded as Go words it, unless `text` is an RFC 3339 time."""
    if not _RFC3339.match(text):
        layout = "2006-01-02T15:04:05Z07:00"
        raise ValueError(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"')


def parse(text: str) -> datetime:
    """A time of the API as a datetime with time zone."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
