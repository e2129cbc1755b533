"""What is asked of metrics, and what comes back: spans of time with everything that happened in them. Pure."""

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from monitoring.metrics.histograms import START_BOUNDS, no_buckets, quantile

MOST_POINTS = 400
# Steps that people read easily, in seconds.
STEPS = (10, 30, 60, 300, 900, 1800, 3600, 7200, 21600, 43200, 86400)
COUNTS = ("requests", "errors", "duration", "restarts", "cold_starts", "cold_start_seconds")
# What all instances have together, on average.
OF_INSTANCES = ("in_flight", "cpu", "memory", "gpu_devices", "gpu_busy", "gpu_memory")
OF_VERSIONS = ("instances", "accelerators", "queue")
PEAKS = ("memory_peak", "queue_age")
# A start that is older when it is first seen was not seen happening.
FRESH_START = dt.timedelta(minutes=10)
NAMES = (
    "requests", "errors", "error_rate", "p50", "p95", "p99", "mean", "in_flight", "queue", "queue_age", "instances",
    "accelerators", "gpu_use", "gpu_memory", "cpu", "memory", "memory_peak", "restarts", "cold_starts",
    "cold_start_seconds", "cold_start_p50", "cold_start_p95",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked about: versions, and of them one instance or all."""

    versions: tuple[uuid.UUID, ...]
    instance: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well a span is known. ``share`` of its readings were made; ``held``: GPUs were held at each of them."""

    latest: dt.datetime | None = None
    share: float = 0
    held: bool = False


@dataclass(slots=True)
class Cell:
    """Everything of one span of ``seconds`` from ``at`` (Unix time) on."""

    at: int
    seconds: float
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0.0))
    levels: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PEAKS, 0.0))
    buckets: list[float] = field(default_factory=no_buckets)
    start_buckets: list[float] = field(default_factory=lambda: no_buckets(START_BOUNDS))

    def values(self) -> dict[str, float | None]:
        """The numbers by `NAMES`: rates a second, shares of 1, seconds, bytes, cores; None where there is none."""
        counts, requests, starts = self.counts, self.counts["requests"], self.counts["cold_starts"]
        measured = self.levels.get("gpu_devices", 0.0)
        found = {
            "requests": requests / self.seconds,
            "errors": counts["errors"] / self.seconds,
            "error_rate": counts["errors"] / requests if requests else None,
            "p50": quantile(self.buckets, 0.5),
            "p95": quantile(self.buckets, 0.95),
            "p99": quantile(self.buckets, 0.99),
            "mean": counts["duration"] / requests if requests else None,
            "gpu_use": self.levels.get("gpu_busy", 0.0) / measured if measured else None,
            "restarts": counts["restarts"],
            "cold_starts": starts,
            "cold_start_seconds": counts["cold_start_seconds"] / starts if starts else None,
            "cold_start_p50": quantile(self.start_buckets, 0.5, START_BOUNDS),
            "cold_start_p95": quantile(self.start_buckets, 0.95, START_BOUNDS),
            **{name: self.levels.get(name) for name in (*OF_INSTANCES, *OF_VERSIONS)},
            **self.peaks,
        }
        if not measured:
            found["gpu_memory"] = None
        return {name: found[name] for name in NAMES}


def chosen_step(start: dt.datetime, end: dt.datetime, finest: int) -> int:
    """The step in seconds, not below ``finest``, that gives at most `MOST_POINTS` points."""
    span = (end - start).total_seconds()
    return next((step for step in STEPS if step >= finest and span / step <= MOST_POINTS), STEPS[-1])


def seconds_of(at: int, step: int, now: dt.datetime, finest: int) -> float:
    """How much of a cell is over: the last one is not, and its rates are of the time so far."""
    return min(max(now.timestamp() - at, finest), step)


def together(parts: Iterable[Cell], start: dt.datetime, end: dt.datetime) -> Cell:
    """One cell of many: counts are summed, levels averaged, of peaks the highest is taken."""
    whole, parts = Cell(int(start.timestamp()), (end - start).total_seconds()), list(parts)
    for part in parts:
        for name in COUNTS:
            whole.counts[name] += part.counts[name]
        for name in PEAKS:
            whole.peaks[name] = max(whole.peaks[name], part.peaks[name])
        whole.buckets = [a + b for a, b in zip(whole.buckets, part.buckets, strict=True)]
        whole.start_buckets = [a + b for a, b in zip(whole.start_buckets, part.start_buckets, strict=True)]
    for name in (*OF_INSTANCES, *OF_VERSIONS):
        values = [part.levels[name] for part in parts if name in part.levels]
        if values:
            whole.levels[name] = sum(values) / len(values)
    return whole
