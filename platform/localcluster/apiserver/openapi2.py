"""/openapi/v2: the older form of the definitions, which kubectl still reads to check what it cannot have checked.

JSON for people and old clients, and the protobuf of the gnostic project for kubectl, which takes nothing else.
Source: github.com/google/gnostic openapiv2/OpenAPIv2.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson

from localcluster.apiserver import discovery, openapi
from localcluster.apiserver.web import Request, Response

Object = dict[str, Any]

_ROOT = "#/definitions/"
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# Fields of the message Schema.
_TEXTS = {"$ref": 1, "format": 2, "description": 4}
_REQUIRED, _ADDITIONAL, _TYPE, _ITEMS, _PROPERTIES, _VENDOR = 19, 21, 22, 23, 25, 31


def _schema(node: Any) -> Any:
    """A definition in the dialect of version 2: nothing beside a reference, no choice of types."""
    if isinstance(node, list):
        return [_schema(one) for one in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = {"$ref": _ROOT + reference.rsplit("/", 1)[-1]}
        return {"description": node["description"], **target} if "description" in node else target
    parts = node.get("allOf")
    if parts and len(parts) == 1:
        return _schema({**parts[0], **{key: node[key] for key in ("description",) if key in node}})
    result: Object = {}
    for key, value in node.items():
        if key in ("oneOf", "default", "allOf"):
            continue
        if key == "properties":
            result[key] = {name: _schema(part) for name, part in value.items()}
        else:
            result[key] = _schema(value) if key in ("items", "additionalProperties") else value
    return result


def _definitions() -> Object:
    found: Object = {}
    for entry in discovery.entries():
        kinds = {one["kind"] for part in entry["resources"] for one in part["listed"]}
        found |= openapi.definitions(entry["group"], entry["version"], kinds)
    return {name: _schema(part) for name, part in sorted(found.items())}


def _paths() -> Object:
    paths: Object = {}
    for entry in discovery.entries():
        resources = [one for part in entry["resources"] for one in part["listed"]]
        paths |= openapi.paths(entry["group"], entry["version"], resources)
    for path in paths.values():
        for operation in path.values():
            for parameter in operation.get("parameters") or ():
                parameter |= parameter.pop("schema")
    return paths


def _info() -> Object:
    return {"title": "Kubernetes", "version": discovery.VERSION["gitVersion"]}


@cache
def _document() -> bytes:
    return orjson.dumps({"swagger": "2.0", "info": _info(), "paths": _paths(), "definitions": _definitions()})


# -- protobuf -------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _named(entries: Iterable[tuple[str, bytes]], number: int = 1) -> bytes:
    """A repeated field of pairs of a name and a message."""
    return b"".join(_field(number, _field(1, name) + _field(2, content)) for name, content in entries)


def _message(node: Object) -> bytes:
    """The message Schema."""
    out = [_field(number, node[key]) for key, number in _TEXTS.items() if key in node]
    if "$ref" in node:
        return b"".join(out)
    out += [_field(_REQUIRED, name) for name in node.get("required") or ()]
    inner = node.get("additionalProperties")
    if isinstance(inner, dict):
        out.append(_field(_ADDITIONAL, _field(1, _message(inner))))
    if isinstance(node.get("type"), str):
        out.append(_field(_TYPE, _field(1, node["type"])))
    if "items" in node:
        out.append(_field(_ITEMS, _field(1, _message(node["items"]))))
    if node.get("properties"):
        pairs = ((name, _message(part)) for name, part in node["properties"].items())
        out.append(_field(_PROPERTIES, _named(pairs)))
    extensions = ((key, _field(2, orjson.dumps(value))) for key, value in node.items() if key.startswith("x-"))
    out.append(_named(extensions, _VENDOR))
    return b"".join(out)


@cache
def _binary() -> bytes:
    info = _info()
    definitions = _named((name, _message(part)) for name, part in _definitions().items())
    return b"".join(
        [
            _field(1, "2.0"),
            _field(2, _field(1, info["title"]) + _field(2, info["version"])),
            _field(8, b""),
            _field(9, definitions),
        ]
    )


def answer(request: Request) -> Response:
    """The document in the form that the client accepts."""
    if "application/com.github.proto-openapi.spec.v2" in request.header(b"accept"):
        return Response(_binary(), 200, [(b"content-type", _PROTOBUF.encode())])
    return Response(_document())
