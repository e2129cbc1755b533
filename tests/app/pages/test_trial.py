"""The form that tries a deployment, and the code to copy beside it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client
from django.urls import reverse

from deployments.services.requests import Part
from deployments.views import trial
from tests.app import factories
from tests.app.pages.conftest import Site


@pytest.fixture
def sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    got: list[Any] = []

    async def answer(actor: Any, version: Any, data: Any, timeout: float) -> Any:  # noqa: ASYNC109
        got.append(data)
        return site.request

    monkeypatch.setattr(trial, "direct_request", answer)
    return got


def test_values_are_sent_with_their_types(site: Site, editor: Client, sent: list[Any]):
    kinds = ["double", "int", "string", "bool", "array_double", "dict"]
    site.deployment.input_fields = [{"name": f"the {kind}", "data_type": kind} for kind in kinds]
    site.deployment.save()
    typed = ["1.5", "2", " text ", "true", "[1, 2.5]", '{"a": null}']
    form = {f"field-{position}": text for position, text in enumerate(typed)}
    html = editor.post(site.url("version-try"), {"mode": "form", **form}).content.decode()
    assert [list(sent[0].values())] == [[1.5, 2, " text ", True, [1, 2.5], {"a": None}]]
    assert "Answered" in html
    assert str(site.request.pk) in html


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf"])
def test_what_is_no_number_is_refused_by_name(site: Site, editor: Client, sent: list[Any], text: str):
    html = editor.post(site.url("version-try"), {"mode": "form", "field-0": text}).content.decode()
    assert "<code>x</code>: A number is needed here" in html
    assert sent == []


def test_json_is_sent_as_it_is(site: Site, editor: Client, sent: list[Any]):
    editor.post(site.url("version-try"), {"mode": "json", "data": '{"x": 3}'})
    assert sent == [{"x": 3}]
    for text in ("{x", "[" * 100_000 + "]" * 100_000):
        html = editor.post(site.url("version-try"), {"mode": "json", "data": text}).content.decode()
        assert "This is not JSON" in html


def test_plain_text_is_sent_as_it_is(site: Site, editor: Client, sent: list[Any]):
    site.deployment.input_type, site.deployment.input_fields = "plain", []
    site.deployment.save()
    editor.post(site.url("version-try"), {"data": "1.5"})
    assert sent == ["1.5"]


def test_a_stream_gives_parts_and_then_the_answer(site: Site, editor: Client, monkeypatch: pytest.MonkeyPatch):
    async def stream(actor: Any, version: Any, data: Any, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109
        yield Part("one\nline ")
        yield Part("<b>")
        yield site.request

    monkeypatch.setattr(trial, "stream_request", stream)
    answer = editor.post(site.url("version-try"), {"mode": "form", "field-0": "1", "stream": "1"})
    events = _events(answer)
    assert answer["Content-Type"] == "text/event-stream"
    assert events[:2] == ["data: one\ndata: line ", "data: <b>"]
    assert events[2].startswith("event: answer\ndata: <div")
    assert "Answered" in events[2]
    refused = _events(editor.post(site.url("version-try"), {"mode": "json", "data": "{", "stream": "1"}))
    assert "This is not JSON" in refused[0]


def test_a_failing_function_shows_its_error_as_text(site: Site, editor: Client, sent: list[Any]):
    site.request.status, site.request.error_message = "failed", "ValueError: <b>no</b>"
    html = editor.post(site.url("version-try"), {"mode": "form", "field-0": "1"}).content.decode()
    assert "Failed" in html
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in html


def _events(answer: Any) -> list[str]:
    """The server-sent events of a streaming answer."""

    async def read() -> str:
        return b"".join([chunk async for chunk in answer.streaming_content]).decode()

    return async_to_sync(read)().removesuffix("\n\n").split("\n\n")


def test_snippets_name_the_endpoint_and_a_fitting_body(site: Site, editor: Client):
    html = editor.get(site.url("version")).content.decode()
    assert f"/api/v1/projects/{site.project.name}/deployments/{site.deployment.name}/requests" in html
    assert "deployment_requests_create" in html
    second = factories.version(site.deployment, "v2")
    pinned = editor.get(reverse("version", args=[*site.names[:2], second.version])).content.decode()
    assert "/versions/v2/requests" in pinned
    assert "deployment_version_requests_create" in pinned
