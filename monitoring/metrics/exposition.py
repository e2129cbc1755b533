"""What an instance says of itself at ``/metrics``, as numbers. Pure.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import datetime as dt
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from monitoring.metrics.histograms import BOUNDS, apart, no_buckets

LONGEST = 1 << 20

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Reading:
    """Counters of an instance since its process began; ``buckets`` count requests by duration, not cumulative."""

    requests: float = 0
    errors: float = 0
    duration: float = 0
    buckets: list[float] = field(default_factory=no_buckets)
    in_flight: float = 0
    process_start: float = 0  # Unix time; 0 is not known
    loading_at: float = 0  # Unix time at which the model began to load; 0 is not known, or not yet

    @property
    def began_loading(self) -> dt.datetime | None:
        """When the model began to load; None while that is not known, or is no time at all."""
        try:
            return dt.datetime.fromtimestamp(self.loading_at, dt.UTC) if self.loading_at > 0 else None
        except (OverflowError, ValueError, OSError):
            return None


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of each line that is one; others are passed over."""
    for line in text[:LONGEST].splitlines():
        found = _SAMPLE.match(line)
        if found is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        if math.isfinite(value):
            yield found[1], dict(_LABEL.findall(found[2] or "")), value


def read(text: str) -> Reading | None:
    """The model server's numbers; None when the text is of another server."""
    reading, ours = Reading(), False
    durations: dict[float, float] = {}
    for name, labels, value in samples(text):
        match name:
            case "pilothouse_requests_in_flight":
                ours = True
                reading.in_flight = value
            case "pilothouse_requests_total":
                reading.requests += value
            case "pilothouse_request_errors_total":
                reading.errors += value
            case "pilothouse_request_duration_seconds_sum":
                reading.duration += value
            case "pilothouse_request_duration_seconds_bucket":
                with suppress(ValueError):
                    bound = float(labels.get("le", ""))
                    durations[bound] = durations.get(bound, 0) + value
            case "process_start_time_seconds":
                reading.process_start = value
            case "pilothouse_load_start_time_seconds":
                reading.loading_at = value
    if not ours:
        return None
    reading.buckets = apart(durations, BOUNDS)
    return reading
