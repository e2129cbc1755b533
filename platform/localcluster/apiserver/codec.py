"""Reading request bodies: JSON and YAML, strictness, and the failures that Kubernetes words so peculiarly."""

from __future__ import annotations

import json
from typing import Any

import orjson

from localcluster.apiserver import schema, status
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.status import Cause, StatusError
from localcluster.apiserver.web import Request

Object = dict[str, Any]

_ACCEPTED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
_PROTOBUF = "application/vnd.kubernetes.protobuf"
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")


def media_type(request: Request) -> str:
    return request.header(b"content-type").partition(";")[0].strip().lower()


def strictness(request: Request, options: str) -> str:
    """The fieldValidation parameter: Ignore, Warn (the default) or Strict."""
    value = request.query.get("fieldValidation", "")
    if value not in _VALIDATIONS:
        listed = ", ".join(f'"{one}"' for one in _VALIDATIONS)
        text = f'Unsupported value: "{value}": supported values: {listed}'
        raise status.bad_option(options, [Cause("FieldValueNotSupported", text, "fieldValidation")])
    return value or "Warn"


def _unsupported() -> StatusError:
    message = f"the body of the request was in an unknown format - accepted media types include: {_ACCEPTED}"
    return StatusError(415, "UnsupportedMediaType", message)


def _protobuf(raw: bytes, kind: schema.Struct) -> Object:
    from localcluster.apiserver import protobuf  # few clients send it

    try:
        return protobuf.load(raw, kind)
    except protobuf.ProtobufError as error:
        message = f"{error}; send the object as application/json instead, for example with `kubectl apply -f FILE`"
        raise StatusError(415, "UnsupportedMediaType", message) from None


def _shown(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    if not text:
        return "<empty>"
    return text if len(text) <= 30 else text[:30] + " ..."


def _syntax(raw: bytes) -> str:
    """What Go's decoder says about malformed JSON."""
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg:
            return "unexpected end of JSON input"
        found = error.doc[error.pos]
        context = "looking for beginning of value"
        if "property name" in error.msg:
            context = "looking for beginning of object key string"
        elif "','" in error.msg:
            context = "after object key:value pair"
        elif "':'" in error.msg:
            context = "after object key"
        elif "Extra data" in error.msg:
            context = "after top-level value"
        return f"invalid character '{found}' {context}"
    except (UnicodeDecodeError, RecursionError):
        return "invalid UTF-8 in string or too deep nesting"
    return "unexpected end of JSON input"


def load(raw: bytes, content_type: str) -> Any:
    """The decoded value of a JSON or YAML text; ValueError when malformed."""
    if content_type in ("application/yaml", "application/apply-patch+yaml"):
        if raw[:1] == b"{":
            try:
                return orjson.loads(raw)
            except orjson.JSONDecodeError:
                pass
        return _load_yaml(raw)
    return orjson.loads(raw)


def _load_yaml(raw: bytes) -> Any:
    import yaml  # rare enough not to be loaded at start

    from localcluster.apiserver.yaml11 import Loader

    try:
        return yaml.load(raw, Loader=Loader)  # noqa: S506 - a safe loader of our own
    except yaml.YAMLError as error:
        raise ValueError(f"error converting YAML to JSON: {error}") from None


class _Marked(dict[str, Any]):
    duplicates: list[str]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = _Marked(pairs)
    result.duplicates = []
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen and key not in result.duplicates:
                result.duplicates.append(key)
            seen.add(key)
    return result


def duplicates(raw: bytes, value: Any) -> list[str]:
    """Paths of keys that a JSON text gives more than once."""
    if len(orjson.dumps(value)) == len(raw):
        return []  # nothing was dropped
    found: list[str] = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, _Marked):
            found.extend(f"{path}.{key}".lstrip(".") for key in node.duplicates)
            for key, part in node.items():
                walk(part, f"{path}.{key}")
        elif isinstance(node, list):
            for index, part in enumerate(node):
                walk(part, f"{path}[{index}]")

    walk(json.loads(raw, object_pairs_hook=_pairs), "")
    return found


