"""Whether what the API answers is what its schema says."""

from functools import cache
from typing import Any

import jsonschema

from deployments.api import docs


@cache
def _document() -> dict[str, Any]:
    """The schema with OpenAPI 3.0's `nullable` in the words of JSON Schema."""
    return _without_nullable(docs.schema())


def _without_nullable(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_nullable(item) for item in part]
    if not isinstance(part, dict):
        return part
    known = {key: _without_nullable(value) for key, value in part.items()}
    if known.get("nullable") is True:
        del known["nullable"]
        return {"anyOf": [known, {"type": "null"}]}
    return known


def assert_told(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    """That the schema has this answer to `method` at `path` (with the names of its parameters in braces)."""
    document = _document()
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(status) in responses or status >= 400, f"{method} {path}: the schema does not tell of {status}"
    answer = responses.get(str(status), responses["default"])
    content = answer.get("content")
    if not content:
        assert not body, f"{method} {path}: {status} has a body of which the schema does not tell"
        return
    kind = content_type.split(";")[0]
    assert kind in content, f"{method} {path}: {status} is {kind}, told is {', '.join(content)}"
    if kind == "application/json":
        schema = {**content[kind].get("schema", {}), "components": document["components"]}
        jsonschema.validate(body, schema, jsonschema.Draft202012Validator)
