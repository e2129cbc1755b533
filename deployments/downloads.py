"""Answers that stream a stored file: ranges for resuming, an ETag from the digest, never the whole file in memory."""

import re
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from deployments.services import artifacts

_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")


class ArtifactResponse(StreamingHttpResponse):
    """A part of a stored file, read by a plain iterator under WSGI and in a thread under ASGI."""

    def __init__(self, key: str, start: int, stop: int, **kwargs: Any) -> None:
        self._chunks = artifacts.read_range(key, start, stop)
        super().__init__(self._chunks, **kwargs)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await sync_to_async(self._next, thread_sensitive=False)()) is not None:
            yield chunk

    def _next(self) -> bytes | None:
        return next(self._chunks, None)


def artifact_response(request: HttpRequest, stored: artifacts.StoredFile) -> HttpResponseBase:
    """200 with the file, 206 with the one range asked for, 304, or 416. RFC 9110, sections 13 and 14."""
    size, etag = stored.size, f'"{stored.digest}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": content_disposition_header(True, stored.file_name) or "attachment",
    }
    if etag in request.headers.get("If-None-Match", ""):
        return HttpResponse(status=304, headers=headers)
    start, stop, status = 0, size, 200
    wanted = _RANGE.match(request.headers.get("Range", ""))
    if wanted and wanted.groups() != ("", "") and request.headers.get("If-Range", etag) == etag:
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    headers["Content-Type"] = "application/octet-stream"
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    return ArtifactResponse(stored.key, start, stop, status=status, headers=headers)