async def read_object(request: Request, kind: Kind, options: str) -> Object:
    """The object in a create or update request, checked against its type."""
    strict = strictness(request, options)
    raw = await request.body()
    content_type = media_type(request)
    resource = kind.resource
    if content_type == _PROTOBUF:
        value = _protobuf(raw, kind.type)
        check_kind(kind, value)
        return typed(request, kind, value, strict, [])
    if content_type not in ("", "application/json", "application/yaml"):
        raise _unsupported()
    must_be = f"the object provided is unrecognized (must be of type {resource.kind}): couldn't get version/kind; "
    try:
        value = load(raw, content_type)
    except ValueError as error:
        reason = _syntax(raw) if content_type != "application/yaml" else str(error)
        raise status.bad_request(f"{must_be}json parse error: {reason} ({_shown(raw)})") from None
    if not isinstance(value, dict):
        go = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        what = "array" if isinstance(value, list) else "string" if isinstance(value, str) else "number"
        detail = f"json: cannot unmarshal {what} into Go value of type {go} ({raw[:30].hex()})"
        raise status.bad_request(f"{must_be}json parse error: {detail}")
    check_kind(kind, value)
    problems = []
    if strict != "Ignore" and content_type != "application/yaml":
        problems = [f'duplicate field "{path}"' for path in duplicates(raw, value)]
    return typed(request, kind, value, strict, problems)


def check_kind(kind: Kind, value: Object) -> None:
    """StatusError 400 when the body says it is something else than what the path asks for."""
    resource = kind.resource
    said_kind, said_version = value.get("kind") or resource.kind, value.get("apiVersion") or resource.api_version
    version = said_version.rsplit("/", 1)[-1]
    if (said_kind, said_version) == (resource.kind, resource.api_version):
        return
    head = f'{said_kind} in version "{version}" cannot be handled as a {resource.kind}: '
    package = resource.group.split(".", 1)[0] or "core"
    if said_kind != resource.kind and said_version == resource.api_version:
        detail = f"converting (v1.{said_kind}) to ({package}.{resource.kind}): unknown conversion"
        known = any((resource.group, resource.version, said_kind) == key for key in schema._by_kind())
        if known:
            raise status.bad_request(head + detail)
    raise status.bad_request(
        f'{head}no kind "{said_kind}" is registered for version "{said_version}" '
        'in scheme "pkg/api/legacyscheme/scheme.go:30"'
    )


def typed(request: Request, kind: Kind, value: Object, strict: str, problems: list[str]) -> Object:
    """The value as its type; unknown fields become warnings or, with Strict, a StatusError."""
    resource = kind.resource
    try:
        obj, unknown = schema.decode(kind.type, value)
    except schema.DecodeError as error:
        raise status.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {error}'
        ) from None
    problems = problems + [f'unknown field "{path}"' for path in unknown]
    if problems and strict == "Strict":
        listed = ", ".join(problems)
        raise status.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {listed}"
        )
    if strict == "Warn":
        request.warnings.extend(problems)
    return obj


async def read_options(request: Request) -> Object:
    """The DeleteOptions in the body of a DELETE, overlaid by query parameters."""
    raw = await request.body()
    options: Object = {}
    if raw:
        content_type = media_type(request)
        if content_type == _PROTOBUF:
            options_type = schema.named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
            assert isinstance(options_type, schema.Struct)
            return _protobuf(raw, options_type)
        if content_type not in ("", "application/json", "application/yaml"):
            raise _unsupported()
        try:
            value = load(raw, content_type)
        except ValueError:
            raise status.bad_request(
                "the object provided is unrecognized (must be of type DeleteOptions): couldn't get version/kind; "
                f"json parse error: {_syntax(raw)} ({_shown(raw)})"
            ) from None
        if isinstance(value, dict):
            options = value
    return options
