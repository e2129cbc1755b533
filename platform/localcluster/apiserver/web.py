"""The HTTP side: requests, answers and the negotiation of formats, on bare ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from localcluster.apiserver.auth import User
from localcluster.apiserver.status import StatusError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Object = dict[str, Any]
Header = tuple[bytes, bytes]

MAX_BODY = 3 * 1024 * 1024
_BODY_SECONDS = 60.0
_JSON: Header = (b"content-type", b"application/json")
_TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
_NO_SNIFF: Header = (b"x-content-type-options", b"nosniff")
_NO_CACHE: Header = (b"cache-control", b"no-cache, private")


class Request:
    """One HTTP request, with its parameters decoded and its body read on demand."""

    __slots__ = ("_body", "_receive", "headers", "method", "path", "query", "scope", "user", "warnings")

    def __init__(self, scope: Scope, receive: Receive, user: User) -> None:
        self.scope = scope
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        raw = scope["query_string"]
        self.query: dict[str, str] = dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.user = user
        self.warnings: list[str] = []
        self._receive = receive
        self._body: bytes | None = None

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self) -> bytes:
        """The whole body; StatusError 413 above the limit, 504 when it does not come."""
        if self._body is None:
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    self._body = await self._read()
            except TimeoutError:
                text = f"Timeout: the body of the request did not come within {_BODY_SECONDS:.0f} s"
                raise StatusError(504, "Timeout", text) from None
        return self._body

    async def _read(self) -> bytes:
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > MAX_BODY:
            raise _too_large()
        message = await self._receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            parts = [body]
            size = len(body)
            while message.get("more_body"):
                message = await self._receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MAX_BODY:
                    raise _too_large()
            body = b"".join(parts)
        if len(body) > MAX_BODY:
            raise _too_large()
        return body

    async def receive(self) -> MutableMapping[str, Any]:
        """The next ASGI message: for handlers that stream."""
        return await self._receive()

    def flag(self, name: str) -> bool:
        """A boolean parameter; present without a value counts as true."""
        value = self.query.get(name)
        return value is not None and value.lower() in ("", "1", "t", "true")


def _too_large() -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")


class Response:
    """An answer whose body is complete."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, status: int = 200, headers: list[Header] | None = None) -> None:
        self.body = body
        self.status = status
        self.headers = headers if headers is not None else [_JSON]


class Stream:
    """An answer that goes on: chunks are sent as they come, with the client's pace."""

    __slots__ = ("chunks", "headers", "status")

    def __init__(self, chunks: AsyncIterator[bytes], headers: list[Header], status: int = 200) -> None:
        self.chunks = chunks
        self.headers = headers
        self.status = status


Answer = Response | Stream


def json_answer(obj: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(obj), status)


def text_answer(text: str, status: int = 200) -> Response:
    return Response(text.encode(), status, [_TEXT, _NO_SNIFF])


def failure(error: StatusError) -> Response:
    """The answer for a StatusError."""
    headers = [_JSON, *error.headers]
    if error.code == 403:
        headers.append(_NO_SNIFF)
    return Response(orjson.dumps(error.body()), error.code, headers)


def warning_headers(warnings: list[str]) -> list[Header]:
    return [(b"warning", b"299 - " + _quoted(text)) for text in warnings]


def _quoted(text: str) -> bytes:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return b'"' + escaped.encode("utf-8") + b'"'


async def send(answer: Answer, send_message: Send, warnings: list[str], accepts_yaml: bool) -> None:
    """Send an answer; JSON becomes YAML for clients that asked for it."""
    if isinstance(answer, Stream):
        await _send_stream(answer, send_message, warnings)
        return
    headers, body = answer.headers, answer.body
    if accepts_yaml and headers and headers[0] is _JSON:
        import yaml  # only `kubectl --raw` and the like ask for it

        text = yaml.dump(orjson.loads(body), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=True)
        body, headers = text.encode(), [(b"content-type", b"application/yaml"), *headers[1:]]
    if warnings:
        headers = headers + warning_headers(warnings)
    length = (b"content-length", str(len(body)).encode())
    await send_message(
        {"type": "http.response.start", "status": answer.status, "headers": [*headers, _NO_CACHE, length]}
    )
    await send_message({"type": "http.response.body", "body": body})


async def _send_stream(answer: Stream, send_message: Send, warnings: list[str]) -> None:
    headers = [*answer.headers, _NO_CACHE, *warning_headers(warnings)]
    await send_message({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for chunk in answer.chunks:
        await send_message({"type": "http.response.body", "body": chunk, "more_body": True})
    await send_message({"type": "http.response.body", "body": b""})
