"""Validation of pods and pod templates."""

from __future__ import annotations

import re
from typing import Any

from localcluster import quantity
from localcluster.apiserver.validation import base
from localcluster.apiserver.validation.base import Causes

Object = dict[str, Any]

_STANDARD = ("cpu", "memory", "ephemeral-storage")
_ENV = re.compile(r"^[ -<>-~]+$")
_PORT_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
_VOLUMES = [
    "emptyDir",
    "hostPath",
    "secret",
    "configMap",
    "downwardAPI",
    "projected",
    "persistentVolumeClaim",
    "nfs",
    "csi",
    "ephemeral",
    "image",
    "iscsi",
    "cephfs",
    "fc",
    "azureFile",
    "azureDisk",
    "awsElasticBlockStore",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "flocker",
    "vsphereVolume",
    "quobyte",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
]
_FIELDS = re.compile(
    r"^(metadata\.(name|namespace|uid|labels|annotations)|metadata\.(labels|annotations)\['[^']+'\]"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIP|hostIPs|podIP|podIPs))$"
)
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def spec(found: Object, field: str, causes: Causes) -> None:
    """A pod spec; `field` is `spec` or `spec.template.spec`."""
    volumes = _volumes(found.get("volumes") or [], f"{field}.volumes", causes)
    names: set[str] = set()
    port_names: set[str] = set()
    if not found.get("containers"):
        causes.required(f"{field}.containers")
    for key in ("containers", "initContainers"):
        for index, container in enumerate(found.get(key) or ()):
            where = f"{field}.{key}[{index}]"
            _container(container, where, names, volumes, causes, init=key == "initContainers")
            if key == "containers":
                _port_names(container, where, port_names, causes)
    causes.one_of(f"{field}.restartPolicy", found.get("restartPolicy"), ["Always", "OnFailure", "Never"])
    policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]
    causes.one_of(f"{field}.dnsPolicy", found.get("dnsPolicy"), policies)
    causes.not_negative(f"{field}.terminationGracePeriodSeconds", found.get("terminationGracePeriodSeconds"))
    deadline = found.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        causes.invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    base.labels(found.get("nodeSelector"), f"{field}.nodeSelector", causes)
    for name in ("serviceAccountName", "nodeName", "priorityClassName"):
        if found.get(name):
            for problem in base.dns_subdomain(found[name]):
                causes.invalid(f"{field}.{name}", found[name], problem)
    for name in ("hostname", "subdomain"):
        if found.get(name):
            for problem in base.dns_label(found[name]):
                causes.invalid(f"{field}.{name}", found[name], problem)
    _tolerations(found.get("tolerations") or [], f"{field}.tolerations", causes)
    gates: set[str] = set()
    for index, gate in enumerate(found.get("schedulingGates") or ()):
        if gate.get("name") in gates:
            causes.duplicate(f"{field}.schedulingGates[{index}].name", gate["name"])
        gates.add(gate.get("name", ""))
    _affinity((found.get("affinity") or {}).get("nodeAffinity") or {}, f"{field}.affinity.nodeAffinity", causes)


