"""Defaults of pods and of pod templates."""

from __future__ import annotations

import re
from typing import Any

from localcluster import quantity

Object = dict[str, Any]

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_MODE = 0o644
# Host, path and tag of an image; https://github.com/distribution/reference has the grammar.
_IMAGE = re.compile(r"^([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]*)?(@[\w:+.-]+)?$")
_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"
TOLERATION_SECONDS = 300


def container_lists(spec: Object) -> list[list[Object]]:
    """The lists of containers in a pod spec, init containers last."""
    return [spec[key] for key in ("containers", "initContainers", "ephemeralContainers") if spec.get(key)]


def _probe(probe: Object) -> None:
    get = probe.get("httpGet")
    if get is not None:
        get.setdefault("path", "/")
        get.setdefault("scheme", "HTTP")
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)


def pull_policy(image: str) -> str:
    """Always for the tag `latest` or none, IfNotPresent for other tags, digests and what names no image."""
    name = image.rsplit("/", 1)[-1]
    if "@" in name or not _IMAGE.match(image):
        return "IfNotPresent"
    tag = name.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _container(container: Object, *, request_limits: bool) -> None:
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        _reference(variable.get("valueFrom") or {})
    resources = container.setdefault("resources", {})
    limits = resources.get("limits")
    if limits and request_limits:
        requests = resources.setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)
    for name in _PROBES:
        if container.get(name) is not None:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and hook.get("httpGet") is not None:
            hook["httpGet"].setdefault("path", "/")
            hook["httpGet"].setdefault("scheme", "HTTP")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", pull_policy(container.get("image", "")))


def _volume(volume: Object) -> None:
    sources = [key for key in volume if key != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if volume.get(key) is not None:
            volume[key].setdefault("defaultMode", _MODE)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        token = source.get("serviceAccountToken")
        if token is not None:
            token.setdefault("expirationSeconds", 3600)
        _field_references((source.get("downwardAPI") or {}).get("items"))
    _field_references((volume.get("downwardAPI") or {}).get("items"))


def _field_references(items: list[Object] | None) -> None:
    for item in items or ():
        _reference(item)


def _reference(source: Object) -> None:
    if source.get("fieldRef") is not None:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if source.get("resourceFieldRef") is not None:
        source["resourceFieldRef"].setdefault("divisor", "0")


def pod_spec(spec: Object, *, request_limits: bool = False) -> None:
    """Fill in a pod spec (of a pod or of a template). `request_limits`: requests default to limits."""
    for containers in container_lists(spec):
        for container in containers:
            _container(container, request_limits=request_limits)
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for constraint in spec.get("topologySpreadConstraints") or ():
        constraint.setdefault("nodeAffinityPolicy", "Honor")
        constraint.setdefault("nodeTaintsPolicy", "Ignore")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("hostNetwork"):
        for containers in container_lists(spec):
            for port in (port for container in containers for port in container.get("ports") or ()):
                port.setdefault("hostPort", port["containerPort"])
    # The old and the new name of the same field are kept equal.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def template(template: Object) -> None:
    """Fill in a pod template."""
    template.setdefault("metadata", {})
    pod_spec(template.setdefault("spec", {}))


def pod(obj: Object) -> None:
    """Fill in a pod."""
    spec = obj.setdefault("spec", {})
    pod_spec(spec, request_limits=True)
    spec.setdefault("enableServiceLinks", True)


def default_tolerations(spec: Object) -> None:
    """Add the tolerations with which every pod outlives a short node outage."""
    tolerations = spec.get("tolerations") or []

    def tolerated(key: str) -> bool:
        return any(one.get("effect") in (None, "NoExecute") and (one.get("key") in (None, key)) for one in tolerations)

    for key in (_NOT_READY, _UNREACHABLE):
        if not tolerated(key):
            tolerations = [
                *tolerations,
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS,
                },
            ]
    spec["tolerations"] = tolerations


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by the cpu and memory of all containers."""
    any_set, guaranteed = False, True
    for key in ("containers", "initContainers"):
        for container in spec.get(key) or ():
            resources = container.get("resources") or {}
            requests = resources.get("requests") or {}
            limits = resources.get("limits") or {}
            for name in ("cpu", "memory"):
                wanted, limit = requests.get(name), limits.get(name)
                any_set = any_set or any(_positive(value) for value in (wanted, limit))
                if not _positive(limit) or (wanted is not None and wanted != limit):
                    guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _positive(value: str | None) -> bool:
    return value is not None and quantity.parse(value) > 0
