"""JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

from localcluster.apiserver.schema import ListOf, MapOf, Struct, Type
from localcluster.apiserver.status import StatusError, bad_request, internal

_DIRECTIVE = "$patch"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_SET_ORDER = "$setElementOrder/"
_RETAIN = "$retainKeys"
MAX_OPERATIONS = 10_000


def _refused() -> StatusError:
    return StatusError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with a merge patch applied; nulls remove."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _pointer(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise _refused()
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _index(part: str, size: int, *, adding: bool) -> int:
    if adding and part == "-":
        return size
    try:
        index = int(part)
    except ValueError:
        raise _refused() from None
    if index < 0:
        index += size + (1 if adding else 0)
    if not 0 <= index < size + (1 if adding else 0):
        raise _refused()
    return index


def _lookup(node: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(node, dict):
            if part not in node:
                raise _refused()
            node = node[part]
        elif isinstance(node, list):
            node = node[_index(part, len(node), adding=False)]
        else:
            raise _refused()
    return node


def json_patch(target: Any, operations: Any) -> Any:
    """The target with a JSON patch applied; StatusError 422 for a failed test or an impossible operation."""
    if not isinstance(operations, list):
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {_shape(operations)} into Go value of type "
            "[]handlers.jsonPatchOp"
        )
    if len(operations) > MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise StatusError(413, "RequestEntityTooLarge", message)
    document = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict):
            raise _refused()
        document = _operate(document, operation)
    return document


def _shape(value: Any) -> str:
    return "object" if isinstance(value, dict) else "string" if isinstance(value, str) else "number"


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    kind = operation.get("op")
    parts = _pointer(operation.get("path"))
    match kind:
        case "test":
            try:
                found = _lookup(document, parts)
            except StatusError:
                found = None
            if found != operation.get("value"):
                raise _refused()
            return document
        case "add":
            return _add(document, parts, copy.deepcopy(operation.get("value")))
        case "replace":
            return _replace(document, parts, copy.deepcopy(operation.get("value")))
        case "remove":
            return _remove(document, parts)
        case "move":
            source = _pointer(operation.get("from"))
            value = _lookup(document, source)
            return _add(_remove(document, source), parts, value)
        case "copy":
            return _add(document, parts, copy.deepcopy(_lookup(document, _pointer(operation.get("from")))))
    raise _refused()


def _add(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    parent = _lookup(document, parts[:-1])
    if isinstance(parent, dict):
        parent[parts[-1]] = value
    elif isinstance(parent, list):
        parent.insert(_index(parts[-1], len(parent), adding=True), value)
    else:
        raise _refused()
    return document


def _replace(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    parent = _lookup(document, parts[:-1])
    if isinstance(parent, dict):
        parent[parts[-1]] = value  # as in Kubernetes, the key need not exist
    elif isinstance(parent, list):
        parent[_index(parts[-1], len(parent), adding=False)] = value
    else:
        raise _refused()
    return document


def _remove(document: Any, parts: list[str]) -> Any:
    if not parts:
        return None
    parent = _lookup(document, parts[:-1])
    if isinstance(parent, dict):
        if parts[-1] not in parent:
            raise _refused()
        del parent[parts[-1]]
    elif isinstance(parent, list):
        del parent[_index(parts[-1], len(parent), adding=False)]
    else:
        raise _refused()
    return document


def strategic_merge(kind: Type, target: Any, patch: Any) -> Any:
    """The target with a strategic merge patch applied, by the merge keys of its type."""
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: the strategic merge patch is not a JSON object")
    return _merge_map(kind, target if isinstance(target, dict) else {}, patch)


def _field(kind: Type, name: str) -> Type:
    if isinstance(kind, Struct):
        found = kind.fields.get(name)
        if found is not None:
            return found
    return kind.value if isinstance(kind, MapOf) else _PLAIN


_PLAIN = Type()


def _merge_map(kind: Type, target: dict[str, Any], patch: dict[str, Any]) -> Any:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive is not None and directive != "merge":
        raise internal(f"unknown patch type: {directive} in map: {go_map(patch)}")
    result = dict(target)
    retain = patch.get(_RETAIN)
    if retain is not None:
        result = {key: value for key, value in result.items() if key in retain}
    orders = {key.removeprefix(_SET_ORDER): value for key, value in patch.items() if key.startswith(_SET_ORDER)}
    for key, value in patch.items():
        if key.startswith(_DELETE_PRIMITIVES):
            name = key.removeprefix(_DELETE_PRIMITIVES)
            if isinstance(result.get(name), list):
                result[name] = [item for item in result[name] if item not in value]
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith((_DELETE_PRIMITIVES, _SET_ORDER)):
            continue
        part = _field(kind, key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = _merge_map(part, before if isinstance(before, dict) else {}, value)
        elif isinstance(value, list):
            before = result.get(key)
            result[key] = _merge_list(part, before if isinstance(before, list) else [], value, orders.get(key))
        else:
            result[key] = value
    for name, order in orders.items():
        if name not in patch and isinstance(result.get(name), list):
            part = _field(kind, name)
            if isinstance(part, ListOf) and part.strategy.startswith("merge"):
                result[name] = _ordered(part, result[name], result[name], order)
    return result


def _clean(value: Any) -> Any:
    """A patch value as it is stored where nothing was before: without directives and nulls."""
    if isinstance(value, dict):
        return {
            key: _clean(part)
            for key, part in value.items()
            if part is not None and not key.startswith(("$patch", "$retainKeys", "$setElementOrder", "$delete"))
        }
    return [_clean(part) for part in value] if isinstance(value, list) else value


def _merge_list(kind: Type, target: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    if not isinstance(kind, ListOf) or "merge" not in kind.strategy.split(","):
        return [_clean(item) for item in patch if not (isinstance(item, dict) and item.get(_DIRECTIVE))]
    if not kind.merge_key:
        result = list(target) + [item for item in patch if item not in target]
        return _ordered(kind, result, target, order or patch)
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [_clean(item) for item in patch if item.get(_DIRECTIVE) != "replace"]
    key = kind.merge_key
    result = list(target)
    named: list[Any] = []
    for item in patch:
        if not isinstance(item, dict):
            raise internal("patch has a list item that is no object where objects with a merge key are due")
        directive = item.get(_DIRECTIVE)
        if directive not in (None, "delete", "merge"):
            raise internal(f"unknown patch type: {directive} in map: {go_map(item)}")
        if key not in item:
            raise internal(f"map: {go_map(item)} does not contain declared merge key: {key}")
        position = next((i for i, one in enumerate(result) if one.get(key) == item[key]), None)
        if directive == "delete":
            if position is not None:
                result = [one for one in result if one.get(key) != item[key]]
            continue
        named.append(item)
        if position is None:
            result.append(_clean(item))
        else:
            result[position] = _merge_map(kind.item, result[position], item)
    return _ordered(kind, result, target, order or named)


def go_map(value: Any) -> str:
    """A decoded JSON value as Go prints it in messages."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_map(part)}" for key, part in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_map, value)) + "]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(kind: ListOf, items: list[Any], before: list[Any], wanted: list[Any]) -> list[Any]:
    """Merged items in order: those in `wanted` (items or merge keys) in that order, and the others in theirs.

    One that the patch does not name goes first only if it stood before the named one already; so new
    items land before old unnamed ones, as they do in Kubernetes.
    """

    def identity(item: Any) -> str:
        return repr(item.get(kind.merge_key) if kind.merge_key and isinstance(item, dict) else item)

    by_id = {identity(item): item for item in items}
    order = list(dict.fromkeys(identity(one) for one in wanted))
    named = [one for one in order if one in by_id]
    rest = [one for one in by_id if one not in set(order)]
    place = {identity(item): index for index, item in enumerate(before)}
    result: list[Any] = []
    while named and rest:
        first = rest[0] in place and named[0] in place and place[rest[0]] < place[named[0]]
        result.append(by_id[(rest if first else named).pop(0)])
    return result + [by_id[one] for one in named + rest]