def _affinity(affinity: Object, field: str, causes: Causes) -> None:
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return
    where = f"{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    if not required.get("nodeSelectorTerms"):
        causes.required(where, "must have at least one node selector term")
    for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
        for number, expression in enumerate(term.get("matchExpressions") or ()):
            place = f"{where}[{index}].matchExpressions[{number}]"
            operator, values = expression.get("operator"), expression.get("values") or []
            if operator in ("In", "NotIn") and not values:
                causes.required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            elif operator in ("Exists", "DoesNotExist") and values:
                causes.forbidden(
                    f"{place}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
            elif operator in ("Gt", "Lt") and len(values) != 1:
                causes.required(f"{place}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
            elif operator not in ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"):
                causes.invalid(f"{place}.operator", operator or "", "not a valid selector operator")


def _tolerations(found: list[Object], field: str, causes: Causes) -> None:
    for index, one in enumerate(found):
        where = f"{field}[{index}]"
        operator = one.get("operator", "Equal")
        if not one.get("key") and operator != "Exists":
            causes.invalid(
                f"{where}.operator",
                one.get("operator", ""),
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if operator == "Exists" and one.get("value"):
            causes.invalid(f"{where}.operator", one, "value must be empty when `operator` is 'Exists'")
        elif operator not in ("Equal", "Exists", "Lt", "Gt"):
            causes.unsupported(f"{where}.operator", operator, ["Equal", "Exists"])
        effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"]
        if one.get("effect"):
            causes.one_of(f"{where}.effect", one["effect"], effects)
        if one.get("tolerationSeconds") is not None and one.get("effect") != "NoExecute":
            causes.invalid(
                f"{where}.effect",
                one.get("effect", ""),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            )


def _volumes(found: list[Object], field: str, causes: Causes) -> set[str]:
    names: set[str] = set()
    for index, volume in enumerate(found):
        where = f"{field}[{index}]"
        name = volume.get("name", "")
        if not name:
            causes.required(f"{where}.name")
        else:
            for problem in base.dns_label(name):
                causes.invalid(f"{where}.name", name, problem)
        if name in names:
            causes.duplicate(f"{where}.name", name)
        before = len(causes.found)
        sources = [source for source in _VOLUMES if volume.get(source) is not None]
        if not sources:
            causes.required(where, "must specify a volume type")
        for source in sources[1:]:
            causes.forbidden(f"{where}.{source}", "may not specify more than 1 volume type")
        if volume.get("hostPath") is not None and not volume["hostPath"].get("path"):
            causes.required(f"{where}.hostPath.path")
        if volume.get("secret") is not None and not volume["secret"].get("secretName"):
            causes.required(f"{where}.secret.secretName")
        if volume.get("configMap") is not None and not volume["configMap"].get("name"):
            causes.required(f"{where}.configMap.name")
        if len(causes.found) == before:
            names.add(name)
    return names


def _container(
    container: Object, field: str, names: set[str], volumes: set[str], causes: Causes, *, init: bool
) -> None:
    name = container.get("name", "")
    if not name:
        causes.required(f"{field}.name")
    elif name in names:
        causes.duplicate(f"{field}.name", name)
    else:
        for problem in base.dns_label(name):
            causes.invalid(f"{field}.name", name, problem)
    names.add(name)
    image = container.get("image", "")
    if not image:
        causes.required(f"{field}.image")
    elif image != image.strip():
        causes.invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    _ports(container.get("ports") or [], f"{field}.ports", causes)
    _environment(container, field, causes)
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.get("name"):
            causes.required(f"{where}.name")
        elif mount["name"] not in volumes:
            causes.not_found(f"{where}.name", mount["name"])
        if not mount.get("mountPath"):
            causes.required(f"{where}.mountPath")
        elif any(mount["mountPath"] == other.get("mountPath") for other in container["volumeMounts"][:index]):
            causes.invalid(f"{where}.mountPath", mount["mountPath"], "must be unique")
    policies = ["Always", "IfNotPresent", "Never"]
    sidecar = init and container.get("restartPolicy") == "Always"
    for probe in PROBES:
        if container.get(probe) is not None:
            if init and not sidecar:
                causes.forbidden(f"{field}.{probe}", "may not be set for init containers without restartPolicy=Always")
            else:
                _probe(container[probe], f"{field}.{probe}", causes)
                if probe != "readinessProbe" and container[probe].get("successThreshold", 1) != 1:
                    causes.invalid(
                        f"{field}.{probe}.successThreshold", container[probe]["successThreshold"], "must be 1"
                    )
    causes.one_of(f"{field}.imagePullPolicy", container.get("imagePullPolicy"), policies)
    messages = ["File", "FallbackToLogsOnError"]
    causes.one_of(f"{field}.terminationMessagePolicy", container.get("terminationMessagePolicy"), messages)
    resources(container.get("resources") or {}, f"{field}.resources", causes)


def _ports(found: list[Object], field: str, causes: Causes) -> None:
    for index, port in enumerate(found):
        where = f"{field}[{index}]"
        number = port.get("containerPort", 0)
        if not number:
            causes.required(f"{where}.containerPort")
        elif not 1 <= number <= 65535:
            causes.invalid(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive")
        if port.get("hostPort") and not 1 <= port["hostPort"] <= 65535:
            causes.invalid(f"{where}.hostPort", port["hostPort"], "must be between 1 and 65535, inclusive")
        causes.one_of(f"{where}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"])


def _port_names(container: Object, field: str, names: set[str], causes: Causes) -> None:
    for index, port in enumerate(container.get("ports") or ()):
        name = port.get("name")
        if not name:
            continue
        where = f"{field}.ports[{index}].name"
        if len(name) > 15:
            causes.invalid(where, name, "must be no more than 15 characters")
        if not _PORT_NAME.match(name):
            causes.invalid(
                where,
                name,
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            )
        elif not re.search("[a-z]", name):
            causes.invalid(where, name, "must contain at least one letter (a-z)")
        elif name in names:
            causes.duplicate(where, name)
        names.add(name)


def _environment(container: Object, field: str, causes: Causes) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        where = f"{field}.env[{index}]"
        name = variable.get("name", "")
        if not name:
            causes.required(f"{where}.name")
        elif not _ENV.match(name):
            causes.invalid(
                f"{where}.name",
                name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            )
        source = variable.get("valueFrom")
        if source is None:
            continue
        place = f"{where}.valueFrom"
        kinds = [key for key, value in source.items() if value is not None]
        if variable.get("value"):
            causes.invalid(place, "", "may not be specified when `value` is not empty")
        elif not kinds:
            causes.invalid(
                place,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            )
        elif len(kinds) > 1:
            causes.invalid(place, "", "may not have more than one field specified at a time")
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if source.get(kind) is not None and not source[kind].get("key"):
                causes.required(f"{place}.{kind}.key")
        reference = source.get("fieldRef")
        if reference is not None and not _FIELDS.match(reference.get("fieldPath", "")):
            causes.invalid(
                f"{place}.fieldRef.fieldPath",
                reference.get("fieldPath", ""),
                f"error converting fieldPath: field label not supported: {reference.get('fieldPath', '')}",
            )


def _probe(probe: Object, field: str, causes: Causes) -> None:
    handlers = [key for key in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(key) is not None]
    if not handlers:
        causes.required(field, "must specify a handler type")
    for extra in handlers[1:]:
        causes.forbidden(f"{field}.{extra}", "may not specify more than 1 handler type")
    for key in ("httpGet", "tcpSocket", "grpc"):
        port = (probe.get(key) or {}).get("port")
        if isinstance(port, int) and not 1 <= port <= 65535:
            causes.invalid(f"{field}.{key}.port", port, "must be between 1 and 65535, inclusive")
    if probe.get("exec") is not None and not probe["exec"].get("command"):
        causes.required(f"{field}.exec.command")
    names = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
    for name in names:
        causes.not_negative(f"{field}.{name}", probe.get(name))


def resources(found: Object, field: str, causes: Causes) -> None:
    """Requests and limits of a container."""
    limits, requests = found.get("limits") or {}, found.get("requests") or {}
    for name, value in limits.items():
        _resource(name, value, f"{field}.limits[{name}]", causes)
    for name, value in requests.items():
        where = f"{field}.requests"
        _resource(name, value, f"{where}[{name}]", causes)
        extended = name not in _STANDARD and not name.startswith("hugepages-")
        limit = limits.get(name)
        if limit is not None:
            if extended and value != limit:
                causes.invalid(where, value, f"must be equal to {name} limit of {limit}")
            elif quantity.parse(value) > quantity.parse(limit):
                causes.invalid(where, value, f"must be less than or equal to {name} limit of {limit}")
        elif extended and "/" in name:
            causes.required(f"{field}.limits", "Limit must be set for non overcommitable resources")


def _resource(name: str, value: str, field: str, causes: Causes) -> None:
    standard = name in _STANDARD or name.startswith("hugepages-")
    if not standard:
        for problem in base.qualified_name(name):
            causes.invalid(field, name, problem)
        if "/" not in name:
            causes.invalid(field, name, "must be a standard resource type or fully qualified")
            causes.invalid(field, name, "must be a standard resource for containers")
    amount = quantity.parse(value)
    if amount < 0:
        causes.invalid(field, value, base.NOT_NEGATIVE)
    if "/" in name and amount % 1:
        causes.invalid(field, value, "must be an integer")


def pod(obj: Object, causes: Causes) -> None:
    """What only pods have, beyond their spec."""
    spec(obj.get("spec") or {}, "spec", causes)
