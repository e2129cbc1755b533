"""The short way of a direct request: from the ASGI server to an instance without Django's middleware and DRF.

They cost more than a small model. What is answered is the same, and so is who gets an answer: everything that is not
plainly a direct request with a valid token goes to Django as if this were not here, every refusal included that needs
more than a sentence. Access is looked up once a second and process: a token that is revoked, or a schema that is
changed, is noticed that much later here.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from accounts import tokens
from accounts.access import Permission
from accounts.authentication import secret_of
from accounts.errors import ServiceError, Unavailable
from accounts.models import User
from deployments.api.errors import body_of
from deployments.api.requests import created
from deployments.models import DeploymentVersion
from deployments.services import lookup, requests
from deployments.services.threads import in_thread

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
# ASGI servers, Django and Channels each type messages in their own way.
App = Callable[[Scope, Any, Any], Awaitable[None]]

BELIEVE_SECONDS = 1.0
MOST_KNOWN = 10_000

_PATH = re.compile(r"^/api/v1/projects/([^/]+)/deployments/([^/]+)(?:/versions/([^/]+))?/requests$")


@dataclass(slots=True)
class _Known:
    """Who a secret is and what it may send to, as of ``at`` (monotonic)."""

    user: User
    version: DeploymentVersion
    at: float


class DirectRequests:
    """ASGI application around Django's. ``headers`` are added to every answer that it gives itself."""

    def __init__(self, django: App, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._django = django
        self._headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff"), *headers]
        self._known: dict[tuple[str, str], _Known] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(scope)
        if asked is None:
            await self._django(scope, receive, send)
            return
        secret, text, seconds = asked
        body, receive = await _read(receive)
        try:
            known = await self._resolve(secret, scope["path"])
            data = body.decode() if text else orjson.loads(body)
        except (ServiceError, ValueError):
            # Django says it in its own way, with all that belongs to it.
            await self._django(scope, receive, send)
            return
        try:
            row = await requests.direct_admitted(
                known.user, known.version, data, requests.checked_timeout(seconds, requests.DIRECT_SECONDS)
            )
        except ServiceError as error:
            again = error.retry_after if isinstance(error, Unavailable) else None
            extra = [(b"retry-after", str(again).encode())] if again is not None else []
            await self._answer(send, error.status, body_of(error), extra)
            return
        await self._answer(send, 200, created(row, known.version), [])

    @staticmethod
    def _asked(scope: Scope) -> tuple[str, bool, int | None] | None:
        """Secret, whether the body is text, and the timeout of a direct request; None for anything else."""
        if scope["type"] != "http" or scope["method"] != "POST" or not _PATH.match(scope["path"]):
            return None
        headers = dict(scope["headers"])
        secret = secret_of(headers.get(b"authorization", b"").decode("latin-1"))
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        length = headers.get(b"content-length", b"")
        if not secret or kind not in (b"application/json", b"text/plain") or b"content-encoding" in headers:
            return None
        if not length.isdigit() or int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return None
        if not _secure(scope, headers) or not _allowed_host(headers):
            return None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if set(query) - {"timeout"}:
            return None
        given = query.get("timeout", [""])[-1]
        if given and not (given.isascii() and given.isdigit()):
            return None
        return secret, kind == b"text/plain", int(given) if given and int(given) else None

    async def _resolve(self, secret: str, path: str) -> _Known:
        key = (tokens.digest(secret), path)
        known = self._known.get(key)
        if known is None or time.monotonic() - known.at > BELIEVE_SECONDS:
            user, version = await in_thread(_look_up, secret, path)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[key] = _Known(user, version, time.monotonic())
        return known

    async def _answer(self, send: Send, status: int, content: Any, extra: list[tuple[bytes, bytes]]) -> None:
        try:
            body = orjson.dumps(content)
        except orjson.JSONEncodeError:  # nested deeper than orjson goes
            body = json.dumps(content).encode()
        headers = [*self._headers, *extra, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _look_up(secret: str, path: str) -> tuple[User, DeploymentVersion]:
    found = _PATH.match(path)
    assert found is not None
    project, deployment, version = found.groups()
    user, _ = tokens.authenticate(secret)
    row = lookup.resolve_version(user, project, deployment, version, Permission.REQUEST_SEND)
    requests.admit(user, row)
    return user, row


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The body, and a ``receive`` that tells the same again."""
    parts: list[bytes] = []
    messages: list[dict[str, Any]] = []
    while True:
        message = await receive()
        messages.append(message)
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break

    async def again() -> dict[str, Any]:
        return messages.pop(0) if messages else await receive()

    return b"".join(parts), again


def _secure(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether Django would answer rather than redirect to https."""
    if not settings.SECURE_SSL_REDIRECT or scope.get("scheme") == "https":
        return True
    if settings.SECURE_PROXY_SSL_HEADER is None:
        return False
    name, value = settings.SECURE_PROXY_SSL_HEADER
    sent = headers.get(name.removeprefix("HTTP_").replace("_", "-").lower().encode(), b"")
    return sent.split(b",")[0].strip() == value.encode()


def _allowed_host(headers: dict[bytes, bytes]) -> bool:
    domain, _ = split_domain_port(headers.get(b"host", b"").decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
