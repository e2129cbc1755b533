"""Sending one request from the page and showing its answer."""

import json
from time import monotonic
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_POST

from accounts.access import Permission
from accounts.errors import Invalid, ServiceError
from deployments.models import DataType, DeploymentVersion, Request
from deployments.services.requests import direct_request
from deployments.views import tryit
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import respond
from deployments.views.versions import named

TIMEOUT_SECONDS = 120
SHOWN_BYTES = 200_000


@require_POST
@in_project(Permission.REQUEST_SEND)
def send(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """The answer as a fragment, refusals and failures too: they are what a person tries things out for."""
    found = named(request, tenant, deployment, version)
    context: dict[str, Any] = {"tenant": tenant, "deployment": found.deployment, "version": found}
    started = monotonic()
    try:
        data = tryit.read(found.deployment, request.POST)
        call = async_to_sync(direct_request)(user_of(request), found, data, timeout=TIMEOUT_SECONDS)
    except Invalid as error:
        context |= {"error": "The input does not fit", "outcome": "Refused", "fields": error.fields}
        if not error.fields:
            context["error"] = error.message
    except ServiceError as error:
        context |= {"error": error.message, "outcome": "No answer", "milliseconds": _since(started)}
    else:
        context |= _answer(found, call, _since(started))
    return respond(request, "deployments/_answer.html", context)


def _since(started: float) -> int:
    return round((monotonic() - started) * 1000)


def _answer(version: DeploymentVersion, call: Request, milliseconds: int) -> dict[str, Any]:
    kept = version.request_retention_mode != DeploymentVersion.RetentionMode.NONE
    context: dict[str, Any] = {"milliseconds": milliseconds, "request_id": call.pk if kept else None}
    if call.status != Request.Status.COMPLETED:
        return {
            **context,
            "error": call.error_message,
            "outcome": "Failed",
            "next": "The log holds the traceback.",
        }
    structured = version.deployment.output_type == DataType.STRUCTURED
    result = call.result if structured and isinstance(call.result, dict) else {}
    text = json.dumps(call.result, indent=2, ensure_ascii=False)
    if len(text) > SHOWN_BYTES:
        text = f"{text[:SHOWN_BYTES]}\n… {len(text) - SHOWN_BYTES} more characters"
    return {
        **context,
        "result": text,
        # Short values stand out; long ones are read in the JSON below.
        "values": [(name, value) for name, value in result.items() if _short(value)],
    }


def _short(value: Any) -> bool:
    return isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= 200)
