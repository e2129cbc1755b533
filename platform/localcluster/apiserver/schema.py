"""The types of the Kubernetes API, compiled on demand from the published OpenAPI definitions.

A type decodes JSON the way the API server's Go structs do: wrong types are refused, unknown and duplicate
fields are reported, nulls and empty values that Go leaves out are dropped. The same types carry the merge
keys and list kinds that strategic merge and server-side apply need.
"""

from __future__ import annotations

import base64
import binascii
from functools import cache, lru_cache
from typing import Any

from localcluster import quantity
from localcluster.apiserver import zero
from localcluster.apiserver.published import definitions
from localcluster.times import check_time

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
Path_ = tuple[Any, str] | None  # field names, innermost first


class DecodeError(ValueError):
    """JSON that does not fit a type; the text is what the API server says after "cannot be handled as a X: ".

    `field` is the path of the value, `go` the type that was due, `value` what stood there instead.
    """

    def __init__(self, text: str, field: str = "", go: str = "", value: Any = None) -> None:
        super().__init__(text)
        self.field = field
        self.go = go
        self.value = value


class Decoding:
    """What one decoding notices besides errors: the paths of unknown fields."""

    __slots__ = ("unknown",)

    def __init__(self) -> None:
        self.unknown: list[str] = []


def _names(path: Path_) -> list[str]:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(name)
    return names[::-1]


def path_text(path: Path_) -> str:
    """`spec.containers[0].name` of a linked path."""
    return "".join(name if name[0] == "[" else f".{name}" for name in _names(path)).lstrip(".")


def json_name(value: Any) -> str:
    """What kind of JSON value it is: object, array, string, bool or number."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "number"


def _mismatch(value: Any, go: str, path: Path_, owner: str) -> DecodeError:
    shown = json_name(value)
    if shown == "number" and go.startswith("int"):
        shown = f"number {value}"
    fields = ".".join(name for name in _names(path) if name[0] != "[" and not name.startswith('"'))
    where = f"Go struct field {owner}.{fields}" if fields else "Go value"
    text = f"json: cannot unmarshal {shown} into {where} of type {go}"
    return DecodeError(text, path_text(path), go, value)


class Type:
    """One type of the API."""

    __slots__ = ()
    atomic = True
    go = "interface {}"

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        """The value as the server keeps it; DecodeError when it has the wrong type."""
        return value


class Scalar(Type):
    __slots__ = ("go",)

    def __init__(self, go: str) -> None:
        self.go = go


class String(Scalar):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is str:
            return value
        raise _mismatch(value, self.go, path, owner)


class Boolean(Scalar):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if value is True or value is False:
            return value
        raise _mismatch(value, self.go, path, owner)


class Integer(Scalar):
    __slots__ = ("limit",)

    def __init__(self, go: str) -> None:
        super().__init__(go)
        self.limit = 2**31 if go == "int32" else 2**63

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is int and -self.limit <= value < self.limit:
            return value
        if type(value) is float and value.is_integer() and abs(value) < self.limit:
            return int(value)
        raise _mismatch(value, self.go, path, owner)


class Number(Scalar):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) in (int, float):
            return value
        raise _mismatch(value, self.go, path, owner)


class Quantity(Type):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) in (int, float):
            value = repr(value)
        elif type(value) is not str:
            raise _mismatch(value, "string", path, owner)
        try:
            return quantity.canonical(value.strip())
        except ValueError as error:
            raise DecodeError(str(error)) from None


class IntOrString(Type):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) in (int, str):
            return value
        raise _mismatch(value, "int32" if type(value) is float else "string", path, owner)


class Time(Type):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is not str:
            raise _mismatch(value, "string", path, owner)
        try:
            check_time(value)
        except ValueError as error:
            raise DecodeError(str(error)) from None
        return value


class Bytes(Type):
    __slots__ = ()

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is not str:
            raise _mismatch(value, "[]uint8", path, owner)
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise DecodeError(f"illegal base64 data at input byte {_bad_base64(value)}") from None
        return value


def _bad_base64(text: str) -> int:
    for index, letter in enumerate(text):
        if not (letter.isascii() and (letter.isalnum() or letter in "+/=")):
            return index
    return len(text) - len(text) % 4


class MapOf(Type):
    """A map from strings; `atomic` ones have one owner as a whole."""

    __slots__ = ("atomic", "value")

    def __init__(self, value: Type, atomic: bool) -> None:
        self.value = value
        self.atomic = atomic

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is not dict:
            raise _mismatch(value, "map[string]" + self.value.go, path, owner)
        item = self.value
        if type(item) is String:
            for key, one in value.items():
                if type(one) is not str and one is not None:
                    raise _mismatch(one, "string", (path, '"' + key), owner)
            return {key: one or "" for key, one in value.items()} if None in value.values() else value
        return {key: item.decode(one, (path, '"' + key), owner, seen) for key, one in value.items() if one is not None}


class ListOf(Type):
    """A list. `keys` make it a map of items; `is_set` a set of scalars; `merge_key` serves strategic merge."""

    __slots__ = ("atomic", "is_set", "item", "keys", "merge_key", "strategy")

    def __init__(self, item: Type, definition: dict[str, Any]) -> None:
        self.item = item
        kind = definition.get("x-kubernetes-list-type", "atomic")
        self.keys: tuple[str, ...] = tuple(definition.get("x-kubernetes-list-map-keys") or ())
        self.is_set = kind == "set"
        self.atomic = kind == "atomic"
        self.strategy: str = definition.get("x-kubernetes-patch-strategy", "")
        self.merge_key: str = definition.get("x-kubernetes-patch-merge-key", "")

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is not list:
            raise _mismatch(value, "[]" + self.item.go, path, owner)
        item = self.item
        return [
            item.decode({} if one is None and isinstance(item, Struct) else one, (path, f"[{i}]"), owner, seen)
            for i, one in enumerate(value)
        ]


class Struct(Type):
    """An object with named fields, compiled at its first use."""

    __slots__ = ("_definition", "_fields", "_omit", "_written", "atomic", "go", "gvks", "name", "required")

    def __init__(self, name: str, definition: dict[str, Any]) -> None:
        self.name = name.rsplit(".", 1)[-1]
        self.go = f"v1.{self.name}"
        self.atomic = definition.get("x-kubernetes-map-type") == "atomic"
        self.gvks = definition.get("x-kubernetes-group-version-kind") or []
        self.required = frozenset(definition.get("required") or ())
        self._definition = definition
        self._fields: dict[str, Type] | None = None
        self._omit: dict[str, bool] = {}
        self._written = zero.WRITTEN.get(self.name, ())

    @property
    def fields(self) -> dict[str, Type]:
        if self._fields is None:
            properties = self._definition.get("properties") or {}
            fields = {name: _compile(part) for name, part in properties.items()}
            for name, kind in fields.items():
                self._omit[name] = name not in self.required and zero.is_left_out(self.name, name, kind)
            self._fields = fields
            self._definition = {}  # no longer needed, and there are hundreds
        return self._fields

    def decode(self, value: Any, path: Path_, owner: str, seen: Decoding) -> Any:
        if type(value) is not dict:
            raise _mismatch(value, self.go, path, owner)
        fields = self.fields
        omit = self._omit
        name = self.name
        result = {}
        for key, one in value.items():
            if one is None:
                if key not in fields:
                    seen.unknown.append(path_text((path, key)))
                continue
            kind = fields.get(key)
            if kind is None:
                seen.unknown.append(path_text((path, key)))
                continue
            one = kind.decode(one, (path, key), name, seen)
            if one or not omit[key]:
                result[key] = one
        for key in self._written:
            result.setdefault(key, None)
        return result


_STRING, _BOOLEAN = String("string"), Boolean("bool")
_INT32, _INT64, _FLOAT = Integer("int32"), Integer("int64"), Number("float64")
_ANY, _BYTES, _TIME = Type(), Bytes(), Time()
_SPECIAL: dict[str, Type] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": Quantity(),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": IntOrString(),
    _META + "Time": _TIME,
    _META + "MicroTime": _TIME,
    _META + "FieldsV1": _ANY,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _ANY,
}


@lru_cache(None)
def named(name: str) -> Type:
    """The type of one definition, such as io.k8s.api.core.v1.Pod."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special
    definition = definitions()[name]
    if "properties" in definition:
        return Struct(name, definition)
    return _compile(definition)


