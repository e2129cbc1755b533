"""Times in the forms of the Kubernetes API."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_RFC3339 = re.compile(
    r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d{2}:\d{2})$"
)


def now() -> datetime:
    return datetime.now(UTC)


def rfc3339(moment: datetime | None = None) -> str:
    """`metav1.Time`: whole seconds, UTC."""
    return (moment or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro(moment: datetime | None = None) -> str:
    """`metav1.MicroTime`: microseconds, UTC."""
    return (moment or now()).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Read any RFC 3339 time; fractions finer than a microsecond are cut off."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6]}{rest[digits:]}"
    return datetime.fromisoformat(text)


def age(text: str | None, at: datetime | None = None) -> float:
    """Seconds from `text` until `at` (now); 0 for a missing time."""
    return ((at or now()) - parse_time(text)).total_seconds() if text else 0.0


@lru_cache(1024)
def check_time(text: str) -> None:
    """ValueError, worded as Go words it, unless `text` is an RFC 3339 time."""
    if not _RFC3339.match(text):
        layout = "2006-01-02T15:04:05Z07:00"
        raise ValueError(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"')
