"""Every refusal as one JSON shape: `{"error": sentence, "errors": {field: sentence}}`.

`error` is what the public client prints; `errors` names the fields, when there are any.
"""

import logging
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from accounts.errors import Invalid, NotFound, ServiceError, Unavailable

logger = logging.getLogger(__name__)


def body_of(error: ServiceError) -> dict[str, Any]:
    body: dict[str, Any] = {"error": _sendable(error.message)}
    if isinstance(error, Invalid) and error.fields:
        body["errors"] = {_sendable(name): _sendable(text) for name, text in error.fields.items()}
    if error.code:
        body["code"] = error.code
    return body


def _sendable(text: str) -> str:
    """What was sent may come back in a message: a lone surrogate, which has no UTF-8 form, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def response_of(error: ServiceError) -> Response:
    headers = {}
    if isinstance(error, Unavailable) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(body_of(error), status=error.status, headers=headers)


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook. None lets Django answer 500 and log the traceback."""
    set_rollback()
    if isinstance(exc, ServiceError):
        return response_of(exc)
    if isinstance(exc, Http404):
        return response_of(NotFound("The resource"))
    if isinstance(exc, PermissionDenied):
        return Response({"error": "This is not allowed"}, status=status.HTTP_403_FORBIDDEN)
    if isinstance(exc, exceptions.ValidationError):
        return response_of(_invalid(exc.detail))
    if isinstance(exc, exceptions.APIException):
        headers = {}
        if challenge := getattr(exc, "auth_header", None):
            headers["WWW-Authenticate"] = challenge
        if wait := getattr(exc, "wait", None):
            headers["Retry-After"] = str(int(wait))
        return Response({"error": str(exc.detail)}, status=exc.status_code, headers=headers)
    return None


def _invalid(detail: Any) -> Invalid:
    fields = _flatten(detail)
    if not fields or set(fields) == {""}:
        return Invalid(fields.get("", "The input is not valid"))
    return Invalid(**{name or "non_field_errors": text for name, text in fields.items()})


def _flatten(detail: Any, path: str = "") -> dict[str, str]:
    """DRF's nested detail as `field.index.field: sentence`."""
    if isinstance(detail, dict):
        return {
            name: text
            for key, value in detail.items()
            for name, text in _flatten(
                value, path if key == "non_field_errors" else f"{path}.{key}".lstrip(".")
            ).items()
        }
    if isinstance(detail, list):
        if all(isinstance(item, str) for item in detail):
            return {path: " ".join(detail)} if detail else {}
        return {
            name: text
            for index, item in enumerate(detail)
            for name, text in _flatten(item, f"{path}.{index}".lstrip(".")).items()
        }
    return {path: str(detail)}
