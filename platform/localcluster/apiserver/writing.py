"""Create, replace, patch, apply and delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from localcluster import resources as r
from localcluster.apiserver import codec, managed, patches, schema, status
from localcluster.apiserver.deletion import DeleteOptions
from localcluster.apiserver.managed import Manager
from localcluster.apiserver.objects import Objects, whole
from localcluster.apiserver.reading import test_of
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.status import Cause, StatusError
from localcluster.apiserver.web import Request, Response, json_answer

Object = dict[str, Any]

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_PATCH_TYPES = (_JSON_PATCH, _MERGE_PATCH, _STRATEGIC_PATCH, _APPLY, "application/apply-patch+cbor")
_POLICIES = ("Background", "Foreground", "Orphan")


def dry_run(request: Request, options: str, body: Object | None = None) -> bool:
    """Whether the request is a dry run; StatusError 422 for another value than All."""
    value = request.query.get("dryRun")
    values = [value] if value else list((body or {}).get("dryRun") or [])
    if not values:
        return False
    if values != ["All"]:
        listed = ",".join(f'"{one}"' for one in values)
        text = f'Unsupported value: [{listed}]: supported values: "All"'
        raise status.bad_option(options, [Cause("FieldValueNotSupported", text, "dryRun")])
    return True


def manager_of(request: Request, kind: Kind, operation: str, subresource: str = "", *, timed: bool = True) -> Manager:
    """Who writes: the fieldManager parameter, else the user agent up to its slash."""
    name = request.query.get("fieldManager", "")
    if not name:
        name = request.header(b"user-agent").split("/", 1)[0][:128] or "unknown"
    return Manager(name, operation, kind.resource.api_version, subresource, timed=timed)


@dataclass(frozen=True, slots=True)
class Shape:
    """The version in which a client speaks of a kind: its type and the way to and from the stored form."""

    kind: Kind
    inward: Callable[[Object], Object] = lambda obj: obj
    outward: Callable[[Object], Object] = lambda obj: obj


async def create(objects: Objects, kind: Kind, request: Request, namespace: str, shape: Shape) -> Object:
    """POST to a collection; the created object."""
    is_dry = dry_run(request, "CreateOptions")
    obj = shape.inward(await codec.read_object(request, shape.kind, "CreateOptions"))
    return objects.create(kind, namespace, obj, manager_of(request, shape.kind, "Update"), dry_run=is_dry)


async def replace(
    objects: Objects,
    kind: Kind,
    request: Request,
    namespace: str,
    name: str,
    subresource: str,
    shape: Shape,
) -> Object:
    """PUT of an object or of its status; the object as stored."""
    is_dry = dry_run(request, "UpdateOptions")
    obj = shape.inward(await codec.read_object(request, shape.kind, "UpdateOptions"))
    manager = manager_of(request, shape.kind, "Update", subresource)
    sent = orjson.dumps(obj)
    return objects.update(
        kind, namespace, name, lambda _: orjson.loads(sent), manager, subresource=subresource, dry_run=is_dry
    )


def patch_type(request: Request) -> str:
    """The kind of patch by its content type; StatusError 415 for others."""
    found = codec.media_type(request)
    if found not in _PATCH_TYPES:
        raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    return found


async def read_patch(request: Request) -> Any:
    """The decoded body of a patch request."""
    raw = await request.body()
    content_type = codec.media_type(request)
    try:
        return codec.load(raw, content_type)
    except ValueError as error:
        if content_type == _APPLY:
            raise status.bad_request(f"error decoding YAML: {error}") from None
        detail = codec._syntax(raw)
        raise status.bad_request(f"error decoding patch: {detail}" if raw else "unexpected end of JSON input") from None


def patched(kind: schema.Type, current: Object, content_type: str, patch: Any) -> Any:
    """An object with a JSON, merge or strategic merge patch applied."""
    if content_type == _JSON_PATCH:
        return patches.json_patch(current, patch)
    if not isinstance(patch, dict):
        what = "array" if isinstance(patch, list) else "string" if isinstance(patch, str) else "number"
        raise status.bad_request(
            f"error decoding patch: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        )
    if content_type == _MERGE_PATCH:
        return patches.merge_patch(current, patch)
    return patches.strategic_merge(kind, current, patch)


async def patch(
    objects: Objects,
    kind: Kind,
    request: Request,
    namespace: str,
    name: str,
    subresource: str,
    shape: Shape,
) -> tuple[Object, bool]:
    """PATCH of an object or of its status; the object as stored, and whether it was created."""
    is_dry = dry_run(request, "PatchOptions")
    content_type = patch_type(request)
    if content_type.startswith("application/apply-patch"):
        return await apply(objects, kind, request, namespace, name, subresource, is_dry=is_dry)
    if "force" in request.query:
        text = "Forbidden: may not be specified for non-apply patch"
        raise status.bad_option("PatchOptions", [Cause("FieldValueForbidden", text, "force")])
    strict = codec.strictness(request, "PatchOptions")
    body = await read_patch(request)
    problems = []
    if strict != "Ignore":
        problems = [f'duplicate field "{path}"' for path in codec.duplicates(await request.body(), body)]

    def change(current: Object) -> Object:
        if content_type == _STRATEGIC_PATCH:
            _check_strategic(shape.kind, body)
        value = patched(shape.kind.type, shape.outward(current), content_type, body)
        return shape.inward(_decoded(request, shape.kind, value, strict, problems))

    manager = manager_of(request, shape.kind, "Update", subresource, timed=not is_dry)
    obj = objects.update(kind, namespace, name, change, manager, subresource=subresource, dry_run=is_dry, patching=True)
    return obj, False


def _decoded(request: Request, kind: Kind, value: Any, strict: str, problems: list[str]) -> Object:
    resource = kind.resource
    if not isinstance(value, dict):
        raise status.internal("the patched object is not a JSON object")
    for key, right in (("kind", resource.kind), ("apiVersion", resource.api_version)):
        if value.get(key) not in (None, right):
            codec.check_kind(kind, value)
    try:
        obj, unknown = schema.decode(kind.type, value)
    except schema.DecodeError as error:
        raise _bad_patch(f"Invalid value: {_compact(value)}: {error}") from None
    problems = problems + [f'unknown field "{path}"' for path in unknown]
    if problems and strict == "Strict":
        raise _bad_patch(f"Invalid value: {_compact(value)}: strict decoding error: {', '.join(problems)}")
    if strict == "Warn":
        request.warnings.extend(problems)
    return obj


def _check_strategic(kind: Kind, body: Any) -> None:
    """StatusError 422 for values of the wrong type in a strategic merge patch, in its own words."""
    try:
        kind.type.decode(body, None, kind.type.go, schema.Decoding())
    except schema.DecodeError as error:
        if error.go in ("int32", "int64", "bool", "string"):
            text = f'Invalid value: "{patches.go_map(body)}": unrecognized type: {error.go}'
            raise _bad_patch(text) from None


def _bad_patch(text: str) -> StatusError:
    return status.invalid("", "", "", [Cause("FieldValueInvalid", text, "patch")])


def _compact(value: Any) -> str:
    return '"' + orjson.dumps(value).decode().replace("\\", "\\\\").replace('"', '\\"') + '"'


async def apply(
    objects: Objects, kind: Kind, request: Request, namespace: str, name: str, subresource: str, *, is_dry: bool
) -> tuple[Object, bool]:
    """Server-side apply; the object as stored, and whether it was created."""
    if not request.query.get("fieldManager"):
        text = "Required value: is required for apply patch"
        raise status.bad_option("PatchOptions", [Cause("FieldValueRequired", text, "fieldManager")])
    codec.strictness(request, "PatchOptions")
    config = await read_patch(request)
    manager = manager_of(request, kind, "Apply", subresource, timed=not is_dry)
    force = request.flag("force")
    config = _check_config(kind, namespace, name, config)
    reset = _reset(kind, subresource)
    record = objects.table(kind).get(namespace, name)
    if record is None:
        if subresource:
            raise status.not_found(kind.resource, name)
        if config["metadata"].get("uid"):
            raise status.conflict(
                kind.resource,
                name,
                f"uid mismatch: the provided object specified uid {config['metadata']['uid']}, and no existing "
                "object was found",
            )
        obj, _ = schema.decode(kind.type, managed.applied(kind.type, {}, config, manager, force, reset))
        return objects.create(kind, namespace, obj, manager, dry_run=is_dry, applied=True), True

    def change(current: Object) -> Object:
        value = managed.applied(kind.type, current, config, manager, force, reset)
        obj, _ = schema.decode(kind.type, value)
        obj["metadata"].setdefault("managedFields", [])
        return obj

    stored = objects.update(
        kind, namespace, name, change, manager, subresource=subresource, dry_run=is_dry, applied=True
    )
    return stored, False


def _reset(kind: Kind, subresource: str) -> managed.ResetFields:
    if subresource == "status":
        return managed.RESET_STATUS
    return managed.RESET_MAIN if kind.has_status else ()


def _check_config(kind: Kind, namespace: str, name: str, config: Any) -> Object:
    resource = kind.resource
    if not isinstance(config, dict):
        raise status.bad_request("error decoding YAML: the applied configuration must be an object")
    said = (config.get("kind") or "", config.get("apiVersion") or "")
    if said != (resource.kind, resource.api_version):
        group, _, version = str(said[1]).rpartition("/")
        raise status.bad_request(f"invalid object type: {group}/{version}, Kind={said[0]}")
    if isinstance(config.get("metadata"), dict):
        managed.check_sent(config["metadata"].pop("managedFields", None))
    seen = schema.Decoding()
    try:
        kind.type.decode(config, None, kind.type.go, seen)
    except schema.DecodeError as error:
        raise managed.untyped(config, _expected(error)) from None
    if seen.unknown:
        raise managed.undeclared(config, seen.unknown)
    problem = managed.check_keys(kind.type, config)
    if problem:
        raise managed.untyped(config, problem)
    metadata = config.setdefault("metadata", {})
    if metadata.setdefault("name", name) != name:
        raise status.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    if resource.namespaced and metadata.setdefault("namespace", namespace) != namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return _without_nulls(config)


def _expected(error: schema.DecodeError) -> str:
    """A type error in the words of server-side apply."""
    if not error.field:
        return str(error)
    if error.go.startswith(("int", "float")):
        found = "string" if isinstance(error.value, str) else schema.json_name(error.value)
        return f".{error.field}: expected numeric (int or float), got {found}"
    due = {"string": "string", "bool": "boolean"}.get(error.go, error.go)
    if error.go.startswith("[]"):
        due = "list"
    elif error.go.startswith(("map", "v1.")):
        due = "map"
    found = orjson.dumps(error.value).decode()
    return f".{error.field}: expected {due}, got &value.valueUnstructured{{Value:{found}}}"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


async def delete_options(request: Request) -> DeleteOptions:
    """The options of a DELETE, from its body and its parameters."""
    body = await codec.read_options(request)
    query = request.query
    policy = query.get("propagationPolicy") or body.get("propagationPolicy")
    if policy is not None and policy not in _POLICIES:
        text = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        cause = Cause("FieldValueNotSupported", text, "propagationPolicy")
        raise status.bad_option("DeleteOptions", [cause])
    orphan = body.get("orphanDependents")
    if "orphanDependents" in query:
        orphan = request.flag("orphanDependents")
    if orphan is not None and policy is None:
        policy = "Orphan" if orphan else "Background"
    grace: Any = query.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
    try:
        seconds = None if grace in (None, "") else int(grace)
    except (ValueError, TypeError):
        raise status.bad_request(f'strconv.ParseInt: parsing "{grace}": invalid syntax') from None
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        grace_seconds=seconds,
        propagation=policy,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        dry_run=dry_run(request, "DeleteOptions", body),
    )


async def delete(objects: Objects, kind: Kind, request: Request, namespace: str, name: str) -> Response:
    """DELETE of one object."""
    options = await delete_options(request)
    if kind.resource == r.JOBS and options.propagation is None:
        request.warnings.append(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
            "them or set propagationPolicy=Orphan to suppress this warning"
        )
    obj, shown = objects.delete(kind, namespace, name, options)
    if shown:
        return json_answer(whole(kind, obj))
    return json_answer(status.success(kind.resource, name, obj["metadata"]["uid"]))


async def delete_collection(objects: Objects, kind: Kind, request: Request, namespace: str | None) -> Response:
    """DELETE of a collection: the list of what was deleted, as it was."""
    options = await delete_options(request)
    test = test_of(kind, request)
    records = [record for record in objects.table(kind).records(namespace) if test is None or test(record)]
    items = []
    for record in records:
        try:
            objects.delete(kind, record.namespace, record.name, options)
        except StatusError as error:
            if error.code != 404:
                raise
            continue
        items.append(record.load())
    resource = kind.resource
    metadata = {"resourceVersion": str(objects.store.revision)}
    return json_answer(
        {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": items}
    )
