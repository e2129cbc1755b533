"""How bodies are read: JSON, and text for deployments with plain input."""

from typing import Any

from rest_framework import exceptions
from rest_framework.parsers import BaseParser, JSONParser


class JsonParser(JSONParser):
    """DRF's, which does not count nesting deeper than Python's stack as a mistake of the sender."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise exceptions.ParseError("JSON parse error - lists and objects are nested too deeply") from None


class TextParser(BaseParser):
    """The body of a request to a deployment with plain input."""

    media_type = "text/plain"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return stream.read().decode()
        except UnicodeDecodeError:
            raise exceptions.ParseError("The body is not UTF-8 text") from None