@cache
def _by_kind() -> dict[tuple[str, str, str], str]:
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, definition in definitions().items()
        for gvk in definition.get("x-kubernetes-group-version-kind") or ()
    }


@lru_cache(None)
def of_kind(group: str, version: str, kind: str) -> Struct:
    """The type of a kind; KeyError when the API has none."""
    found = named(_by_kind()[group, version, kind])
    assert isinstance(found, Struct)
    return found


def _compile(part: dict[str, Any]) -> Type:
    reference = part.get("$ref")
    if reference:
        return named(reference.rsplit("/", 1)[-1])
    declared = part.get("type")
    kind = next((k for k in declared if k != "null"), None) if isinstance(declared, list) else declared
    if kind == "array":
        return ListOf(_compile(part["items"]), part)
    if kind == "object":
        atomic = part.get("x-kubernetes-map-type") == "atomic"
        return MapOf(_compile(part["additionalProperties"]), atomic) if "additionalProperties" in part else _ANY
    if kind == "string":
        return _BYTES if part.get("format") == "byte" else _STRING
    if kind == "integer":
        return _INT64 if part.get("format") == "int64" else _INT32
    if kind == "boolean":
        return _BOOLEAN
    return _FLOAT if kind == "number" else _ANY


def compile_whole(kind: Type) -> None:
    """Compile a type and all that it holds."""
    pending, seen = [kind], set()
    while pending:
        one = pending.pop()
        if isinstance(one, ListOf):
            pending.append(one.item)
        elif isinstance(one, MapOf):
            pending.append(one.value)
        elif isinstance(one, Struct) and one.name not in seen:
            seen.add(one.name)
            pending += one.fields.values()


def decode(kind: Type, value: Any) -> tuple[Any, list[str]]:
    """Decode a whole object: the cleaned value and the paths of unknown fields."""
    seen = Decoding()
    return kind.decode(value, None, kind.go, seen), seen.unknown
