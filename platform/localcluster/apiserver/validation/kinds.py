"""Validation of everything but pods."""

from __future__ import annotations

import base64
import re
from typing import Any

from localcluster import quantity
from localcluster.apiserver import selectors
from localcluster.apiserver.validation import base, pods
from localcluster.apiserver.validation.base import Causes

Object = dict[str, Any]

_CONFIG_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_CONFIG_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
    "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
MAX_DATA = 1024 * 1024
_QUOTA_NAMES = frozenset(
    {
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)
_QUOTA_PREFIXES = ("hugepages-", "requests.hugepages-", "limits.hugepages-")


def _selects_template(spec: Object, kind: str, causes: Causes) -> None:
    selector = spec.get("selector")
    labels = spec.get("template", {}).get("metadata", {}).get("labels") or {}
    if selector is None:
        causes.required("spec.selector")
    else:
        base.label_selector(selector, "spec.selector", causes)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.invalid("spec.selector", {}, f"empty selector is invalid for {kind}")
            return
    if selector is None or not selectors.matches_selector(selector, labels):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _template(template: Object, causes: Causes, restart: list[str]) -> None:
    base.labels(template.get("metadata", {}).get("labels"), "spec.template.labels", causes)
    base.annotation_map(template.get("metadata", {}).get("annotations"), "spec.template.annotations", causes)
    spec = template.get("spec") or {}
    pods.spec(spec, "spec.template.spec", causes)
    policy = spec.get("restartPolicy")
    if policy in ("Always", "OnFailure", "Never") and policy not in restart:
        causes.unsupported("spec.template.spec.restartPolicy", policy, restart)


def deployment(obj: Object, causes: Causes) -> None:
    spec = obj["spec"]
    causes.not_negative("spec.replicas", spec.get("replicas"))
    _selects_template(spec, "deployment", causes)
    _template(spec.get("template") or {}, causes, ["Always"])
    _strategy(spec.get("strategy") or {}, causes)
    causes.not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes.not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        causes.not_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= spec.get("minReadySeconds", 0):
            causes.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def _strategy(strategy: Object, causes: Causes) -> None:
    kind = strategy.get("type")
    rolling = strategy.get("rollingUpdate")
    if kind not in ("Recreate", "RollingUpdate"):
        causes.unsupported("spec.strategy", {"Type": kind, "RollingUpdate": rolling}, ["Recreate", "RollingUpdate"])
        return
    if kind == "Recreate":
        if rolling is not None:
            causes.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        return
    values = {}
    for name in ("maxUnavailable", "maxSurge"):
        where = f"spec.strategy.rollingUpdate.{name}"
        value = (rolling or {}).get(name)
        values[name] = value
        if isinstance(value, str):
            if not re.match(r"^[0-9]+%$", value):
                causes.invalid(
                    where,
                    value,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or "
                    "'93%', regex used for validation is '[0-9]+%')",
                )
            elif name == "maxUnavailable" and int(value[:-1]) > 100:
                causes.invalid(where, value, "must not be greater than 100%")
        elif isinstance(value, int):
            causes.not_negative(where, value)
    if _is_zero(values["maxUnavailable"]) and _is_zero(values["maxSurge"]):
        causes.invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            values["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        )


def _is_zero(value: Any) -> bool:
    return value == 0 or (isinstance(value, str) and value.rstrip("%").strip("0") == "")


def replicaset(obj: Object, causes: Causes) -> None:
    spec = obj["spec"]
    causes.not_negative("spec.replicas", spec.get("replicas"))
    causes.not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _selects_template(spec, "deployment", causes)
    _template(spec.get("template") or {}, causes, ["Always"])


def job(obj: Object, causes: Causes) -> None:
    spec = obj["spec"]
    names = (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    )
    for name in names:
        causes.not_negative(f"spec.{name}", spec.get(name))
    mode = spec.get("completionMode")
    causes.one_of("spec.completionMode", mode, ["Indexed", "NonIndexed"])
    if mode == "Indexed" and spec.get("completions") is None:
        causes.required("spec.completions", "when completion mode is Indexed")
    template = spec.get("template") or {}
    policy = template.get("spec", {}).get("restartPolicy")
    base.labels(template.get("metadata", {}).get("labels"), "spec.template.labels", causes)
    pods.spec(template.get("spec") or {}, "spec.template.spec", causes)
    if policy == "Always":
        causes.found.append(
            base.Cause(
                "FieldValueRequired",
                'Required value: valid values: "OnFailure", "Never"',
                "spec.template.spec.restartPolicy",
            )
        )


def service(obj: Object, causes: Causes) -> None:
    spec = obj["spec"]
    kind = spec.get("type")
    ports = spec.get("ports") or []
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        causes.required("spec.ports")
    causes.one_of("spec.type", kind, ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])
    names: set[str] = set()
    pairs: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            causes.required(f"{where}.name")
        elif name:
            for problem in base.dns_label(name):
                causes.invalid(f"{where}.name", name, problem)
            if name in names:
                causes.duplicate(f"{where}.name", name)
            names.add(name)
        if not 1 <= port.get("port", 0) <= 65535:
            causes.invalid(f"{where}.port", port.get("port", 0), "must be between 1 and 65535, inclusive")
        target = port.get("targetPort")
        if isinstance(target, int) and not 1 <= target <= 65535:
            causes.invalid(f"{where}.targetPort", target, "must be between 1 and 65535, inclusive")
        causes.one_of(f"{where}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"])
        pair = (port.get("port"), port.get("protocol"))
        if pair in pairs:
            causes.duplicate(where, {"port": pair[0], "protocol": pair[1]})
        pairs.add(pair)
    base.labels(spec.get("selector"), "spec.selector", causes)
    causes.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ["ClientIP", "None"])
    if kind == "ExternalName" and not spec.get("externalName"):
        causes.required("spec.externalName")


