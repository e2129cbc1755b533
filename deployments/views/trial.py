"""Sending one request from the page and showing its answer, whole or in parts as they come."""

import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.views.decorators.http import require_POST

from accounts.access import Permission
from accounts.errors import Invalid, ServiceError
from deployments.models import DataType, DeploymentVersion, Request
from deployments.services.requests import Part, direct_request, stream_request
from deployments.views import tryit
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import respond
from deployments.views.versions import named

TEMPLATE = "deployments/_answer.html"
TIMEOUT_SECONDS = 120
SHOWN_CHARACTERS = 200_000


@require_POST
@in_project(Permission.REQUEST_SEND)
def send(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponseBase:
    """The answer as a fragment, refusals and failures too: they are what a person tries things out for.

    With ``stream`` it is a stream of events: parts as text, and the fragment in the last one, named ``answer``.
    """
    found = named(request, tenant, deployment, version)
    frame = {"tenant": tenant, "deployment": found.deployment, "version": found}
    if request.POST.get("stream"):
        stream = StreamingHttpResponse(_events(request, found, frame), content_type="text/event-stream")
        stream.headers["Cache-Control"] = "no-store"
        stream.headers["X-Accel-Buffering"] = "no"
        return stream
    started = monotonic()
    try:
        data = tryit.read(found.deployment, request.POST)
        call = async_to_sync(direct_request)(user_of(request), found, data, timeout=TIMEOUT_SECONDS)
    except ServiceError as error:
        return respond(request, TEMPLATE, {**frame, **_refusal(error, started)})
    return respond(request, TEMPLATE, {**frame, **_answer(found, call, started)})


async def _events(request: HttpRequest, version: DeploymentVersion, frame: dict[str, Any]) -> AsyncIterator[str]:
    started = monotonic()
    context: dict[str, Any] = {}
    try:
        data = tryit.read(version.deployment, request.POST)
        async for item in stream_request(user_of(request), version, data, timeout=TIMEOUT_SECONDS):
            if isinstance(item, Part):
                yield _event(item.text)
            else:
                context = _answer(version, item, started)
    except ServiceError as error:
        context = _refusal(error, started)
    html = await sync_to_async(render_to_string)(TEMPLATE, {**frame, **context}, request)
    yield _event(html, "answer")


def _event(text: str, name: str = "") -> str:
    """One server-sent event. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    lines = [f"event: {name}"] if name else []
    return "\n".join([*lines, *(f"data: {line}" for line in text.split("\n")), "", ""])


def _since(started: float) -> int:
    return round((monotonic() - started) * 1000)


def _refusal(error: ServiceError, started: float) -> dict[str, Any]:
    if not isinstance(error, Invalid):
        return {"error": error.message, "outcome": "No answer", "milliseconds": _since(started)}
    told = "The input does not fit" if error.fields else error.message
    return {"error": told, "outcome": "Refused", "fields": error.fields}


def _answer(version: DeploymentVersion, call: Request, started: float) -> dict[str, Any]:
    kept = version.request_retention_mode != DeploymentVersion.RetentionMode.NONE
    context: dict[str, Any] = {"milliseconds": _since(started), "request_id": call.pk if kept else None}
    if call.status != Request.Status.COMPLETED:
        return {**context, "error": call.error_message, "outcome": "Failed", "next": "The log holds the traceback."}
    structured = version.deployment.output_type == DataType.STRUCTURED
    result = call.result if structured and isinstance(call.result, dict) else {}
    text = json.dumps(call.result, indent=2, ensure_ascii=False)
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}\n… {len(text) - SHOWN_CHARACTERS} more characters"
    return {
        **context,
        "result": text,
        # Short values stand out; long ones are read in the JSON below.
        "values": [(name, value) for name, value in result.items() if _short(value)],
    }


def _short(value: Any) -> bool:
    return isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= 200)
