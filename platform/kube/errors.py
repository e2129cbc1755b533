"""What can go wrong when talking to a cluster."""

from __future__ import annotations

import json
from typing import Any


class KubeError(Exception):
    """The API server refused a call.

    ``status`` is the HTTP status, ``reason`` the machine-readable word of the Status object (``NotFound``,
    ``Conflict``, ``Invalid``...), the message is the server's own sentence.
    """

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}


class NotFound(KubeError):
    """The object, or its namespace, does not exist."""


class Conflict(KubeError):
    """The object changed in between, exists already, or its namespace is being deleted."""


class ClusterUnreachable(Exception):
    """No usable answer from the API server: the connection failed, timed out, or the server is out of order."""


class BadKubeconfig(Exception):
    """The kubeconfig cannot be used; the message names the file and what is missing."""


def from_answer(status: int, body: bytes) -> Exception:
    """The exception that an API server's answer with ``status`` >= 400 means."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    message = answer.get("message") or body[:300].decode("utf-8", "replace") or f"HTTP {status}"
    if status in (429, 500, 502, 503, 504):
        return ClusterUnreachable(f"The API server answers {status}: {message}")
    kind = {404: NotFound, 409: Conflict}.get(status, KubeError)
    return kind(status, answer.get("reason", ""), message, answer.get("details"))
