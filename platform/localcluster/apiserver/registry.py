"""Every stored kind: its type, its defaults, its rules, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from localcluster import resources as r
from localcluster.apiserver import schema
from localcluster.apiserver.defaults import others, pods
from localcluster.apiserver.validation import base, kinds, updates
from localcluster.apiserver.validation import pods as pod_rules
from localcluster.apiserver.validation.base import Causes
from localcluster.resources import Resource

Object = dict[str, Any]
Getter = Callable[[Object], str]


def _at(*path: str) -> Getter:
    def get(obj: Object) -> str:
        value: Any = obj
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return ""
        return value if isinstance(value, str) else str(value).lower()

    return get


@dataclass(frozen=True)
class Kind:
    """A stored resource and its behaviour."""

    resource: Resource
    defaults: Callable[[Object], None] = others.nothing
    validate: Callable[[Object, Causes], None] = kinds.nothing
    validate_update: Callable[[Object, Object, Causes], None] = updates.limited
    name_rule: Callable[[str], list[str]] = base.dns_subdomain
    has_status: bool = True
    has_generation: bool = False
    deletes_with_object: bool = False
    selectable: Mapping[str, Getter] = field(default_factory=dict)

    @cached_property
    def type(self) -> schema.Struct:
        return schema.of_kind(self.resource.group, self.resource.version, self.resource.kind)

    @cached_property
    def supported_fields(self) -> frozenset[str]:
        return frozenset({"metadata.name", "metadata.namespace", *self.selectable})

    @cached_property
    def field_names(self) -> tuple[str, ...]:
        return tuple(self.selectable)

    def field_values(self, obj: Object) -> tuple[str, ...]:
        """The values of the selectable fields, in the order of `field_names`."""
        return tuple(get(obj) for get in self.selectable.values())

    @cached_property
    def prefix(self) -> bytes:
        """What stands before the stored text of an object to make it whole."""
        return f'{{"kind":"{self.resource.kind}","apiVersion":"{self.resource.api_version}",'.encode()


_POD_FIELDS = {
    "spec.nodeName": _at("spec", "nodeName"),
    "spec.restartPolicy": _at("spec", "restartPolicy"),
    "spec.schedulerName": _at("spec", "schedulerName"),
    "spec.serviceAccountName": _at("spec", "serviceAccountName"),
    "spec.hostNetwork": lambda obj: str(bool(obj.get("spec", {}).get("hostNetwork"))).lower(),
    "status.phase": _at("status", "phase"),
    "status.podIP": _at("status", "podIP"),
    "status.podIPs": _at("status", "podIP"),
    "status.nominatedNodeName": _at("status", "nominatedNodeName"),
}
_EVENT_FIELDS = {
    **{
        f"involvedObject.{name}": _at("involvedObject", name)
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
    "reason": _at("reason"),
    "reportingComponent": lambda obj: obj.get("reportingComponent") or obj.get("source", {}).get("component", ""),
    "source": lambda obj: obj.get("source", {}).get("component") or obj.get("reportingComponent", ""),
    "type": _at("type"),
}

KINDS: tuple[Kind, ...] = (
    Kind(
        r.NAMESPACES,
        others.namespace,
        name_rule=base.dns_label,
        deletes_with_object=True,
        selectable={"status.phase": _at("status", "phase")},
    ),
    Kind(
        r.NODES,
        others.node,
        selectable={"spec.unschedulable": lambda obj: str(bool(obj.get("spec", {}).get("unschedulable"))).lower()},
    ),
    Kind(
        r.PODS,
        pods.pod,
        pod_rules.pod,
        updates.pod,
        has_generation=True,
        deletes_with_object=True,
        selectable=_POD_FIELDS,
    ),
    Kind(
        r.SERVICES,
        others.service,
        kinds.service,
        updates.service,
        name_rule=base.dns_label,
        deletes_with_object=True,
        selectable={"spec.clusterIP": _at("spec", "clusterIP"), "spec.type": _at("spec", "type")},
    ),
    Kind(r.ENDPOINTS, others.endpoints, has_status=False),
    Kind(r.CONFIGMAPS, others.nothing, kinds.config_map, updates.immutable_data, has_status=False),
    Kind(
        r.SECRETS,
        others.secret,
        kinds.secret,
        updates.secret,
        has_status=False,
        selectable={"type": _at("type")},
    ),
    Kind(r.EVENTS, others.event, kinds.event, has_status=False, selectable=_EVENT_FIELDS),
    Kind(r.SERVICEACCOUNTS, has_status=False, deletes_with_object=True),
    Kind(r.RESOURCEQUOTAS, others.quota, kinds.quota, deletes_with_object=True),
    Kind(r.LIMITRANGES, others.limitrange, kinds.limitrange, has_status=False),
    Kind(r.DEPLOYMENTS, others.deployment, kinds.deployment, updates.selector, has_generation=True),
    Kind(
        r.REPLICASETS,
        others.replicaset,
        kinds.replicaset,
        updates.selector,
        has_generation=True,
        selectable={"status.replicas": lambda obj: str(obj.get("status", {}).get("replicas", 0))},
    ),
    Kind(
        r.JOBS,
        others.job,
        kinds.job,
        updates.job,
        has_generation=True,
        selectable={"status.successful": lambda obj: str(obj.get("status", {}).get("succeeded", 0))},
    ),
    Kind(r.HPAS, others.autoscaler, kinds.autoscaler),
    Kind(
        r.ENDPOINTSLICES,
        others.endpointslice,
        kinds.endpointslice,
        updates.endpointslice,
        has_status=False,
        has_generation=True,
    ),
    Kind(r.LEASES, others.nothing, kinds.lease, has_status=False),
    Kind(
        r.PRIORITYCLASSES,
        others.priorityclass,
        kinds.priorityclass,
        updates.priorityclass,
        has_status=False,
        has_generation=True,
    ),
    Kind(r.PDBS, others.disruption_budget, kinds.disruption_budget, has_generation=True),
)
BY_RESOURCE = {kind.resource: kind for kind in KINDS}
BY_PATH = {(kind.resource.group, kind.resource.version, kind.resource.plural): kind for kind in KINDS}
SERVED_VERSIONS = {
    "": "v1",
    "apps": "v1",
    "batch": "v1",
    "autoscaling": "v2",
    "discovery.k8s.io": "v1",
    "coordination.k8s.io": "v1",
    "scheduling.k8s.io": "v1",
    "policy": "v1",
    "events.k8s.io": "v1",
    "metrics.k8s.io": "v1beta1",
    "authorization.k8s.io": "v1",
    "authentication.k8s.io": "v1",
}
