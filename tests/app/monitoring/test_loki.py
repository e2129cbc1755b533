"""The Loki store against a small server of our own that speaks the part of Loki's HTTP API that is used.

It stands in for the shape of the protocol only; it is not Loki.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils import timezone

from monitoring.logstore import LokiStore, StoredLine, current
from monitoring.logstore import loki as module
from monitoring.logstore.base import StoreUnavailable, Window
from tests.app.monitoring.conftest import Fleet, nanoseconds, source
from tests.support.http import QuietHandler, Server

pytestmark = pytest.mark.django_db

BASE = nanoseconds(timezone.now())


class FakeLoki(Server):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.entries: set[tuple[str, str, str, str]] = set()  # stream, time, line, metadata
        self.headers: list[dict[str, str]] = []
        self.failing = 0


class Handler(QuietHandler):
    server: FakeLoki

    def post(self) -> None:
        assert self.path == "/loki/api/v1/push"
        assert self.headers["Content-Type"] == "application/json"
        self.server.headers.append(dict(self.headers))
        body = json.loads(self.body())
        if self.server.failing:
            self.answer(self.server.failing, b"ingester is full")
            return
        for stream in body["streams"]:
            for time, line, metadata in stream["values"]:
                labels = json.dumps(stream["stream"], sort_keys=True)
                self.server.entries.add((labels, time, line, json.dumps(metadata, sort_keys=True)))
        self.answer(204, b"")

    def get(self) -> None:
        url = urlsplit(self.path)
        assert url.path == "/loki/api/v1/query_range"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        instances = re.search(r'instance_id=~"([^"]*)"', query["query"])
        assert instances is not None
        chosen = []
        for labels, time, line, metadata in self.server.entries:
            stream = json.loads(labels)
            needles = [json.loads(text) for text in re.findall(r'\|= ("(?:[^"\\]|\\.)*")', query["query"])]
            if (
                re.fullmatch(instances[1], stream["instance_id"])
                and int(query["start"]) <= int(time) < int(query["end"])
                and all(needle in line for needle in needles)
            ):
                chosen.append((int(time), stream, line, json.loads(metadata)))
        chosen.sort(key=lambda entry: entry[0], reverse=query["direction"] == "backward")
        # As Loki answers: structured metadata among the stream's labels.
        result = [
            {"stream": {**stream, **metadata}, "values": [[str(time), line]]}
            for time, stream, line, metadata in chosen[: int(query["limit"])]
        ]
        self.answer(
            200, json.dumps({"status": "success", "data": {"resultType": "streams", "result": result}}).encode()
        )


@pytest.fixture
def loki() -> Iterator[FakeLoki]:
    with FakeLoki().running() as server:
        yield server


def test_lines_come_back_in_order_over_pages(fleet: Fleet, loki: FakeLoki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 4)
    store, rows = LokiStore(loki.url, "tenant-1", "secret"), [source(fleet), source(fleet)]
    sources = {row.pk: row for row in rows}
    times = [(1, 0), (2, 0), (2, 1), (2, 2), (3, 0), (4, 0), (5, 0)]
    lines = [StoredLine(row.pk, BASE + t, n, f"{t}.{n}", "info", "req") for row in rows for t, n in times]
    store.append(sources, lines)
    store.append(sources, lines)  # once more, as after a crash
    forward = list(store.read(sources, Window(begin=BASE, forward=True)))
    assert sorted(forward, key=lambda line: (line.time, line.source, line.ordinal)) == forward
    assert set(forward) == set(lines)
    assert len(forward) == len(lines)
    assert list(store.read(sources, Window(begin=BASE))) == forward[::-1]
    only = {rows[0].pk: rows[0]}
    assert [line.text for line in store.read(only, Window(begin=BASE, needles=("2.1",)))] == ["2.1"]
    assert loki.headers[0]["X-Scope-OrgID"] == "tenant-1"
    assert loki.headers[0]["Authorization"] == "Bearer secret"


def test_trouble_is_told_with_loki_and_its_answer(fleet: Fleet, loki: FakeLoki) -> None:
    row = source(fleet)
    loki.failing = 503
    with pytest.raises(StoreUnavailable, match=r"Loki at http.* answers 503: ingester is full"):
        LokiStore(loki.url).append({row.pk: row}, [StoredLine(row.pk, BASE, 0, "x")])
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        LokiStore("http://127.0.0.1:1").append({row.pk: row}, [StoredLine(row.pk, BASE, 0, "x")])


def test_the_setting_chooses_the_store(settings: Any) -> None:
    settings.PILOTHOUSE_LOKI_URL = "http://127.0.0.1:1/"
    assert isinstance(current(), LokiStore)
