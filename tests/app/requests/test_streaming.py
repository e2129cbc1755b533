"""Streaming requests, and reading server-sent events."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from accounts.errors import Unavailable
from accounts.models import User
from deployments import background
from deployments.models import DeploymentVersion, Request
from deployments.services import requests
from deployments.services.requests import Part
from tests.app.requests.conftest import Handler, Pods, failing, hang_up


def stream_of(*pieces: str, cut: bool = False) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert "text/event-stream" in request.headers["Accept"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece.encode())
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


def ask(actor: User, version: DeploymentVersion) -> list[Part | Request]:
    async def call() -> list[Part | Request]:
        return [item async for item in requests.stream_request(actor, version, {"n": 3}, 10)]

    return background.run(call(), timeout=30)


def test_parts_then_the_finished_request(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(
        stream_of("data: one\n\n: still here\n\n", 'data: {"a": 1}\n\n', 'event: result\ndata: {"result": 3}\n\n')
    )
    *parts, last = ask(sender, version)
    assert parts == [Part("one"), Part('{"a": 1}')]
    assert isinstance(last, Request)
    assert (last.status, last.result, last.streaming) == (Request.Status.COMPLETED, 3, True)
    assert Request.objects.get().result == 3


def test_an_error_in_the_middle(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    error = 'event: error\ndata: {"error": {"type": "ValueError", "message": "no"}}\n\n'
    pods.start(stream_of("data: one\n\n", error))
    *parts, last = ask(sender, version)
    assert parts == [Part("one")]
    assert isinstance(last, Request)
    assert (last.status, last.error_message) == (Request.Status.FAILED, "ValueError: no")


def test_an_error_before_the_first_part(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(failing(500, "ValueError", "no"))
    (last,) = ask(sender, version)
    assert isinstance(last, Request)
    assert last.error_message == "ValueError: no"


def test_a_client_that_goes_away_leaves_its_request(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(stream_of("data: one\n\n", "data: two\n\n", 'event: result\ndata: {"result": 3}\n\n'))

    async def leave() -> None:
        stream = requests.stream_request(sender, version, {"n": 3}, 10)
        assert await anext(stream) == Part("one")
        await stream.aclose()

    background.run(leave(), timeout=30)
    row = Request.objects.get()
    assert (row.status, row.error_message) == (
        Request.Status.FAILED,
        "The client went away before the answer was complete.",
    )


def test_a_stream_that_breaks_off_is_not_begun_again(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    for _ in range(2):
        pods.start(stream_of("data: one\n\n", cut=True))
    with pytest.raises(Unavailable, match="went away"):
        ask(sender, version)
    assert sum(len(headers) for headers in pods.seen.values()) == 1
    assert Request.objects.get().status == Request.Status.FAILED


def test_a_pod_that_is_gone_before_the_first_part_is_replaced(
    sender: User, version: DeploymentVersion, pods: Pods
) -> None:
    pods.start(hang_up)
    pods.start(stream_of('event: result\ndata: {"result": 1}\n\n'))
    assert isinstance(ask(sender, version)[-1], Request)


def test_an_answer_without_a_result(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(stream_of("data: one\n\n"))
    last = ask(sender, version)[-1]
    assert isinstance(last, Request)
    assert "before the result" in last.error_message


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20), max_size=5
    ),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=10),
)
def test_events_are_read_the_same_however_they_are_cut(texts: list[str], sizes: list[int]) -> None:
    raw = "".join(f"event: update\ndata: {text}\ndata: more\n\n" for text in texts).encode()

    async def chunks() -> AsyncIterator[bytes]:
        position, number = 0, 0
        while position < len(raw):
            size = sizes[number % len(sizes)]
            yield raw[position : position + size]
            position, number = position + size, number + 1

    async def read() -> list[tuple[str, str]]:
        return [event async for event in requests.events(chunks())]

    assert asyncio.run(read()) == [("update", f"{text}\nmore") for text in texts]
