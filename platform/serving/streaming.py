"""Answers in parts, as server-sent events.

Each part is a ``data:`` event of its own: text as it is, anything else as JSON. The last event is
``event: result`` with ``{"result": ...}``, or ``event: error`` with the error's usual body.
"""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .errors import RequestError
from .serialize import dumps
from .service import ClientWatch, Service, client_gone
from .worker import Call

# A comment now and then tells proxies that the connection lives.
KEEP_ALIVE_SECONDS = 15.0


def wants_events(request: Request) -> bool:
    """Whether the client asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")


async def event_stream(service: Service, request: Request, call: Call) -> Response:
    """Start a call and answer with its events.

    Waits for the first part: a call that fails before it is an ordinary error with its own status, not a
    stream. Raises `RequestError` for those.
    """
    service.worker.start(call)
    assert call.chunks is not None
    first: asyncio.Future[Any] = asyncio.ensure_future(call.chunks.get())
    try:
        with ClientWatch(request, call):
            await asyncio.wait([first, call.done], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        first.cancel()
        call.cancel()
        raise
    if call.cancelled_by_client:
        first.cancel()
        raise client_gone()
    if not first.done():
        first.cancel()
        if call.chunks.empty():
            call.done.result()  # Raises what the call raised.
    events = _events(call, [first.result()] if first.done() and not first.cancelled() else [])
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(call: Call, parts: list[Any]) -> AsyncIterator[bytes]:
    assert call.chunks is not None
    try:
        for part in parts:
            yield event(part)
        while not call.done.done() or not call.chunks.empty():
            waiting = asyncio.ensure_future(call.chunks.get())
            try:
                done, _ = await asyncio.wait(
                    [waiting, call.done], timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                if not waiting.done():
                    waiting.cancel()
            if waiting in done:
                yield event(waiting.result())
            elif not done:
                yield b": still here\n\n"
        try:
            yield b"event: result\ndata: " + call.done.result() + b"\n\n"
        except RequestError as error:
            yield b"event: error\ndata: " + dumps(error.body()) + b"\n\n"
    finally:
        if not call.done.done():
            call.cancel()


def event(part: Any) -> bytes:
    """One part as an event. Lines of a text become ``data:`` lines, which a reader joins again."""
    text = part if isinstance(part, str) else dumps(part).decode()
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode("utf-8", "replace") + b"\n"
