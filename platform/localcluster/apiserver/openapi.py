"""/openapi/v3: the published definitions of the served group versions, as `kubectl explain` reads them."""

from __future__ import annotations

from functools import cache
from hashlib import sha512
from typing import Any

import orjson

from localcluster.apiserver import discovery, published
from localcluster.apiserver.web import Answer, Request, Response, json_answer, text_answer

Object = dict[str, Any]

_ACTIONS = {
    "get": "get",
    "list": "list",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "deletecollection",
}
_METHODS = {
    "get": "get",
    "list": "get",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "delete",
}
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")


def _clean(node: Any) -> Any:
    """A definition in the dialect of OpenAPI 3.0: no null types, references below components."""
    if isinstance(node, list):
        return [_clean(one) for one in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = {"$ref": "#/components/schemas/" + reference.rsplit("/", 1)[-1]}
        rest = {key: _clean(value) for key, value in node.items() if key != "$ref"}
        # OpenAPI 3.0 ignores what stands beside a reference.
        return {"allOf": [target], "default": {}, **rest} if rest else target
    result: Object = {}
    for key, value in node.items():
        if key == "type" and isinstance(value, list):
            kept = [one for one in value if one != "null"]
            result["type"] = kept[0] if kept else "object"
        elif key in ("properties", "$defs"):
            result[key] = {name: _clean(part) for name, part in value.items()}
        elif key == "enum" and node.get("type") == ["string", "null"] and len(value) == 1:
            continue  # kind and apiVersion are pinned for validators only
        else:
            result[key] = _clean(value)
    return result


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_references, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = {node["$ref"].rsplit("/", 1)[-1]} if isinstance(node.get("$ref"), str) else set()
    return found.union(*(_references(part) for part in node.values())) if node else found


def definitions(group: str, version: str, kinds: set[str]) -> Object:
    """The definitions of some kinds of a group version and all they refer to, in the dialect of OpenAPI 3.0."""
    everything = orjson.loads(published.file().read_bytes())["$defs"]
    wanted = {"DeleteOptions": "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"}
    for name, definition in everything.items():
        for gvk in definition.get("x-kubernetes-group-version-kind") or ():
            if (gvk["group"], gvk["version"]) == (group, version) and gvk["kind"].removesuffix("List") in kinds:
                wanted[name] = name
    pending, found = set(wanted.values()), {}
    while pending:
        name = pending.pop()
        if name in found or name not in everything:
            continue
        found[name] = everything[name]
        pending |= _references(everything[name])
    return {name: _clean(definition) for name, definition in sorted(found.items())}


def _operation(verb: str, gvk: Object) -> Object:
    operation: Object = {
        "x-kubernetes-action": _ACTIONS[verb],
        "x-kubernetes-group-version-kind": gvk,
        "responses": {"200": {"description": "OK"}},
    }
    if verb in ("create", "update", "patch"):
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in _WRITE_PARAMETERS
        ]
    return operation


def paths(group: str, version: str, resources: list[Object]) -> Object:
    """The paths of resources and what may be done there."""
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    found: Object = {}
    for resource in resources:
        name, _, sub = resource["name"].partition("/")
        gvk = {
            "group": resource.get("group", group),
            "version": resource.get("version", version),
            "kind": resource["kind"],
        }
        base = f"{root}/namespaces/{{namespace}}/{name}" if resource["namespaced"] else f"{root}/{name}"
        single = f"{base}/{{name}}" + (f"/{sub}" if sub else "")
        for verb in resource["verbs"]:
            if verb not in _METHODS:
                continue
            collection = not sub and verb in ("list", "create", "deletecollection")
            path = found.setdefault(base if collection else single, {})
            path[_METHODS[verb]] = _operation(verb, gvk)
    return found


@cache
def _document(group: str, version: str) -> bytes | None:
    for entry in discovery.entries():
        if (entry["group"], entry["version"]) != (group, version):
            continue
        resources = [one for part in entry["resources"] for one in part["listed"]]
        kinds = {one["kind"] for one in resources}
        document = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": discovery.VERSION["gitVersion"]},
            "paths": paths(group, version, resources),
            "components": {"schemas": definitions(group, version, kinds)},
        }
        return orjson.dumps(document)
    return None


@cache
def _index() -> Object:
    paths = {}
    for entry in discovery.entries():
        group, version = entry["group"], entry["version"]
        name = f"apis/{group}/{version}" if group else f"api/{version}"
        seed = f"{published.SCHEMA_VERSION} {name} {orjson.dumps(entry).decode()}"
        digest = sha512(seed.encode()).hexdigest().upper()
        paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
    return {"paths": paths}


def answer(parts: list[str], request: Request) -> Answer | None:
    """The answer to /openapi/v3/PARTS; None when there is no such document."""
    if not parts:
        return text_answer(orjson.dumps(_index()).decode())
    if parts[0] == "api" and len(parts) == 2:
        document = _document("", parts[1])
    elif parts[0] == "apis" and len(parts) == 3:
        document = _document(parts[1], parts[2])
    else:
        return None
    if document is None:
        return None
    if request.header(b"accept").startswith("application/com.github.proto-openapi"):
        return Response(b"", 406)
    return Response(document) if document else json_answer({})
