"""What an instance says of itself at ``/metrics``, as numbers. Pure.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Upper bounds of the request duration in seconds, as the model server counts them; beyond the last is one more.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONGEST = 1 << 20

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def no_buckets() -> list[float]:
    return [0.0] * (len(BOUNDS) + 1)


@dataclass(slots=True)
class Reading:
    """Counters of an instance since its process began; ``buckets`` count requests by duration, not cumulative."""

    requests: float = 0
    errors: float = 0
    duration: float = 0
    buckets: list[float] = field(default_factory=no_buckets)
    in_flight: float = 0


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
                _count(reading.buckets, labels.get("le", ""), value)
    if not ours:
        return None
    for place in range(len(BOUNDS), 0, -1):
        reading.buckets[place] = max(reading.buckets[place] - reading.buckets[place - 1], 0)
    return reading


def _count(buckets: list[float], bound: str, value: float) -> None:
    if bound == "+Inf":
        buckets[-1] += value
        return
    try:
        buckets[BOUNDS.index(float(bound))] += value
    except ValueError:
        return


def quantile(buckets: list[float], share: float) -> float | None:
    """The duration in seconds that ``share`` of the requests took at most, linear within a bucket; None without any."""
    total = sum(buckets)
    if total <= 0:
        return None
    wanted, below = share * total, 0.0
    for place, count in enumerate(buckets):
        if count and below + count >= wanted:
            if place == len(BOUNDS):
                break
            lower = BOUNDS[place - 1] if place else 0.0
            return lower + (BOUNDS[place] - lower) * (wanted - below) / count
        below += count
    return BOUNDS[-1]
