"""The schema, and a page to browse it: made on the server, so that it needs no script and no foreign style."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.generators import SchemaGenerator

PREFIX = "/api/v1"
METHODS = ("get", "post", "put", "patch", "delete")
# Deep enough for every body of ours, and an end for schemas that refer to themselves.
MAX_DEPTH = 5


@cache
def schema() -> dict[str, Any]:
    return SchemaGenerator().get_schema(request=None, public=True)


def schema_json(request: HttpRequest) -> HttpResponse:
    """OpenAPI 3 as JSON."""
    return HttpResponse(json.dumps(schema(), indent=1), content_type="application/vnd.oai.openapi+json")


@csrf_exempt
def unknown(request: HttpRequest, path: str) -> JsonResponse:
    """What clients get below the API's prefix where there is nothing: the error's usual shape, not a page."""
    return JsonResponse({"error": f"There is no {PREFIX}/{path[:200]}; /api/docs lists what there is"}, status=404)


def docs(request: HttpRequest) -> HttpResponse:
    """The operations, grouped by tag, each with its parameters, an example body and its answers."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for operation in _operations(schema()):
        groups.setdefault(operation["tag"], []).append(operation)
    context = {"title": "API reference", "groups": dict(sorted(groups.items())), "base": settings.PILOTHOUSE_URL}
    return render(request, "api/docs.html", context)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            body = _example(document, operation.get("requestBody"))
            yield {
                "id": operation["operationId"],
                "tag": operation["tags"][0],
                "method": method.upper(),
                "path": path.removeprefix(PREFIX),
                "description": operation.get("description", ""),
                "parameters": [
                    {**parameter, "type": parameter["schema"].get("type", "")}
                    for parameter in operation.get("parameters", [])
                    if parameter["in"] == "query"
                ],
                "body": body,
                "curl": _curl(method, path, operation, body),
                "answers": [
                    {"status": status, "example": _example(document, answer)}
                    for status, answer in operation["responses"].items()
                    if status != "default"  # the refusal, which the page tells once for all
                ],
            }


def _curl(method: str, path: str, operation: dict[str, Any], body: str) -> str:
    lines = [f"curl -X {method.upper()} {settings.PILOTHOUSE_URL}{path}", '-H "Authorization: Token $TOKEN"']
    if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
        lines.append("-F file=@FILE")
    elif body:
        lines += ["-H 'Content-Type: application/json'", "-d @body.json"]
    return " \\\n  ".join(lines)


def _example(document: dict[str, Any], holder: dict[str, Any] | None) -> str:
    """An example of a body or answer as indented JSON; empty when there is none."""
    for content in (holder or {}).get("content", {}).values():
        return json.dumps(_value(document, content.get("schema", {}), 0), indent=2)
    return ""


def _value(document: dict[str, Any], part: dict[str, Any], depth: int) -> Any:
    if "$ref" in part:
        part = document["components"]["schemas"][part["$ref"].rsplit("/", 1)[1]]
    for wrapper in ("allOf", "oneOf", "anyOf"):
        if part.get(wrapper):
            return _value(document, part[wrapper][0], depth)
    if "enum" in part:
        return " | ".join(str(value) for value in part["enum"])
    kind = part.get("type")
    if kind == "object":
        if depth > MAX_DEPTH or "properties" not in part:
            return {}
        return {name: _value(document, inner, depth + 1) for name, inner in part["properties"].items()}
    if kind == "array":
        return [_value(document, part.get("items", {}), depth + 1)]
    return part.get("format") or kind or "any JSON"
