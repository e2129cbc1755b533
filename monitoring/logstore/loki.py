"""Lines in Grafana Loki, over its HTTP API.

One stream per instance, labelled by what it was; level, request and ordinal are structured metadata. Loki takes a line
that it has already (same stream, time and text) only once, so that pushing again after a failure repeats nothing.
Retention is Loki's own (its compactor, with `retention_stream` by the label `project`).

Source: https://grafana.com/docs/loki/latest/reference/loki-http-api/
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from monitoring.logstore.base import StoredLine, StoreUnavailable, Window
from monitoring.models import LogSource

PAGE = 2000
TIMEOUT = 30.0
# Loki refuses a query over more than this by default (`max_query_length` 721h), so the window is read in parts.
LONGEST_QUERY = 30 * 86400 * 10**9
KEPT = 365 * 86400 * 10**9
# Selectors are one regular expression; Loki limits a query to 128 KiB of text.
MOST_SOURCES = 500


class LokiStore:
    def __init__(self, url: str, tenant: str = "", token: str = "") -> None:
        headers = {"User-Agent": "pilothouse"}
        if tenant:
            headers["X-Scope-OrgID"] = tenant
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._url = url.rstrip("/")
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=False)

    def append(self, sources: Mapping[int, LogSource], lines: Sequence[StoredLine]) -> None:
        streams: dict[int, dict[str, Any]] = {}
        for line in lines:
            stream = streams.setdefault(line.source, {"stream": _labels(sources[line.source]), "values": []})
            metadata = {"ordinal": str(line.ordinal)}
            if line.level:
                metadata["level"] = line.level
            if line.request_id:
                metadata["request_id"] = line.request_id
            stream["values"].append([str(line.time), line.text, metadata])
        if streams:
            self._call("POST", "/loki/api/v1/push", json={"streams": list(streams.values())})

    def read(self, sources: Mapping[int, LogSource], window: Window) -> Iterator[StoredLine]:
        if not sources:
            return
        by_instance = {str(source.instance_id): key for key, source in list(sources.items())[:MOST_SOURCES]}
        query = _query(by_instance, window)
        for begin, stop in _parts(window):
            yield from self._read_part(query, by_instance, begin, stop, window.forward)

    def prepare(self, now: dt.datetime) -> None:
        """Nothing: Loki makes room by itself."""

    def expire(self, now: dt.datetime) -> int:
        return 0  # Loki's compactor does it

    def _read_part(
        self, query: str, by_instance: dict[str, int], begin: int, stop: int, forward: bool
    ) -> Iterator[StoredLine]:
        """A full page may end among lines of one time; those are left to the next page, which begins with them."""
        limit = PAGE
        while begin < stop:
            found = self._page(query, by_instance, begin, stop, forward, limit)
            if len(found) < limit:
                yield from found
                return
            last = found[-1].time
            whole = [line for line in found if line.time != last]
            yield from whole
            begin, stop = (last, stop) if forward else (begin, last + 1)
            limit = PAGE if whole else limit * 2  # more lines of one time than a page holds

    def _page(
        self, query: str, by_instance: dict[str, int], begin: int, stop: int, forward: bool, limit: int
    ) -> list[StoredLine]:
        answer = self._call(
            "GET",
            "/loki/api/v1/query_range",
            params={
                "query": query,
                "start": str(begin),
                "end": str(stop),
                "limit": str(limit),
                "direction": "forward" if forward else "backward",
            },
        )
        found = []
        for stream in answer.json()["data"]["result"]:
            labels = stream["stream"]
            source = by_instance.get(labels.get("instance_id", ""))
            if source is None:
                continue
            for value in stream["values"]:
                # Structured metadata comes with each line, or as labels of the stream, by Loki's version.
                metadata = {**labels, **_metadata(value)}
                found.append(
                    StoredLine(
                        source,
                        int(value[0]),
                        int(metadata.get("ordinal", 0)),
                        value[1],
                        metadata.get("level", ""),
                        metadata.get("request_id", ""),
                    )
                )
        return sorted(found, key=lambda line: (line.time, line.source, line.ordinal), reverse=not forward)

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, self._url + path, **options)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"Loki at {self._url} cannot be reached: {error}") from error
        if answer.status_code >= 300:
            raise StoreUnavailable(f"Loki at {self._url} answers {answer.status_code}: {answer.text[:300]}")
        return answer


def _labels(source: LogSource) -> dict[str, str]:
    return {
        "job": "pilothouse",
        "project": str(source.project_id),
        "deployment": source.deployment_name,
        "version": source.version_name,
        "instance_id": str(source.instance_id),
    }


def _query(by_instance: Mapping[str, int], window: Window) -> str:
    query = f'{{job="pilothouse", instance_id=~"{"|".join(by_instance)}"}}'
    for needle in window.needles:
        query += f" |= {_quoted(needle)}"
    if window.request_id:
        query += f" | request_id={_quoted(window.request_id)}"
    return query


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _metadata(value: list[Any]) -> dict[str, str]:
    extra = value[2] if len(value) > 2 and isinstance(value[2], dict) else {}
    inner = extra.get("structuredMetadata", extra)
    return inner if isinstance(inner, dict) else {}


def _parts(window: Window) -> Iterator[tuple[int, int]]:
    """The window in pieces that Loki takes, in the window's order."""
    now = int(dt.datetime.now(dt.UTC).timestamp()) * 10**9
    stop = min(window.stop, now + 3600 * 10**9)
    begin = max(window.begin, now - KEPT)
    pieces = [(at, min(at + LONGEST_QUERY, stop)) for at in range(begin, stop, LONGEST_QUERY)]
    yield from pieces if window.forward else reversed(pieces)
