"""Times in the forms of the Kubernetes API."""

from __future__ import annotations

from datetime import UTC, datetime


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
