"""Checks of input, one error per field: each says what is wrong and what is allowed. Free of HTTP and of rows."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

from accounts.errors import Invalid
from accounts.models import name_validator

# Data types of input and output fields, as in the public API.
DATA_TYPES = (
    "int",
    "double",
    "string",
    "bool",
    "dict",
    "file",
    "array_int",
    "array_double",
    "array_string",
    "array_file",
)
MAX_DESCRIPTION = 10_000
MAX_FIELDS = 500
MAX_FIELD_NAME = 100
MAX_LABELS = 100
MAX_LABEL = 200
_MISSING = "This field is required"


class Checker:
    """Collects problems by field, so that one answer tells all of them.

    Each method gives the checked value, or a harmless stand-in when there is a problem; `done` raises `Invalid`.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def problem(self, field: str, text: str) -> None:
        self.problems.setdefault(field, text)

    def done(self) -> None:
        if self.problems:
            raise Invalid(**self.problems)

    def name(self, field: str, value: Any, validator: RegexValidator = name_validator) -> str:
        if not isinstance(value, str) or not value:
            self.problem(field, _MISSING)
            return ""
        try:
            validator(value)
        except ValidationError as error:
            self.problem(field, f"'{value[:80]}' is not allowed. {error.messages[0]}")
        return value

    def text(self, field: str, value: Any, *, longest: int = MAX_DESCRIPTION) -> str:
        if not isinstance(value, str):
            self.problem(field, "Give a text")
            return ""
        if len(value) > longest:
            self.problem(field, f"{len(value)} characters; at most {longest} are allowed")
        if "\0" in value:
            self.problem(field, "The character with code 0 is not allowed")
        return value

    def integer(self, field: str, value: Any, *, least: int = 0, most: int = 2**31 - 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(field, f"{value!r} is not a whole number; give one from {least} to {most}")
            return least
        if not least <= value <= most:
            self.problem(field, f"{value} is out of range; give a whole number from {least} to {most}")
            return least
        return value

    def number(self, field: str, value: Any, *, least: float = 0, most: float = 1e12) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.problem(field, f"{value!r} is out of range; give a number from {least:g} to {most:g}")
            return least
        return float(value)

    def flag(self, field: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.problem(field, f"{value!r} is neither true nor false")
            return False
        return value

    def choice(self, field: str, value: Any, allowed: Iterable[str]) -> str:
        allowed = list(allowed)
        if value not in allowed:
            self.problem(field, f"Unknown value {value!r}; use one of {', '.join(allowed)}")
            return allowed[0]
        return str(value)

    def labels(self, field: str, value: Any) -> dict[str, str]:
        """Free-form text pairs for people and filters; at most `MAX_LABELS` of `MAX_LABEL` characters each."""
        if not isinstance(value, dict):
            self.problem(field, 'Give an object of texts, for example {"team": "search"}')
            return {}
        if len(value) > MAX_LABELS:
            self.problem(field, f"{len(value)} labels; at most {MAX_LABELS} are allowed")
        for key, text in value.items():
            if not isinstance(key, str) or not key or not isinstance(text, str):
                self.problem(field, f'Label {key!r}: keys and values must be texts, for example {{"team": "search"}}')
            elif len(key) > MAX_LABEL or len(text) > MAX_LABEL or not (key + text).isprintable():
                self.problem(field, f"Label '{key[:40]}': at most {MAX_LABEL} printable characters are allowed")
        return value

    def fields(self, field: str, value: Any) -> list[dict[str, Any]]:
        """Input or output fields: ``[{"name": str, "data_type": one of DATA_TYPES, "widget": object?}]``."""
        if not isinstance(value, list):
            self.problem(field, 'Give a list, for example [{"name": "x", "data_type": "double"}]')
            return []
        if len(value) > MAX_FIELDS:
            self.problem(field, f"{len(value)} fields; at most {MAX_FIELDS} are allowed")
        checked: list[dict[str, Any]] = []
        for position, item in enumerate(value, 1):
            if isinstance(item, dict):
                checked.append(self._field(field, position, item, {entry["name"] for entry in checked}))
            else:
                self.problem(field, f"Entry {position}: give an object with name and data_type")
        return checked

    def _field(self, field: str, position: int, item: dict[str, Any], taken: set[Any]) -> dict[str, Any]:
        name, data_type, widget = item.get("name"), item.get("data_type"), item.get("widget")
        if not isinstance(name, str) or not _is_field_name(name):
            self.problem(
                field,
                f"Entry {position}: name {str(name)[:80]!r} is not allowed; use 1 to {MAX_FIELD_NAME} printable "
                "characters without spaces at either end",
            )
            name = ""
        elif name in taken:
            self.problem(field, f"Entry {position}: there is already a field named '{name}'")
        if data_type not in DATA_TYPES:
            self.problem(
                field, f"Entry {position}: unknown data_type {data_type!r}; use one of {', '.join(DATA_TYPES)}"
            )
        if widget is not None and not isinstance(widget, dict):
            self.problem(field, f"Entry {position}: widget must be an object or absent")
        return {"name": name, "data_type": data_type, **({"widget": widget} if widget else {})}

    def words(self, field: str, value: Any) -> list[str] | None:
        """A command line as a list of texts, or nothing."""
        if value is None or value == []:
            return None
        if (
            not isinstance(value, Sequence)
            or isinstance(value, str)
            or not all(isinstance(word, str) for word in value)
        ):
            self.problem(field, 'Give a list of texts, for example ["python", "serve.py"]')
            return None
        if len(value) > 100 or sum(map(len, value)) > 10_000 or any("\0" in word for word in value):
            self.problem(field, "At most 100 texts and 10000 characters are allowed")
        return list(value)

    def unknown(self, given: Iterable[str], allowed: Iterable[str]) -> None:
        allowed = set(allowed)
        for field in given:
            if field not in allowed:
                self.problem(field, "This field is unknown")


def _is_field_name(name: str) -> bool:
    # Wide on purpose: a model's features keep their names, such as "sepal length (cm)".
    return 0 < len(name) <= MAX_FIELD_NAME and name.isprintable() and name == name.strip()
