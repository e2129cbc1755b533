"""One line of a log as readers get it."""

from dataclasses import dataclass
from typing import Any

import orjson

LONGEST_LEVEL = 16
LONGEST_REQUEST_ID = 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One line; ``timestamp`` in nanoseconds since 1970, ``labels`` named as the public API's log metadata."""

    timestamp: int
    text: str
    labels: dict[str, Any]


def line_labels(text: str) -> dict[str, Any]:
    """What a line written as JSON says of itself: its request and its level."""
    if not text.startswith("{"):
        return {}
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    labels: dict[str, Any] = {}
    if isinstance(line.get("request_id"), str):
        labels["deployment_request_id"] = line["request_id"]
    if isinstance(line.get("level"), str):
        labels["level"] = line["level"]
    if isinstance(line.get("process_id"), int):
        labels["process_id"] = line["process_id"]
    return labels
