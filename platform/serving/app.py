"""The HTTP side: native routes, Open Inference Protocol V1 and V2, health and metrics."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import protocols
from .errors import InvalidInput, RequestError
from .handlers import answer_all
from .observe import Observed
from .serialize import dumps, loads
from .service import JSON, Service, read_body, request_context, run
from .streaming import event_stream, wants_events
from .worker import Call


def make_app(service: Service) -> Observed:
    """The ASGI application."""
    routes = [
        Route("/request", native_request, methods=["POST"]),
        Route("/requests", native_requests, methods=["POST"]),
        Route("/metrics", metrics, methods=["GET"]),
        *protocols.routes(),
    ]
    app = Starlette(routes=routes, exception_handlers={RequestError: _native_error, HTTPException: _http_error})
    app.state.service = service
    return Observed(app, service.metrics)


async def native_request(request: Request) -> Response:
    """``POST /request``: one request. JSON or text in, ``{"result": ...}`` or server-sent events out."""
    service: Service = request.app.state.service
    request.scope["handler"] = "stream" if wants_events(request) else "request"
    service.refuse_unloaded()
    data = await _native_data(request, service.settings.max_body_bytes)
    context = request_context(request)

    def work(call: Call) -> bytes:
        emit = call.emit if call.chunks is not None else None
        return dumps({"result": service.handler.request(data, context, emit)})

    streaming = wants_events(request)
    call = Call(work, request.scope["request_id"], streaming)
    if streaming:
        return await event_stream(service, request, call)
    return Response(await run(service, request, call), media_type=JSON)


async def native_requests(request: Request) -> Response:
    """``POST /requests``: a JSON list of requests, each answered or failed by itself."""
    service: Service = request.app.state.service
    request.scope["handler"] = "requests"
    service.refuse_unloaded()
    items = loads(await read_body(request, service.settings.max_body_bytes))
    if not isinstance(items, list):
        raise InvalidInput("The body is not a JSON list: send a list of requests, or one to /request.")
    context = request_context(request)

    def work(_: Call) -> bytes:
        return dumps({"results": answer_all(service.handler, items, context) if items else []})

    return Response(await run(service, request, Call(work, request.scope["request_id"])), media_type=JSON)


async def metrics(request: Request) -> Response:
    """``GET /metrics``: the numbers of all processes."""
    service: Service = request.app.state.service
    settings = service.settings
    info = {
        "project": settings.project,
        "deployment": settings.deployment,
        "version": settings.version,
        "revision": settings.revision,
        "instance": settings.instance,
    }
    return PlainTextResponse(service.shared.text(info), media_type="text/plain; version=0.0.4")


async def _native_data(request: Request, limit: int) -> Any:
    body = await read_body(request, limit)
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind != "text/plain":
        return loads(body)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("The body is not UTF-8.", 400) from None


def _native_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    if request.scope["path"].startswith(("/v1", "/v2")):
        # These protocols have an error of text.
        return Response(dumps({"error": error.message}), status_code=error.status, media_type=JSON)
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return Response(dumps(error.body()), status_code=error.status, media_type=JSON, headers=headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    message = f"There is no {path} here." if error.status_code == 404 else f"{path}: {error.detail}."
    told = RequestError(error.status_code, "NotFound" if error.status_code == 404 else "NotAllowed", message)
    response = _native_error(request, told)
    response.headers.update(error.headers or {})
    return response
