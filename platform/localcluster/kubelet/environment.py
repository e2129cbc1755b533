"""The environment and command line of a container.

Pure functions of the pod and of the ConfigMaps and Secrets it names, which a `lookup` gives.
Source: kubernetes pkg/kubelet/kubelet_pods.go, third_party/forked/golang/expansion.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from decimal import ROUND_CEILING
from typing import Literal

from localcluster.client import Object
from localcluster.quantity import parse

Lookup = Callable[[Literal["ConfigMap", "Secret"], str], Awaitable[Object | None]]
_SUBSCRIPT = re.compile(r"^metadata\.(annotations|labels)\['(.+)'\]$")
_VARIABLE = re.compile(r"\$(\$|\([^()$]*\))")


class ConfigError(Exception):
    """A container cannot be configured: CreateContainerConfigError with this text."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; unknown names stay as they are and `$$` is a literal `$`."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[1][1:-1], match[0])

    return _VARIABLE.sub(replace, text)


def field_value(pod: Object, path: str, *, addresses: Mapping[str, str]) -> str:
    """A downward API field; `addresses` has podIP and hostIP, which the status may not have yet."""
    metadata = pod["metadata"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return (metadata.get(subscript[1]) or {}).get(subscript[2], "")
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(metadata.get(path.partition(".")[2]) or {})
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": addresses.get("podIP", ""),
        "status.podIPs": addresses.get("podIP", ""),
        "status.hostIP": addresses.get("hostIP", ""),
        "status.hostIPs": addresses.get("hostIP", ""),
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path]


def format_map(entries: Mapping[str, str]) -> str:
    """Lines `key="value"` in key order, as downward API files have them."""
    return "\n".join(f"{key}={_quote(value)}" for key, value in sorted(entries.items()))


def _quote(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'


def resource_value(pod: Object, container: Object, reference: Object, allocatable: Mapping[str, str]) -> str:
    """A resourceFieldRef: the value divided by its divisor, rounded up; limits default to the node's."""
    name = reference.get("containerName")
    if name and name != container["name"]:
        everyone = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        container = next((entry for entry in everyone if entry["name"] == name), container)
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    quantity = (resources.get(kind) or {}).get(resource)
    if quantity is None and kind == "limits":
        quantity = allocatable.get(resource)
    divisor = parse(reference.get("divisor") or "1") or parse("1")
    return str(int((parse(quantity or "0") / divisor).to_integral_value(ROUND_CEILING)))


def _decode(kind: str, source: Object) -> dict[str, str]:
    values = dict(source.get("data") or {})
    if kind == "Secret":
        return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in values.items()}
    return values


async def declared(
    pod: Object,
    container: Object,
    lookup: Lookup,
    *,
    base: Mapping[str, str],
    addresses: Mapping[str, str],
    allocatable: Mapping[str, str],
) -> dict[str, str]:
    """Variables in Kubernetes' order: `base`, envFrom, env; later ones win and may refer to earlier ones."""
    result = dict(base)
    for source in container.get("envFrom") or []:
        kind: Literal["ConfigMap", "Secret"] = "ConfigMap" if source.get("configMapRef") else "Secret"
        reference = source.get("configMapRef") or source["secretRef"]
        found = await lookup(kind, reference["name"])
        if found is None:
            if reference.get("optional"):
                continue
            raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
        prefix = source.get("prefix") or ""
        result |= {prefix + key: value for key, value in _decode(kind, found).items()}
    visible = dict(result)
    for variable in container.get("env") or []:
        value = await _value(pod, container, variable, lookup, visible, addresses, allocatable)
        if value is not None:
            result[variable["name"]] = visible[variable["name"]] = value
    return result


async def _value(
    pod: Object,
    container: Object,
    variable: Object,
    lookup: Lookup,
    visible: Mapping[str, str],
    addresses: Mapping[str, str],
    allocatable: Mapping[str, str],
) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(variable.get("value") or "", visible)
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"], addresses=addresses)
    if source.get("resourceFieldRef"):
        return resource_value(pod, container, source["resourceFieldRef"], allocatable)
    kind: Literal["ConfigMap", "Secret"] = "ConfigMap" if source.get("configMapKeyRef") else "Secret"
    reference = source.get("configMapKeyRef") or source.get("secretKeyRef")
    if not reference:
        raise ConfigError(f"env {variable['name']}: valueFrom names no known source")
    found = await lookup(kind, reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
    values = _decode(kind, found)
    if reference["key"] not in values:
        if reference.get("optional"):
            return None
        where = f"{pod['metadata']['namespace']}/{reference['name']}"
        raise ConfigError(f"couldn't find key {reference['key']} in {kind} {where}")
    return values[reference["key"]]


def service_links(services: list[Object], namespace: str) -> dict[str, str]:
    """`NAME_SERVICE_HOST` and the docker-link variables of a namespace's services."""
    result: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP")
        if metadata["namespace"] != namespace or not address or address == "None":
            continue
        name = re.sub(r"[-.]", "_", metadata["name"]).upper()
        ports = spec.get("ports") or []
        if not ports:
            continue
        first = ports[0]
        result[f"{name}_SERVICE_HOST"] = address
        result[f"{name}_SERVICE_PORT"] = str(first["port"])
        protocol = (first.get("protocol") or "TCP").lower()
        result[f"{name}_PORT"] = f"{protocol}://{address}:{first['port']}"
        for port in ports:
            if port.get("name"):
                suffix = port["name"].replace("-", "_").upper()
                result[f"{name}_SERVICE_PORT_{suffix}"] = str(port["port"])
            protocol = (port.get("protocol") or "TCP").lower()
            stem = f"{name}_PORT_{port['port']}_{protocol.upper()}"
            result[stem] = f"{protocol}://{address}:{port['port']}"
            result[f"{stem}_PROTO"] = protocol
            result[f"{stem}_PORT"] = str(port["port"])
            result[f"{stem}_ADDR"] = address
    return result


def command_line(container: Object, variables: Mapping[str, str], default: list[str]) -> list[str]:
    """command + args with variables filled in; an image without either runs `default`."""
    command, args = container.get("command") or [], container.get("args") or []
    line = [*command, *args] if command else [*default, *args]
    return [expand(text, variables) for text in line]


def device_variables(pod: Object, devices: Mapping[str, list[str]], container: str) -> dict[str, str]:
    """Which of the pod's `devices` (ids by resource) a container may use, as NVIDIA's runtime is told.

    Main containers share them out in their order; init containers use the first ones before that.
    """
    start = 0
    main = pod["spec"]["containers"]
    for entry in [*main, *(pod["spec"].get("initContainers") or ())]:
        limits = (entry.get("resources") or {}).get("limits") or {}
        for name, ids in devices.items():
            count = int(limits.get(name, 0))
            if entry["name"] == container and count:
                return {"NVIDIA_VISIBLE_DEVICES": ",".join(ids[start : start + count])}
            start += count if entry in main else 0
    return {"NVIDIA_VISIBLE_DEVICES": "void"} if devices else {}
