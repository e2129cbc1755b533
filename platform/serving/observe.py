"""Around every request: its id, its line in the log, its numbers, and good manners while draining."""

from __future__ import annotations

import datetime
import json
import re
import sys
import time
import uuid
from typing import Any

from .metrics import DRAINING, ProcessMetrics

# What may come back in a header and go into a log line; anything else gets a fresh id.
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:/+=@-]{1,128}$")
_QUIET = ("/v2/health/", "/metrics")


class Observed:
    """ASGI middleware. Sets ``scope["request_id"]``; routes put their name into ``scope["handler"]``."""

    def __init__(self, app: Any, metrics: ProcessMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_QUIET):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["request_id"] = request_id = _request_id(scope)
        scope["handler"] = "other"
        status = 499  # What stays when the client goes before an answer began.

        async def send_with_id(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if self._metrics.state == DRAINING:
                    # A client that keeps connections must find another instance before this one closes.
                    headers.append((b"connection", b"close"))
                message = dict(message, headers=headers)
            await send(message)

        self._metrics.began()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.ended(scope["handler"], status, seconds)
            log(
                "info" if status < 500 else "error",
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round(seconds * 1000, 3),
            )


def log(level: str, event: str, **fields: Any) -> None:
    """One JSON line on standard error. Never the body of a request: it may be private."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    line = {"time": now.replace("+00:00", "Z"), "level": level, "event": event}
    line.update(fields)
    sys.stderr.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def _request_id(scope: Any) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = str(value.decode("latin-1"))
            return text if _REQUEST_ID.match(text) else str(uuid.uuid4())
    return str(uuid.uuid4())
