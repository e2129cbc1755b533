"""HTTP connections whose requests' heads are bounded in size and in time, as Go's server bounds them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_BYTES = 1024 * 1024
_HEAD_SECONDS = 32.0
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n431 Request Header Fields Too Large"
)


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads and trailers that do not end, and closes connections that say nothing."""

    _unparsed = 0  # bytes since anything of use came: the end of a head, or a piece of a body
    _refused = False
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._come()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unparsed += len(data)
        if self._unparsed > _HEAD_BYTES:
            self._refused = True
            self.transport.write(_TOO_LARGE)
            self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._come()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> Any:
        self._unparsed = 0
        return super().on_message_complete()

    def _wait(self) -> None:
        """Give the head of a request its time."""
        if self._patience is None:
            self._patience = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _come(self) -> None:
        self._unparsed = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        self.transport.close()
