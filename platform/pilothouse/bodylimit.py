"""Refuses bodies that are too large before Django puts them aside on disk.

Uploads (multipart/form-data) may be as large as a package, everything else as large as a request.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Django and Starlette disagree on how narrow the three arguments are.
Application = Callable[[Any, Any, Any], Awaitable[None]]

# What a multipart body may hold beside the file: boundaries and a few fields.
FORM_OVERHEAD = 2**20


class BodyLimit:
    """An ASGI application around another one. Sizes in bytes."""

    def __init__(self, application: Application, *, upload: int, other: int) -> None:
        self.application = application
        self.upload = upload + FORM_OVERHEAD
        self.other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = self.upload if form else self.other
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            await refuse(send, limit)
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
            await refuse(send, limit)


async def refuse(send: Send, limit: int) -> None:
    body = json.dumps({"error": f"The body is larger than the {limit} bytes that are allowed"}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
