"""What all routes share: the service behind them, and how a request's body and context are read."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from starlette.requests import ClientDisconnect, Request

from .errors import InvalidInput, RequestError
from .handlers import Handler
from .metrics import READY, RESTARTING, ProcessMetrics, SharedMetrics
from .settings import Settings
from .worker import Call, Worker

JSON = "application/json"

# Most answers come sooner; only slower ones are worth watching whether somebody still waits for them.
_WATCH_AFTER_SECONDS = 0.2


class Service:
    """What the routes share: the handler, the worker that calls it, settings and numbers."""

    def __init__(
        self, settings: Settings, handler: Handler, worker: Worker, shared: SharedMetrics, metrics: ProcessMetrics
    ) -> None:
        self.settings = settings
        self.handler = handler
        self.worker = worker
        self.shared = shared
        self.metrics = metrics

    def is_ready(self) -> bool:
        """Every process has loaded its code and none is being stopped; one that died and comes back is no hindrance."""
        states = self.shared.states()
        return READY in states and set(states) <= {READY, RESTARTING} and self.handler.check()

    def refuse_unloaded(self) -> None:
        """Raises `RequestError` (503) until user code is loaded. While draining, requests are still answered."""
        if self.metrics.state < READY:
            raise RequestError(503, "NotReady", "The model is still being loaded; try again when it is ready.")


class ClientWatch:
    """While open, cancels `call` when the client hangs up: a call that still waits is then not made at all."""

    def __init__(self, request: Request, call: Call) -> None:
        self._request = request
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> ClientWatch:
        self._timer = self._call.loop.call_later(_WATCH_AFTER_SECONDS, self._start)
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._timer is not None
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = self._call.loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._call.cancelled_by_client = True
        self._call.cancel()


async def run(service: Service, request: Request, call: Call) -> bytes:
    """The answer of a call. Raises `RequestError`, with status 499 when the client has gone before it."""
    with ClientWatch(request, call):
        try:
            return await service.worker.run(call)
        except asyncio.CancelledError:
            if not call.cancelled_by_client:
                raise
            raise client_gone() from None


def client_gone() -> RequestError:
    """What is counted and logged for a client that left; nobody is there to read it."""
    return RequestError(499, "ClientGone", "The client left before the answer.")


async def read_body(request: Request, limit: int) -> bytes:
    """The body, unpacked if it is compressed (gzip, deflate), up to `limit` bytes.

    Raises `RequestError`: 413 as soon as it is larger, 415 for another compression, 400 for what cannot be unpacked.
    """
    too_large = RequestError(
        413, "BodyTooLarge", f"The body is larger than {limit} bytes, the limit of this deployment."
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise InvalidInput("The client went away before the body was complete.", 400) from None
    return _unpacked(b"".join(chunks), request.headers.get("content-encoding", ""), limit, too_large)


def _unpacked(body: bytes, encoding: str, limit: int, too_large: RequestError) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise RequestError(
            415,
            "UnsupportedMediaType",
            f"Content-Encoding '{encoding[:40]}' is not understood; use gzip or deflate, or send the body as it is.",
        )
    # 47: with the header of gzip or of zlib, whichever comes; -15: without one, as some send for deflate.
    for wbits in (47, -15) if encoding == "deflate" else (47,):
        unpacker = zlib.decompressobj(wbits)
        try:
            content = unpacker.decompress(body, limit + 1)
        except zlib.error:
            continue
        if len(content) > limit:
            raise too_large
        if unpacker.eof:
            return content
    raise InvalidInput(f"The body is not whole {encoding} data, as its Content-Encoding says.", 400)


def request_context(request: Request) -> dict[str, Any]:
    """The `context` of ``Deployment.request``, with the keys of UbiOps."""
    return {
        "id": request.scope["request_id"],
        "request_mode": request.headers.get("x-pilothouse-request-mode", "express"),
        "user_id": request.headers.get("x-pilothouse-user-id", ""),
    }
