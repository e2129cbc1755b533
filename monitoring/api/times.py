"""Times in query strings."""

import datetime as dt

from django.utils.dateparse import parse_datetime
from rest_framework.request import Request

from accounts.errors import Invalid

RANGES = {
    "5m": dt.timedelta(minutes=5),
    "15m": dt.timedelta(minutes=15),
    "1h": dt.timedelta(hours=1),
    "6h": dt.timedelta(hours=6),
    "24h": dt.timedelta(hours=24),
    "7d": dt.timedelta(days=7),
    "30d": dt.timedelta(days=30),
}


def date(request: Request, name: str) -> dt.datetime | None:
    """An ISO 8601 date and time, in UTC unless it says otherwise; None when it is not given. Raises Invalid."""
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        found = parse_datetime(text.replace(" ", "+"))  # a plus that was not escaped
    except ValueError:
        found = None
    if found is None:
        raise Invalid(**{name: f"'{text[:60]}' is not an ISO 8601 date and time, such as 2026-01-31T12:00:00Z"})
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def span(request: Request, now: dt.datetime, usual: str = "1h") -> tuple[dt.datetime, dt.datetime]:
    """``range`` up to now, or ``start`` and ``end``. Raises Invalid."""
    start, end = date(request, "start"), date(request, "end") or now
    if start is None:
        name = request.query_params.get("range") or usual
        if name not in RANGES:
            raise Invalid(range=f"Unknown range '{name[:20]}'; use {', '.join(RANGES)}, or give start and end")
        start = end - RANGES[name]
    if end <= start:
        raise Invalid(end="The end must be after the start")
    if end - start > dt.timedelta(days=31):
        raise Invalid(start="Ask for at most 31 days at once")
    return start, end