def config_map(obj: Object, causes: Causes) -> None:
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (obj.get(field) or {}).items():
            size += len(value.encode())
            if not _CONFIG_KEY.match(key):
                causes.invalid(f"{field}[{key}]", key, _CONFIG_RULE)
    if size > MAX_DATA:
        causes.too_long("[]", MAX_DATA)


def secret(obj: Object, causes: Causes) -> None:
    size = 0
    data = obj.get("data") or {}
    for key, value in data.items():
        size += len(base64.b64decode(value))
        if not _CONFIG_KEY.match(key):
            causes.invalid(f"data[{key}]", key, _CONFIG_RULE)
    if size > MAX_DATA:
        causes.too_long("data", MAX_DATA)
    needed = {
        "kubernetes.io/dockerconfigjson": [".dockerconfigjson"],
        "kubernetes.io/dockercfg": [".dockercfg"],
        "kubernetes.io/tls": ["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth": ["ssh-privatekey"],
    }
    for key in needed.get(obj.get("type", ""), ()):
        if key not in data:
            causes.required(f"data[{key}]")


def limitrange(obj: Object, causes: Causes) -> None:
    kinds: set[str] = set()
    for index, item in enumerate(obj.get("spec", {}).get("limits") or ()):
        where = f"spec.limits[{index}]"
        if not item.get("type"):
            causes.required(f"{where}.type")
        elif item["type"] in kinds:
            causes.duplicate(f"{where}.type", item["type"])
        kinds.add(item.get("type", ""))
        least, most = item.get("min") or {}, item.get("max") or {}
        for name in least.keys() & most.keys():
            if quantity.parse(least[name]) > quantity.parse(most[name]):
                text = f"min value {least[name]} is greater than max value {most[name]}"
                causes.invalid(f"{where}.min[{name}]", least[name], text)


def quota(obj: Object, causes: Causes) -> None:
    for name, value in (obj.get("spec", {}).get("hard") or {}).items():
        where = f"spec.hard[{name}]"
        for problem in base.qualified_name(name):
            causes.invalid(where, name, problem)
        if "/" not in name and name not in _QUOTA_NAMES and not name.startswith(_QUOTA_PREFIXES):
            causes.invalid(where, name, "must be a standard resource type or fully qualified")
            causes.invalid(where, name, "must be a standard resource for quota")
        if quantity.parse(value) < 0:
            causes.invalid(where, value, base.NOT_NEGATIVE)


def autoscaler(obj: Object, causes: Causes) -> None:
    spec = obj["spec"]
    low, high = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if low is not None and low < 1:
        causes.invalid("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        causes.invalid("spec.maxReplicas", high, "must be greater than 0")
    if low is not None and high < low:
        causes.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    for key in ("kind", "name"):
        if not target.get(key):
            causes.required(f"spec.scaleTargetRef.{key}")


def priorityclass(obj: Object, causes: Causes) -> None:
    name = obj["metadata"].get("name", "")
    if obj.get("value", 0) > 1_000_000_000 and not name.startswith("system-"):
        causes.forbidden("value", "maximum allowed value of a user defined priority is 1000000000")
    policies = ["PreemptLowerPriority", "Never"]
    causes.one_of("preemptionPolicy", obj.get("preemptionPolicy"), policies)


def lease(obj: Object, causes: Causes) -> None:
    seconds = (obj.get("spec") or {}).get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        causes.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")


def endpointslice(obj: Object, causes: Causes) -> None:
    kinds = ["FQDN", "IPv4", "IPv6"]
    if not obj.get("addressType"):
        causes.required("addressType")
    else:
        causes.one_of("addressType", obj["addressType"], kinds)
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        if not endpoint.get("addresses"):
            causes.required(f"endpoints[{index}].addresses", "must contain at least 1 address")


def event(obj: Object, causes: Causes) -> None:
    involved = obj.get("involvedObject") or {}
    namespace = obj["metadata"].get("namespace")
    if (involved.get("namespace") or "default") != namespace:
        causes.invalid("involvedObject.namespace", involved.get("namespace", ""), "does not match event.namespace")


def disruption_budget(obj: Object, causes: Causes) -> None:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        causes.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    base.label_selector(spec.get("selector"), "spec.selector", causes)


def nothing(obj: Object, causes: Causes) -> None:
    """For kinds with no rules of their own."""
