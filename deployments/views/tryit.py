"""The form that tries a deployment: generated from its input fields, read back into request data."""

import json
import math
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from accounts.errors import Invalid
from deployments.models import DataType, Deployment

# data_type: (control, what to type)
CONTROLS: dict[str, tuple[str, str]] = {
    "int": ("number", "A whole number"),
    "double": ("number", "A number"),
    "string": ("text", "Text"),
    "bool": ("choice", "True or false"),
    "dict": ("json", 'A JSON object, such as {"key": "value"}'),
    "file": ("text", "The address of a file"),
    "array_int": ("json", "A JSON list of whole numbers, such as [1, 2]"),
    "array_double": ("json", "A JSON list of numbers, such as [1.5, 2]"),
    "array_string": ("json", 'A JSON list of texts, such as ["a", "b"]'),
    "array_file": ("json", "A JSON list of addresses of files"),
}
PREFIX = "field-"


@dataclass(frozen=True)
class Entry:
    """One input of the form. ``value`` is what its control shows."""

    name: str
    data_type: str
    control: str
    hint: str
    value: str
    position: int

    @property
    def html_name(self) -> str:
        # By position: field names may hold any character that HTML or CSS dislikes.
        return f"{PREFIX}{self.position}"


def entries(deployment: Deployment, data: Any) -> list[Entry]:
    """The controls for structured input, filled with ``data``."""
    values = data if isinstance(data, dict) else {}
    result = []
    for position, field in enumerate(deployment.input_fields):
        control, hint = CONTROLS.get(field["data_type"], ("json", "JSON"))
        value = values.get(field["name"])
        if control in ("json", "choice"):
            shown = "" if value is None else json.dumps(value, ensure_ascii=False)
        else:
            shown = "" if value is None else str(value)
        result.append(Entry(field["name"], field["data_type"], control, hint, shown, position))
    return result


def read(deployment: Deployment, post: QueryDict) -> Any:
    """The request data that was entered. Raises Invalid by field name for what cannot be read as its type."""
    if post.get("mode") == "json" and deployment.input_type == DataType.STRUCTURED:
        return _json("data", post.get("data", ""))
    if deployment.input_type == DataType.PLAIN:
        return post.get("data", "")
    data, problems = {}, {}
    for position, field in enumerate(deployment.input_fields):
        text = post.get(f"{PREFIX}{position}", "")
        try:
            data[field["name"]] = _value(field["data_type"], text)
        except (ValueError, RecursionError):
            problems[field["name"]] = f"{CONTROLS.get(field['data_type'], ('', 'JSON'))[1]} is needed here"
    if problems:
        error = Invalid("Some inputs cannot be read")
        # Field names are the user's own words, so they cannot be keywords.
        error.fields = problems
        raise error
    return data


def _value(data_type: str, text: str) -> Any:
    match data_type:
        case "int":
            return int(text)
        case "double":
            number = float(text)
            if not math.isfinite(number):
                raise ValueError(text)
            return number
        case "string" | "file":
            return text
        case _:
            return json.loads(text)


def _json(field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(**{field: f"This is not JSON: {error}"}) from None
