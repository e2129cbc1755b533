"""How bodies are read: JSON, and text for deployments with plain input."""

from typing import Any

from rest_framework import exceptions
from rest_framework.parsers import BaseParser, JSONParser


def refuse_compressed(parser_context: Any) -> None:
    """Bodies come as they are: raises 415 for a compressed one, which would be told to be broken JSON."""
    request = (parser_context or {}).get("request")
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "") if request is not None else ""
    if encoding.strip().lower() not in ("", "identity"):
        detail = f"Content-Encoding '{encoding[:40]}' is not understood; send the body as it is"
        raise exceptions.UnsupportedMediaType(encoding, detail=detail)


class JsonParser(JSONParser):
    """DRF's, which does not count nesting deeper than Python's stack as a mistake of the sender."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        refuse_compressed(parser_context)
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise exceptions.ParseError("JSON parse error - lists and objects are nested too deeply") from None


class TextParser(BaseParser):
    """The body of a request to a deployment with plain input."""

    media_type = "text/plain"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        refuse_compressed(parser_context)
        try:
            return stream.read().decode()
        except UnicodeDecodeError:
            raise exceptions.ParseError("The body is not UTF-8 text") from None
