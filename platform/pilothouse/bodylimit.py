"""Refuses bodies that are too large before Django puts them aside on disk.

Uploads (multipart/form-data) of somebody who is signed in may be as large as a package, everything else as large as a
request: all of a body is on disk before a view looks at who sent it.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.db import DatabaseError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Django and Starlette disagree on how narrow the three arguments are.
Application = Callable[[Any, Any, Any], Awaitable[None]]

# Whether the headers are those of somebody who is signed in.
Known = Callable[[dict[bytes, bytes]], Awaitable[bool]]

# What a multipart body may hold beside the file: boundaries and a few fields.
FORM_OVERHEAD = 2**20


class BodyLimit:
    """An ASGI application around another one. Sizes in bytes."""

    def __init__(self, application: Application, *, upload: int, other: int, known: Known) -> None:
        self.application = application
        self.upload = upload + FORM_OVERHEAD
        self.other = other
        self.known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        declared = headers.get(b"content-length", b"")
        length = int(declared) if declared.isdigit() else None
        limit, stranger = (self.upload if form else self.other), False
        # Asking the database is left to bodies that need it; one that comes in chunks may become any length.
        if form and (length > self.other if length is not None else b"transfer-encoding" in headers):
            try:
                stranger = not await self.known(headers)
            except DatabaseError:
                await refuse(send, 503, "The database does not answer; try again in a moment")
                return
            limit = self.other if stranger else limit
        told = _refusal(limit, stranger)
        if length is not None and length > limit:
            await refuse(send, *told)
            return
        received, over, started = 0, False, False

        async def counted() -> Message:
            nonlocal received, over
            message = await receive()
            received += len(message.get("body", b""))
            over = over or received > limit
            # The application then drops what it has put aside, as for a client that went away.
            return {"type": "http.disconnect"} if over else message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self.application(scope, counted, watched)
        if over and not started:
            await refuse(send, *told)


def _refusal(limit: int, stranger: bool) -> tuple[int, str]:
    if stranger:
        return 401, f"Sign in to upload more than {limit} bytes: send `Authorization: Token <token>`"
    return 413, f"The body is larger than the {limit} bytes that are allowed"


async def refuse(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Token"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
