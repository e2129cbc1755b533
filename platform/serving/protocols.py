"""The Open Inference Protocol: V2 (``/v2/...``) and V1 (``/v1/models/...``)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import binary_tensors, tensors
from .errors import InvalidInput, RequestError
from .serialize import dumps, loads
from .service import JSON, Service, read_body, request_context, run
from .worker import Call

SERVER = "pilothouse"
PROTOCOL = "2.0"


def routes() -> list[Route]:
    """The routes of both protocols."""
    found = [
        Route("/v2", server_metadata, methods=["GET"]),
        Route("/v2/health/live", live, methods=["GET"]),
        Route("/v2/health/ready", ready, methods=["GET"]),
        Route("/", v1_live, methods=["GET"]),
        Route("/v1/models", v1_models, methods=["GET"]),
        Route("/v1/models/{model}:predict", v1_predict, methods=["POST"]),
        Route("/v1/models/{model}", v1_model, methods=["GET"]),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            Route(path, model_metadata, methods=["GET"]),
            Route(path + "/ready", model_ready, methods=["GET"]),
            Route(path + "/infer", infer, methods=["POST"]),
        ]
    return found


async def server_metadata(request: Request) -> Response:
    """``GET /v2``: what this server is."""
    return answer({"name": SERVER, "version": PROTOCOL, "extensions": ["binary_tensor_data"]})


async def live(request: Request) -> Response:
    """``GET /v2/health/live``: the process answers, whatever user code does."""
    return answer({"live": True})


async def ready(request: Request) -> Response:
    """``GET /v2/health/ready``: 200 when requests may come, 503 while loading or draining."""
    is_ready = _service(request).is_ready()
    return answer({"ready": is_ready}, 200 if is_ready else 503)


async def model_ready(request: Request) -> Response:
    """``GET /v2/models/{model}/ready``."""
    service = _named(request)
    is_ready = service.is_ready()
    return answer({"name": service.settings.model_name, "ready": is_ready}, 200 if is_ready else 503)


async def model_metadata(request: Request) -> Response:
    """``GET /v2/models/{model}``: names, datatypes and shapes, as far as they are known."""
    service = _named(request)
    service.refuse_unloaded()
    settings = service.settings
    described = service.handler.metadata()
    return answer(
        {
            "name": settings.model_name,
            "versions": [settings.version] if settings.version else [],
            "platform": service.handler.platform,
            "inputs": described["inputs"],
            "outputs": described["outputs"],
        }
    )


async def infer(request: Request) -> Response:
    """``POST /v2/models/{model}/infer``: tensors in, tensors out."""
    request.scope["handler"] = "v2"
    service = _named(request)
    body, content = await _json_object(request, service)
    inputs = tensors.parse(binary_tensors.read(body, content))
    if not isinstance(body.get("outputs") or [], list):
        raise InvalidInput("'outputs' is not a list.", 400)
    wanted = [item.get("name") for item in body.get("outputs") or [] if isinstance(item, dict)]
    context = request_context(request)
    head = {"model_name": service.settings.model_name, "model_version": service.settings.version}
    head["id"] = str(body.get("id") or context["id"])
    length = 0

    def work(_: Call) -> bytes:
        nonlocal length
        outputs = service.handler.infer(inputs, context)
        names = [tensor.name for tensor in outputs]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise InvalidInput(f"There is no output '{missing[0]}'; the outputs are {', '.join(names)}.", 400)
        entries, parts = [], []
        for tensor in outputs:
            if wanted and tensor.name not in wanted:
                continue
            if binary_tensors.wanted(body, tensor.name):
                entry, part = binary_tensors.write(tensor)
                parts.append(part)
            else:
                entry = tensor.as_json()
            entries.append(entry)
        told = dumps(dict(head, outputs=entries))
        length = len(told) if parts else 0
        return b"".join([told, *parts])

    answered = await run(service, request, Call(work, context["id"]))
    if not length:
        return Response(answered, media_type=JSON)
    return Response(answered, media_type=binary_tensors.CONTENT_TYPE, headers={binary_tensors.HEADER: str(length)})


async def v1_live(request: Request) -> Response:
    """``GET /``: how V1 asks whether the process answers."""
    return answer({"status": "alive"})


async def v1_models(request: Request) -> Response:
    """``GET /v1/models``: the one model of this instance."""
    return answer({"models": [_service(request).settings.model_name]})


async def v1_model(request: Request) -> Response:
    """``GET /v1/models/{model}``."""
    service = _named(request)
    is_ready = service.is_ready()
    return answer({"name": service.settings.model_name, "ready": is_ready}, 200 if is_ready else 503)


async def v1_predict(request: Request) -> Response:
    """``POST /v1/models/{model}:predict``: ``{"instances": [...]}`` in, ``{"predictions": [...]}`` out."""
    request.scope["handler"] = "v1"
    service = _named(request)
    body, _ = await _json_object(request, service)
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise InvalidInput("'instances' is missing: a list with one item per prediction is needed.", 400)
    context = request_context(request)

    def work(_: Call) -> bytes:
        return dumps({"predictions": service.handler.predict(instances, context)})

    return Response(await run(service, request, Call(work, context["id"])), media_type=JSON)


def answer(body: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(dumps(body), status_code=status, media_type=JSON)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _named(request: Request) -> Service:
    """The service, when the path names its model and version. Raises `RequestError` (404)."""
    service = _service(request)
    settings = service.settings
    model = request.path_params["model"]
    if model != settings.model_name:
        raise RequestError(404, "NotFound", f"There is no model '{model}' here; this is '{settings.model_name}'.")
    version = request.path_params.get("version", settings.version)
    if version != settings.version:
        raise RequestError(404, "NotFound", f"There is no version '{version}' here; this is '{settings.version}'.")
    return service


async def _json_object(request: Request, service: Service) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a body, and the bytes that follow it."""
    service.refuse_unloaded()
    whole = await read_body(request, service.settings.max_body_bytes)
    told, content = binary_tensors.split(whole, request.headers.get(binary_tensors.HEADER))
    body = loads(told)
    if not isinstance(body, dict):
        raise InvalidInput("The body is not a JSON object.", 400)
    return body, content
