"""HTTP/1.1 to pods over connections that are kept: one request, one whole answer.

A general client costs more than a small model. This one leaves out what a pod's answer to a POST never needs:
redirects, cookies, compression, proxies, TLS. Source: RFC 9112; the parsing is llhttp's, by httptools.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

# Shorter than servers keep idle connections, so that none is closed there just as a request is sent on it.
KEEP_SECONDS = 15.0

Address = tuple[str, int]


class NotConnected(Exception):
    """Nobody listens at the address."""


class ConnectionLost(Exception):
    """The connection ended, or went wrong, before the answer was whole; the pod may have seen the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.closed = False
        self._transport: asyncio.WriteTransport
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []
        self._until_end = True
        self._begun = False

    def post(self, content: bytes, until: float) -> "asyncio.Future[Answer]":
        """Send a whole request. The answer's future fails with TimeoutError at ``until``, a time of the loop."""
        loop = asyncio.get_running_loop()
        self._waiting = waiting = loop.create_future()
        self._begun = False
        timer = loop.call_at(until, self._time_out)
        waiting.add_done_callback(lambda _: timer.cancel())
        self._transport.write(content)
        return waiting

    def close(self) -> None:
        self.closed = True
        self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self.close()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.close()
            self._fail(ConnectionLost(f"This is not an HTTP answer: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if error is None and self._begun and self._until_end:
            self._complete()
        else:
            self._fail(ConnectionLost("The connection ended before the answer was whole"))

    # httptools' side

    def on_message_begin(self) -> None:
        self._body, self._until_end, self._begun = [], True, False
        if self._waiting is None:
            self.close()  # a second answer; it must never be taken for that of the next request

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._until_end = False

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # others only tell of the answer to come
            self._complete()

    def _complete(self) -> None:
        waiting, self._waiting = self._waiting, None
        if not self.closed and not self._parser.should_keep_alive():
            self.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(self._parser.get_status_code(), b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def _time_out(self) -> None:
        self.close()
        self._fail(TimeoutError())


class PodConnections:
    """The connections of one event loop, as many as there are requests at a time."""

    def __init__(self) -> None:
        self._idle: defaultdict[Address, deque[_Connection]] = defaultdict(deque)
        self._sweeper: asyncio.TimerHandle | None = None

    async def post(
        self,
        host: str,
        port: int,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_seconds: float,
        seconds: float,
    ) -> Answer:
        """The answer to a POST. Raises NotConnected, ConnectionLost, and TimeoutError after ``seconds``.

        ``host`` is an IP address, ``path`` is percent-encoded.
        """
        until = asyncio.get_running_loop().time() + seconds
        content = _request(host, port, path, headers, body)
        address = (host, port)
        connection = self._take(address) or await _connect(address, min(connect_seconds, seconds))
        try:
            answer = await connection.post(content, until)
        except BaseException as error:
            connection.close()
            if isinstance(error, ConnectionLost):
                # The others are no better: whoever repeats the request gets a fresh one.
                self._drop(address)
            raise
        if not connection.closed:
            self._keep(address, connection)
        return answer

    def close(self) -> None:
        """Close what is idle."""
        for address in list(self._idle):
            self._drop(address)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _take(self, address: Address) -> _Connection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.closed:
                return connection
        return None

    def _keep(self, address: Address, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle[address].append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEEP_SECONDS, self._sweep)

    def _drop(self, address: Address) -> None:
        for connection in self._idle.pop(address, ()):
            connection.close()

    def _sweep(self) -> None:
        oldest = time.monotonic() - KEEP_SECONDS
        for address, idle in list(self._idle.items()):
            while idle and (idle[0].closed or idle[0].idle_since <= oldest):
                idle.popleft().close()
            if not idle:
                del self._idle[address]
        self._sweeper = asyncio.get_running_loop().call_later(KEEP_SECONDS / 3, self._sweep) if self._idle else None


async def _connect(address: Address, seconds: float) -> _Connection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            _, connection = await loop.create_connection(_Connection, *address)
    except OSError as error:  # TimeoutError is one
        raise NotConnected(str(error)) from None
    return connection


def _request(host: str, port: int, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    name = f"[{host}]" if ":" in host else host
    lines = [f"POST {path} HTTP/1.1", f"Host: {name}:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1:
        raise ValueError("A header with a line break")
    return f"{head}\r\n\r\n".encode() + body
