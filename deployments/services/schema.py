"""Request data against a deployment's declared input. Pure."""

from typing import Any

from accounts.errors import Invalid
from deployments.models import DataType, Deployment


def validate_input(deployment: Deployment, data: Any) -> None:
    """Raises Invalid naming each field that is missing, unknown or of another type, with what is allowed.

    Structured input is an object with exactly the declared fields; without declared fields any object is taken.
    Plain input is a string.
    """
    if deployment.input_type == DataType.PLAIN:
        if not isinstance(data, str):
            raise Invalid(data=f"Deployment '{deployment.name}' takes plain text; send a JSON string or text/plain")
        return
    if not isinstance(data, dict):
        raise Invalid(data=f"Deployment '{deployment.name}' takes an object with its input fields, not {_name(data)}")
    declared = {str(field["name"]): str(field["data_type"]) for field in deployment.input_fields}
    if not declared:
        return
    problems: dict[str, str] = {}
    for name, kind in declared.items():
        if name not in data:
            problems[name] = f"This field is missing; give {describe(kind)}"
        elif not matches(kind, data[name]):
            problems[name] = f"Give {describe(kind)}, not {_name(data[name])}"
    for name in data:
        if name not in declared:
            problems[str(name)] = "Unknown field; the deployment declares: " + ", ".join(sorted(declared))
    if problems:
        # Field names are the user's own words, so they cannot be keywords.
        error = Invalid("; ".join(f"{name}: {text}" for name, text in problems.items()))
        error.fields = problems
        raise error


def matches(kind: str, value: Any) -> bool:
    """Whether a value is of a data type of the public API (``int``, ``array_double``, ...)."""
    if kind.startswith("array_"):
        return isinstance(value, list) and all(matches(kind.removeprefix("array_"), item) for item in value)
    match kind:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "double":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string" | "file" | "blob":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "dict":
            return isinstance(value, dict)
    return True


def describe(kind: str) -> str:
    if kind.startswith("array_"):
        return f"a list of {kind.removeprefix('array_')} values"
    return {
        "int": "a whole number",
        "double": "a number",
        "string": "a string",
        "bool": "true or false",
        "dict": "an object",
        "file": "the address of a file as a string",
        "blob": "the id of a blob as a string",
    }.get(kind, f"a value of type {kind}")


def _name(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
