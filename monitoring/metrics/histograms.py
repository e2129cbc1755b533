"""Durations counted by size, and quantiles of them. Pure."""

from bisect import bisect_left
from collections.abc import Sequence

# Upper bounds of the request duration in seconds, as the model server counts them; beyond the last is one more.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Of cold starts: from half a second to an hour.
START_BOUNDS = (
    0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0,
    768.0, 1024.0, 1536.0, 2048.0, 3600.0,
)  # fmt: skip


def no_buckets(bounds: Sequence[float] = BOUNDS) -> list[float]:
    return [0.0] * (len(bounds) + 1)


def one_of(seconds: float, bounds: Sequence[float]) -> list[float]:
    """Buckets that hold one duration."""
    buckets = no_buckets(bounds)
    buckets[bisect_left(bounds, seconds)] = 1.0
    return buckets


def quantile(buckets: Sequence[float], share: float, bounds: Sequence[float] = BOUNDS) -> float | None:
    """The duration in seconds that ``share`` of what was counted took at most, linear within a bucket; None without
    any. ``buckets`` are not cumulative.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    wanted, below = share * total, 0.0
    for place, count in enumerate(buckets):
        if count and below + count >= wanted:
            if place == len(bounds):
                break
            lower = bounds[place - 1] if place else 0.0
            return lower + (bounds[place] - lower) * (wanted - below) / count
        below += count
    return bounds[-1]


def apart(cumulative: dict[float, float], bounds: Sequence[float]) -> list[float]:
    """Buckets from cumulative counts by upper bound, the last is infinity; bounds that are not ours are passed over."""
    found, before = [], 0.0
    for bound in (*bounds, float("inf")):
        count = max(cumulative.get(bound, before), before)
        found.append(count - before)
        before = count
    return found
