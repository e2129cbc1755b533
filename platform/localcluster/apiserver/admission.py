"""Admission of pods and quotas: service accounts, priorities, LimitRange defaults, ResourceQuota refusals."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from localcluster import quantity
from localcluster import resources as r
from localcluster.apiserver import naming
from localcluster.apiserver.defaults import pods
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.status import StatusError, forbidden
from localcluster.apiserver.store import Store
from localcluster.apiserver.usage import Usages

Object = dict[str, Any]

# What every container may know of its service account, where Kubernetes' own clients look for it.
_ACCESS_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_ACCESS_SECONDS = 3607
_COMPUTE = ("cpu", "memory", "ephemeral-storage")


def _objects(store: Store, resource: r.Resource, namespace: str = "") -> list[Object]:
    return [record.load() for record in store.tables[resource].records(namespace)]


def pod(store: Store, obj: Object) -> None:
    """Complete a pod that is being created; StatusError 403 when it may not be."""
    metadata, spec = obj["metadata"], obj["spec"]
    namespace, name = metadata["namespace"], metadata.get("name", "")
    _limit_ranges(store, obj)
    account = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    record = store.tables[r.SERVICEACCOUNTS].get(namespace, account)
    if record is None:
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(r.PODS, name, why)
    found = record.load()
    if not spec.get("imagePullSecrets") and found.get("imagePullSecrets"):
        spec["imagePullSecrets"] = found["imagePullSecrets"]
    wanted = spec.get("automountServiceAccountToken", found.get("automountServiceAccountToken", True))
    if wanted is not False:
        _mount_access(spec)
    _priority(store, obj)
    pods.default_tolerations(spec)
    status: Object = {"phase": "Pending", "qosClass": pods.qos_class(spec)}
    if spec.get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": None,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]
    obj["status"] = status


def _mount_access(spec: Object) -> None:
    """Give every container token, ca.crt and namespace of its service account, as ServiceAccount admission does."""
    volume = f"kube-api-access-{naming.suffix()}"
    mount = {"name": volume, "readOnly": True, "mountPath": _ACCESS_PATH}
    mounted = False
    for containers in pods.container_lists(spec):
        for container in containers:
            mounts = container.get("volumeMounts") or []
            if all(one.get("mountPath") != _ACCESS_PATH for one in mounts):
                container["volumeMounts"] = [*mounts, dict(mount)]
                mounted = True
    if not mounted:
        return
    sources: list[Object] = [
        {"serviceAccountToken": {"expirationSeconds": _ACCESS_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    projected = {"sources": sources, "defaultMode": 0o644}
    spec["volumes"] = [*(spec.get("volumes") or ()), {"name": volume, "projected": projected}]


def _priority(store: Store, obj: Object) -> None:
    spec, name = obj["spec"], obj["metadata"].get("name", "")
    wanted = spec.get("priorityClassName")
    table = store.tables[r.PRIORITYCLASSES]
    chosen: Object | None = None
    if wanted:
        record = table.get("", wanted)
        if record is None:
            raise forbidden(r.PODS, name, f"no PriorityClass with name {wanted} was found")
        chosen = record.load()
    else:
        defaults = [one for one in _objects(store, r.PRIORITYCLASSES) if one.get("globalDefault")]
        if defaults:
            chosen = min(defaults, key=lambda one: one["value"])
            spec["priorityClassName"] = chosen["metadata"]["name"]
    value = chosen["value"] if chosen else 0
    policy = chosen.get("preemptionPolicy", "PreemptLowerPriority") if chosen else "PreemptLowerPriority"
    if spec.get("priority") not in (None, value):
        why = "the integer value of priority must not be provided in pod spec; priority admission controller "
        raise forbidden(
            r.PODS,
            name,
            f"{why}computed {value} from the given PriorityClass name",
        )
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)


def _limit_ranges(store: Store, obj: Object) -> None:
    namespace, name = obj["metadata"]["namespace"], obj["metadata"].get("name", "")
    ranges = _objects(store, r.LIMITRANGES, namespace)
    if not ranges:
        return
    notes: list[str] = []
    problems: list[str] = []
    for limit_range in ranges:
        for item in limit_range["spec"].get("limits") or ():
            if item.get("type") == "Container":
                for key, word in (("containers", "container"), ("initContainers", "init container")):
                    for container in obj["spec"].get(key) or ():
                        _container_limits(container, item, word, notes)
                        problems += _violations(container["resources"], item, "Container")
            elif item.get("type") == "Pod":
                problems += _violations(_as_text(_pod_total(obj["spec"])), item, "Pod")
    if notes:
        annotations = obj["metadata"].setdefault("annotations", {})
        annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + "; ".join(notes)
    if problems:
        listed = problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]"
        raise forbidden(r.PODS, name, listed)


def _container_limits(container: Object, item: Object, word: str, notes: list[str]) -> None:
    resources = container.setdefault("resources", {})
    for key, source, text in (("requests", "defaultRequest", "request"), ("limits", "default", "limit")):
        defaults = item.get(source) or {}
        missing = [name for name in sorted(defaults) if name not in (resources.get(key) or {})]
        for name in missing:
            resources.setdefault(key, {})[name] = defaults[name]
        if missing:
            notes.append(f"{', '.join(missing)} {text} for {word} {container['name']}")


def _pod_total(spec: Object) -> dict[str, dict[str, Decimal]]:
    total: dict[str, dict[str, Decimal]] = {"requests": {}, "limits": {}}
    for container in spec.get("containers") or ():
        for key in total:
            for name, value in ((container.get("resources") or {}).get(key) or {}).items():
                total[key][name] = total[key].get(name, Decimal(0)) + quantity.parse(value)
    return total


def _as_text(total: dict[str, dict[str, Decimal]]) -> Object:
    return {
        key: {name: quantity.of(value, "i" if name == "memory" else "") for name, value in found.items()}
        for key, found in total.items()
    }


def _violations(resources: Object, item: Object, kind: str) -> list[str]:
    problems = []
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, least in sorted((item.get("min") or {}).items()):
        if name not in requests:
            problems.append(f"minimum {name} usage per {kind} is {least}.  No request is specified")
        elif quantity.parse(requests[name]) < quantity.parse(least):
            problems.append(f"minimum {name} usage per {kind} is {least}, but request is {requests[name]}")
    for name, most in sorted((item.get("max") or {}).items()):
        if name not in limits:
            problems.append(f"maximum {name} usage per {kind} is {most}.  No limit is specified")
        elif quantity.parse(limits[name]) > quantity.parse(most):
            problems.append(f"maximum {name} usage per {kind} is {most}, but limit is {limits[name]}")
    for name, ratio in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        if name in limits and name in requests and quantity.parse(requests[name]):
            found = quantity.parse(limits[name]) / quantity.parse(requests[name])
            if found > quantity.parse(ratio):
                problems.append(
                    f"{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {found:f}"
                )
    return problems


def usage(kind: Kind, obj: Object) -> dict[str, Decimal]:
    """What an object counts for in quotas: `pods`, `count/...`, `requests.cpu`, ..."""
    resource = kind.resource
    used = {f"count/{resource.plural}" + (f".{resource.group}" if resource.group else ""): Decimal(1)}
    if resource == r.PODS:
        if obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return used
        used["pods"] = Decimal(1)
        total = _pod_total(obj["spec"])
        for name, value in total["requests"].items():
            used[f"requests.{name}"] = value
            if name in _COMPUTE:
                used[name] = value
        for name, value in total["limits"].items():
            used[f"limits.{name}"] = value
    elif resource == r.SERVICES:
        used["services"] = Decimal(1)
        if obj["spec"].get("type") == "LoadBalancer":
            used["services.loadbalancers"] = Decimal(1)
        if obj["spec"].get("type") in ("NodePort", "LoadBalancer"):
            used["services.nodeports"] = Decimal(len(obj["spec"].get("ports") or ()))
    elif resource.plural in ("configmaps", "secrets", "resourcequotas"):
        used[resource.plural] = Decimal(1)
    return used


def _scopes(quota: Object) -> tuple[str, ...]:
    return tuple(sorted(quota["spec"].get("scopes") or ()))


def _in_scope(scopes: tuple[str, ...], kind: Kind, obj: Object) -> bool:
    if not scopes:
        return True
    if kind.resource != r.PODS:
        return False
    best_effort = pods.qos_class(obj["spec"]) == "BestEffort"
    terminating = obj["spec"].get("activeDeadlineSeconds") is not None
    answers = {
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
        "Terminating": terminating,
        "NotTerminating": not terminating,
    }
    return all(answers.get(scope, True) for scope in scopes)


def _counted(scopes: tuple[str, ...], kind: Kind, obj: Object) -> Mapping[str, Decimal]:
    return usage(kind, obj) if _in_scope(scopes, kind, obj) else {}


def usages(store: Store) -> Usages:
    """What is used of quotas, to be told of every write."""
    return Usages(store, lambda scopes: partial(_counted, scopes))


def quotas(store: Store, usages: Usages, kind: Kind, obj: Object, namespace: str) -> None:
    """StatusError 403 when creating `obj` would exceed a ResourceQuota of its namespace."""
    found = _objects(store, r.RESOURCEQUOTAS, namespace) if namespace else []
    if not found:
        return
    name = obj["metadata"].get("name", "")
    wanted = usage(kind, obj)
    for quota in found:
        scopes = _scopes(quota)
        if not _in_scope(scopes, kind, obj):
            continue
        hard = quota["spec"].get("hard") or {}
        title = quota["metadata"]["name"]
        if kind.resource == r.PODS:
            _must_specify(hard, obj, title, name)
        relevant = {key: value for key, value in wanted.items() if key in hard and value}
        if not relevant:
            continue
        tally = usages.of(kind, namespace, scopes)
        used = {key: tally.of(key) for key in relevant}
        over = [key for key in sorted(relevant) if used[key] + relevant[key] > quantity.parse(hard[key])]
        if over:
            raise _exceeded(kind, name, title, hard, over, relevant, used)


def _exceeded(
    kind: Kind,
    name: str,
    title: str,
    hard: dict[str, str],
    over: list[str],
    wanted: dict[str, Decimal],
    used: dict[str, Decimal],
) -> StatusError:
    def text(values: dict[str, Decimal]) -> str:
        return ",".join(f"{key}={quantity.of(values[key], hard[key])}" for key in over)

    limits = ",".join(f"{key}={hard[key]}" for key in over)
    why = f"exceeded quota: {title}, requested: {text(wanted)}, used: {text(used)}, limited: {limits}"
    return forbidden(kind.resource, name, why)


def _must_specify(hard: dict[str, str], obj: Object, title: str, name: str) -> None:
    missing: dict[str, list[str]] = {}
    for key in hard:
        group, _, resource = key.partition(".")
        if not resource and key in _COMPUTE:
            group, resource = "requests", key
        if group not in ("requests", "limits") or resource not in _COMPUTE:
            continue
        for container in obj["spec"].get("containers") or ():
            if resource not in ((container.get("resources") or {}).get(group) or {}):
                missing.setdefault(key, []).append(container["name"])
    if missing:
        parts = "; ".join(f"{key} for: {','.join(names)}" for key, names in sorted(missing.items()))
        raise forbidden(r.PODS, name, f"failed quota: {title}: must specify {parts}")
