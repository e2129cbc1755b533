"""Carrying HTTP and websocket traffic between a client and a kubelet or pod, streaming both ways."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from localcluster.apiserver import status
from localcluster.apiserver.status import StatusError
from localcluster.apiserver.web import Answer, Header, Request, Response, Send, Stream

Object = dict[str, Any]

_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_NOT_FORWARDED = _HOP | {b"authorization", b"content-length", b"accept-encoding"}
_PATH_CHARACTERS = "/:@!$&'()*+,;=~"
_MAX_REWRITTEN = 4 * 1024 * 1024
_LINKS = re.compile(rb'((?:href|src|action)\s*=\s*["\'])(/[^"\']*)', re.IGNORECASE)
_MAX_FRAME = 4 * 1024 * 1024


class Proxy:
    """One connection pool towards kubelets and pods."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def json(self, url: str, headers: Mapping[str, str]) -> Any:
        """The JSON that a kubelet answers, None when it does not."""
        limit = aiohttp.ClientTimeout(total=5)
        try:
            async with self.session.get(url, headers=headers, timeout=limit) as response:
                response.raise_for_status()
                return orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    # -- HTTP -------------------------------------------------------------------------------------

    async def http(self, request: Request, base: str, root: str, rest: str) -> Answer:
        """Send a request on to `base`/`rest`; `root` is the path under which the client sees the backend."""
        if request.path == root:
            target = root + "/"
            query = request.scope["query_string"].decode("latin-1")
            return Response(b"", 301, [(b"location", (target + ("?" + query if query else "")).encode())])
        url = f"{base}/{quote(rest, safe=_PATH_CHARACTERS)}"
        query = request.scope["query_string"].decode("latin-1")
        if query:
            url += "?" + query
        headers = _forwarded(request, root, rest)
        body = _body(request) if _has_body(request) else None
        try:
            response = await self.session.request(
                request.method, _url(url), headers=headers, data=body, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(base, error) from None
        sent = _answer_headers(response, root, base)
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/html") and "Content-Encoding" not in response.headers:
            return await _rewritten(response, sent, root)
        if request.method == "HEAD":
            response.release()
            return Response(b"", response.status, sent)
        return Stream(_chunks(response), sent, response.status)

    async def logs(self, url: str, options: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The log that a kubelet streams, or its refusal as a StatusError."""
        try:
            response = await self.session.get(url, params=options, headers=headers)
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(url, error) from None
        if response.status >= 400:
            raise await _kubelet_error(response)
        return Stream(_chunks(response), [(b"content-type", b"text/plain")])

    # -- websockets -------------------------------------------------------------------------------

    async def websocket(self, request: Request, url: str, send: Send, headers: Mapping[str, str]) -> None:
        """Join the client's websocket with one to `url`; frames pass unchanged."""
        query = request.scope["query_string"].decode("latin-1")
        target = _url(url + ("?" + query if query else ""))
        offered = list(request.scope.get("subprotocols") or ())
        await request.receive()  # websocket.connect
        try:
            upstream = await self.session.ws_connect(
                target, protocols=offered, headers=dict(headers), max_msg_size=_MAX_FRAME, autoping=True
            )
        except aiohttp.WSServerHandshakeError as error:
            raise StatusError(error.status if error.status >= 400 else 503, "", _handshake(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(url, error) from None
        accepted: Object = {"type": "websocket.accept"}
        if upstream.protocol:
            accepted["subprotocol"] = upstream.protocol
        await send(accepted)
        down = asyncio.create_task(_down(upstream, send))
        up = asyncio.create_task(_up(request, upstream))
        try:
            await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (down, up):
                task.cancel()
            await asyncio.gather(down, up, return_exceptions=True)
            await upstream.close()


def _url(text: str) -> Any:
    from yarl import URL

    return URL(text, encoded=True)


def _handshake(error: aiohttp.WSServerHandshakeError) -> str:
    return f"unable to upgrade connection: the backend answered {error.status} {error.message}"


async def _down(upstream: aiohttp.ClientWebSocketResponse, send: Send) -> None:
    async for message in upstream:
        if message.type is aiohttp.WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        elif message.type is aiohttp.WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
    with contextlib.suppress(RuntimeError):
        code = upstream.close_code
        await send({"type": "websocket.close", "code": code if code and code != 1006 else 1000})


async def _up(request: Request, upstream: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes") is not None:
            await upstream.send_bytes(message["bytes"])
        elif message.get("text") is not None:
            await upstream.send_str(message["text"])


def _has_body(request: Request) -> bool:
    return b"content-length" in request.headers or b"transfer-encoding" in request.headers


async def _body(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


def _canonical(name: bytes) -> str:
    """A header's name in the spelling that backends are used to: User-Agent."""
    return "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))


def _forwarded(request: Request, root: str, rest: str) -> dict[str, str]:
    headers = {
        _canonical(key): value.decode("latin-1") for key, value in request.headers.items() if key not in _NOT_FORWARDED
    }
    length = request.headers.get(b"content-length")
    if length is not None:
        headers["Content-Length"] = length.decode()
    client = request.scope.get("client")
    peers = [headers.pop("X-Forwarded-For", ""), client[0] if client else ""]
    headers["X-Forwarded-For"] = ", ".join(peer for peer in peers if peer)
    headers["X-Forwarded-Uri"] = f"{root}/{quote(rest, safe=_PATH_CHARACTERS)}"
    encodings = request.headers.get(b"accept-encoding")
    headers["Accept-Encoding"] = encodings.decode("latin-1") if encodings else "identity"
    headers.setdefault("User-Agent", "")
    return headers


def _answer_headers(response: aiohttp.ClientResponse, root: str, base: str) -> list[Header]:
    headers: list[Header] = []
    for name, value in response.headers.items():
        key = name.lower().encode("latin-1")
        if key in _HOP or key == b"content-length":
            continue
        if key == b"location":
            value = _relocated(value, root, base)
        headers.append((key, value.encode("latin-1", "replace")))
    return headers


def _relocated(location: str, root: str, base: str) -> str:
    if location.startswith("/") and not location.startswith("//"):
        return root + location
    return root + location.removeprefix(base) if location.startswith(base + "/") else location


async def _rewritten(response: aiohttp.ClientResponse, headers: list[Header], root: str) -> Answer:
    """An HTML page whose absolute links lead through the proxy."""
    body = await response.content.read(_MAX_REWRITTEN)
    if not response.content.at_eof():

        async def rest() -> AsyncIterator[bytes]:
            yield body
            async for chunk in _chunks(response):
                yield chunk

        return Stream(rest(), headers, response.status)
    response.release()
    return Response(_LINKS.sub(lambda m: m.group(1) + root.encode() + m.group(2), body), response.status, headers)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    finally:
        response.close()


async def _kubelet_error(response: aiohttp.ClientResponse) -> StatusError:
    raw = await response.read()
    response.release()
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        found = {}
    if isinstance(found, dict) and found.get("kind") == "Status":
        return StatusError(response.status, found.get("reason", ""), found.get("message", ""), found.get("details"))
    text = raw.decode("utf-8", "replace").strip()
    return status.bad_request(text) if response.status == 400 else StatusError(response.status, "", text)


def _unreachable(base: str, error: Exception) -> StatusError:
    if isinstance(error, aiohttp.ClientSSLError):
        text = "error trying to reach service: tls: first record does not look like a TLS handshake"
        return StatusError(503, "ServiceUnavailable", text)
    address = base.split("://", 1)[-1].split("/", 1)[0]
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = (
        "connect: connection refused"
        if "refused" in str(cause).lower() or getattr(cause, "errno", 0) == 111
        else str(cause)
    )
    return StatusError(503, "ServiceUnavailable", f"error trying to reach service: dial tcp {address}: {reason}")
