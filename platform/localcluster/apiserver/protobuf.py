"""Reading bodies in Kubernetes' protobuf encoding, which kubectl and helm prefer for what they create.

Field names and types are those of the schemas; `data/protobuf.json` adds the field numbers of each message.
A name with `@` is a message whose fields JSON writes in line. Only reading is needed: every client that sends
protobuf takes JSON for an answer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from localcluster.apiserver import schema
from localcluster.apiserver.schema import ListOf, MapOf, Struct, Type

Object = dict[str, Any]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ProtobufError(ValueError):
    """A body that is no protobuf, or holds a message or field that is not known here."""


@cache
def _numbers() -> dict[str, dict[int, str]]:
    raw = orjson.loads((Path(__file__).parent / "data" / "protobuf.json").read_bytes())
    return {name: {int(number): field for number, field in table.items()} for name, table in raw.items()}


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ProtobufError("the protobuf body ends inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a message: int for varints, bytes for everything else."""
    if not isinstance(data, bytes):
        raise ProtobufError("the protobuf body has a number where a message is due")
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value: Any
            value, position = _varint(data, position)
        elif wire == 2:
            size, position = _varint(data, position)
            value = data[position : position + size]
            position += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value = data[position : position + size]
            position += size
        else:
            raise ProtobufError(f"the protobuf body has a field of the unknown wire type {wire}")
        if position > len(data):
            raise ProtobufError("the protobuf body ends inside a field")
        yield number, value


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise ProtobufError("the protobuf body has a number where a text is due")
    return value.decode("utf-8", "replace")


def _signed(value: Any) -> int:
    if not isinstance(value, int):
        raise ProtobufError("the protobuf body has a text where a number is due")
    return value - (1 << 64) if value >= 1 << 63 else value


def _time(data: bytes) -> str | None:
    parts = dict(_fields(data))
    if not parts:
        return None
    seconds, nanos = _signed(parts.get(1, 0)), _signed(parts.get(2, 0))
    try:
        moment = _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError:
        raise ProtobufError(f"the protobuf body has the time {seconds} s, which no calendar holds") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if nanos else "%Y-%m-%dT%H:%M:%SZ")


def _int_or_string(data: bytes) -> Any:
    parts = dict(_fields(data))
    return _text(parts.get(3, b"")) if parts.get(1) else _signed(parts.get(2, 0))


def _value(kind: Type, raw: Any) -> Any:
    if isinstance(kind, schema.String):
        return _text(raw)
    if isinstance(kind, schema.Boolean):
        return bool(raw)
    if isinstance(kind, schema.Integer):
        return _signed(raw)
    if not isinstance(raw, bytes):
        raise ProtobufError("the protobuf body has a number where a message is due")
    if isinstance(kind, schema.Bytes):
        return base64.b64encode(raw).decode()
    if isinstance(kind, schema.Quantity):
        return _text(dict(_fields(raw)).get(1, b"0"))
    if isinstance(kind, schema.IntOrString):
        return _int_or_string(raw)
    if isinstance(kind, schema.Time):
        return _time(raw)
    if isinstance(kind, Struct):
        return _message(kind, kind.name, raw)
    if isinstance(kind, ListOf):  # a list inside a map is a message with one repeated field
        return [_value(kind.item, part) for _, part in _fields(raw)]
    wrapped = dict(_fields(raw)).get(1, b"")
    try:
        return orjson.loads(_text(wrapped)) if wrapped else None
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"the protobuf body has a part that is no JSON: {error}") from None


def _message(kind: Struct, name: str, data: bytes) -> Object:
    if not data:
        return {}
    table = _numbers().get(name)
    if table is None:
        raise ProtobufError(f"the message {name} is not known in protobuf here")
    result: Object = {}
    for number, raw in _fields(data):
        field = table.get(number)
        if field is None:
            if not raw:
                continue  # Go writes some fields even when they are empty
            raise ProtobufError(f"field {number} of the message {name} is not known in protobuf here")
        if field[0] == "@":
            result |= _message(kind, field[1:], raw)
            continue
        part = kind.fields.get(field)
        if part is None:
            continue
        if isinstance(part, ListOf):
            result.setdefault(field, []).append(_value(part.item, raw))
        elif isinstance(part, MapOf):
            entry = dict(_fields(raw))
            result.setdefault(field, {})[_text(entry.get(1, b""))] = _value(part.value, entry.get(2, b""))
        else:
            result[field] = _value(part, raw)
    return result


def load(body: bytes, kind: Struct) -> Object:
    """The object in a protobuf body, with its kind and apiVersion; ProtobufError when it cannot be read."""
    if body[:4] != _MAGIC:
        raise ProtobufError("the body does not start as Kubernetes' protobuf does")
    envelope = dict(_fields(body[4:]))
    said = dict(_fields(envelope.get(1, b"")))
    obj = _message(kind, kind.name, envelope.get(2, b""))
    return {"apiVersion": _text(said.get(1, b"")), "kind": _text(said.get(2, b"")), **obj}
