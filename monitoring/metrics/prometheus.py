"""Numbers over time from a Prometheus, or what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics).

Source: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

import datetime as dt
import functools
import math
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from accounts.errors import Unavailable
from monitoring.metrics.cells import COUNTS, PEAKS, Cell, Coverage, Scope, chosen_step, seconds_of
from monitoring.metrics.gpus import GpuUsage, Usages
from monitoring.metrics.histograms import BOUNDS, START_BOUNDS, apart, one_of
from monitoring.metrics.promql import MIB, SERIES, Questions, Window, devices
from monitoring.metrics.samples import RAW

TIMEOUT = 20.0
# Prometheus gives at most 11,000 points at once.
MOST_AT_ONCE = 10_000
# A rate needs a few readings to be one.
READINGS = 4

Sample = tuple[dict[str, str], list[tuple[float, float]]]


class SourceUnavailable(Unavailable):
    """The Prometheus does not answer; the message says which and why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="metrics_unavailable", retry_after=10)


class PrometheusSource:
    """Asks one question for everything of a chart, and one for everything of a span.

    ``interval``: seconds between readings; ``series``: selectors in place of those of `promql.SERIES`.
    """

    def __init__(
        self, url: str, tenant: str = "", token: str = "", interval: int = 15, series: dict[str, str] | None = None
    ) -> None:
        headers = {"User-Agent": "pilothouse"}
        if tenant:
            headers["X-Scope-OrgID"] = tenant
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._url, self._interval, self._series = url.rstrip("/"), interval, {**SERIES, **(series or {})}
        parts = urlsplit(self._url)
        self._name = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=False)

    @classmethod
    def of_settings(cls) -> "PrometheusSource":
        """The one that settings name, with its connections."""
        return _made(
            settings.PILOTHOUSE_PROMETHEUS_URL,
            settings.PILOTHOUSE_PROMETHEUS_TENANT,
            settings.PILOTHOUSE_PROMETHEUS_TOKEN,
            settings.PILOTHOUSE_PROMETHEUS_INTERVAL,
            tuple(sorted(settings.PILOTHOUSE_PROMETHEUS_SERIES.items())),
        )

    def close(self) -> None:
        """End its connections; `of_settings` makes new ones."""
        self._client.close()
        _made.cache_clear()

    def cells(
        self, scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime, step: int = 0
    ) -> tuple[int, list[Cell]]:
        finest = max(RAW, self._interval)
        step = max(step or chosen_step(start, end, finest), RAW)
        if not scope.versions:
            return step, []
        window = self._window(step)
        query = Questions(scope, window, self._series).all()
        found: dict[int, Cell] = {}
        shares: dict[int, dict[str, dict[float, float]]] = {}
        first = int(start.timestamp() // step * step) + step
        last = math.ceil(min(end, now).timestamp() / step) * step
        for begin in range(first, last + 1, step * MOST_AT_ONCE):
            stop = min(begin + step * (MOST_AT_ONCE - 1), last)
            for labels, points in self._range(query, begin, stop, step):
                for time, value in points:
                    at = int(time) - step
                    cell = found.get(at)
                    if cell is None:
                        cell = found[at] = Cell(at, seconds_of(at, step, now, RAW))
                    # Of a cell that is under way the window reaches as much less far as there is still to come.
                    part = cell.seconds / (cell.seconds + window.seconds - step)
                    _put(cell, shares.setdefault(at, {}), labels, value, part)
        for at, cell in found.items():
            _count(cell, shares[at])
        return step, [found[at] for at in sorted(found)]

    def total(self, scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> Cell:
        stop = min(end, now)
        whole = Cell(int(start.timestamp()), (end - start).total_seconds())
        if not scope.versions or stop <= start:
            return whole
        span = math.ceil((stop - start).total_seconds())
        window = self._window(span)
        shares: dict[str, dict[float, float]] = {}
        for labels, points in self._instant(Questions(scope, window, self._series).all(), stop):
            for _, value in points:
                _put(whole, shares, labels, value, span / window.seconds)
        _count(whole, shares)
        return whole

    def coverage(self, version: uuid.UUID, start: dt.datetime, now: dt.datetime) -> Coverage:
        span = max(math.ceil((now - start).total_seconds()), self._interval)
        query = Questions(Scope((version,)), Window(span, self._interval), self._series).coverage()
        found = {labels["name"]: points[-1][1] for labels, points in self._instant(query, now) if points}
        if "made" not in found:
            return Coverage()
        latest = found.get("latest")
        return Coverage(
            dt.datetime.fromtimestamp(latest, dt.UTC) if latest else None,
            min(found["made"] * self._interval / span, 1.0),
            found.get("held", 0) > 0,
        )

    def gpu_usage(self) -> Usages:
        """What pods do with their GPUs now, by namespace and name."""
        use, memory = devices(self._series["gpu_use"]), devices(self._series["gpu_memory"])
        named = {
            "devices": f"count by (namespace, pod) ({use})",
            "busy": f"sum by (namespace, pod) ({use}) / 100",
            "memory": f"sum by (namespace, pod) ({memory}) * {MIB}",
        }
        query = " or ".join(f'label_replace({each}, "name", "{name}", "", "")' for name, each in named.items())
        found: dict[tuple[str, str], dict[str, float]] = {}
        for labels, points in self._instant(query, None):
            if labels.get("pod") and points:
                found.setdefault((labels.get("namespace", ""), labels["pod"]), {})[labels["name"]] = points[-1][1]
        return {
            pod: GpuUsage(int(told["devices"]), told.get("busy", 0.0), told.get("memory", 0.0))
            for pod, told in found.items()
            if "devices" in told
        }

    def _window(self, seconds: int) -> Window:
        """A little longer than a cell, of which the cell has its share: what came between the last reading of one
        window and the first of the next would be in neither.
        """
        return Window(max(seconds + self._interval, READINGS * self._interval), self._interval, seconds)

    def _range(self, query: str, begin: int, stop: int, step: int) -> Iterator[Sample]:
        answer = self._call("query_range", {"query": query, "start": begin, "end": stop, "step": step})
        for series in answer["result"]:
            yield series["metric"], list(_numbers(series["values"]))

    def _instant(self, query: str, at: dt.datetime | None) -> Iterator[Sample]:
        answer = self._call("query", {"query": query, **({"time": at.timestamp()} if at is not None else {})})
        for series in answer["result"]:
            yield series["metric"], list(_numbers([series["value"]]))

    def _call(self, what: str, form: dict[str, Any]) -> dict[str, Any]:
        """The ``data`` of an answer. By POST: a question about many versions is longer than an address may be."""
        try:
            answer = self._client.post(f"{self._url}/api/v1/{what}", data={**form, "timeout": f"{TIMEOUT:.0f}s"})
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"Prometheus at {self._name} cannot be reached: {error}") from error
        try:
            content = answer.json()
            if content["status"] == "success":
                data: dict[str, Any] = content["data"]
                return data
            said = str(content.get("error", ""))
        except (ValueError, KeyError, TypeError):
            said = answer.text
        raise SourceUnavailable(f"Prometheus at {self._name} answers {answer.status_code}: {said[:300]}")


@functools.lru_cache(maxsize=4)
def _made(url: str, tenant: str, token: str, interval: int, series: tuple[tuple[str, str], ...]) -> PrometheusSource:
    return PrometheusSource(url, tenant, token, interval, dict(series))


def _numbers(values: list[list[Any]]) -> Iterator[tuple[float, float]]:
    for time, text in values:
        value = float(text)
        if math.isfinite(value):
            yield float(time), value


def _put(cell: Cell, shares: dict[str, dict[float, float]], labels: dict[str, str], value: float, part: float) -> None:
    """Put one result into a cell; histograms gather in ``shares`` by name and upper bound."""
    name = labels["name"]
    if name in COUNTS:
        cell.counts[name] = value * part
    elif name in PEAKS:
        cell.peaks[name] = value
    elif name == "start":
        cell.counts["cold_starts"], cell.counts["cold_start_seconds"] = 1, value
        cell.start_buckets = one_of(value, START_BOUNDS)
    elif name.endswith("buckets"):
        shares.setdefault(name, {})[float(labels["le"])] = value * part
    else:
        cell.levels[name] = value


def _count(cell: Cell, shares: dict[str, dict[float, float]]) -> None:
    cell.buckets = apart(shares.get("buckets", {}), BOUNDS)
    if "cold_start_buckets" in shares:
        cell.start_buckets = apart(shares["cold_start_buckets"], START_BOUNDS)
