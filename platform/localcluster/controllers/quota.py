"""ResourceQuota status: what a namespace uses of each entry of `spec.hard`.

Refusing what would exceed a quota is the API server's admission; this keeps `status.used` right afterwards.
Source: kubernetes pkg/quota/v1.
"""

from __future__ import annotations

from decimal import Decimal

from localcluster.client import Object
from localcluster.controllers.context import Context
from localcluster.pods import is_terminal
from localcluster.quantity import canonical, format_binary, format_decimal, parse
from localcluster.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    HPAS,
    JOBS,
    PODS,
    REPLICASETS,
    RESOURCEQUOTAS,
    SECRETS,
    SERVICES,
    Resource,
)
from localcluster.tally import Tally
from localcluster.watcher import Key, Watcher, key_of
from localcluster.workqueue import WorkQueue

_COUNTED: tuple[Resource, ...] = (
    PODS,
    SERVICES,
    CONFIGMAPS,
    SECRETS,
    RESOURCEQUOTAS,
    DEPLOYMENTS,
    REPLICASETS,
    JOBS,
    HPAS,
)
_BARE = {
    "pods": PODS,
    "services": SERVICES,
    "configmaps": CONFIGMAPS,
    "secrets": SECRETS,
    "resourcequotas": RESOURCEQUOTAS,
}
_RESYNC = 60.0


def in_scope(quota: Object, pod: Object) -> bool:
    """Whether a quota's scopes cover a pod."""
    scopes: list[tuple[str, str, list[str]]] = [(scope, "Exists", []) for scope in quota["spec"].get("scopes") or []]
    for entry in (quota["spec"].get("scopeSelector") or {}).get("matchExpressions") or []:
        scopes.append((entry["scopeName"], entry["operator"], entry.get("values") or []))
    return all(_matches_scope(pod, *scope) for scope in scopes)


def _matches_scope(pod: Object, scope: str, operator: str, values: list[str]) -> bool:
    ends = pod["spec"].get("activeDeadlineSeconds") is not None
    best_effort = not any(
        (container.get("resources") or {}).get(kind)
        for container in pod["spec"]["containers"]
        for kind in ("requests", "limits")
    )
    simple = {
        "Terminating": ends,
        "NotTerminating": not ends,
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
    }
    if scope in simple:
        return simple[scope]
    if scope == "PriorityClass":
        name = pod["spec"].get("priorityClassName") or ""
        if operator == "In":
            return name in values
        if operator == "NotIn":
            return name not in values
        return bool(name) == (operator == "Exists")
    return False


def pod_usage(pod: Object) -> dict[str, Decimal]:
    """Entries that one pod that has not finished counts for."""
    used: dict[str, Decimal] = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        for kind in ("requests", "limits"):
            for name, text in (resources.get(kind) or {}).items():
                used[f"{kind}.{name}"] = used.get(f"{kind}.{name}", Decimal(0)) + parse(text)
    for name in ("cpu", "memory", "ephemeral-storage"):
        if f"requests.{name}" in used:
            used[name] = used[f"requests.{name}"]
    return used


def service_usage(service: Object) -> dict[str, Decimal]:
    kind = service["spec"].get("type") or "ClusterIP"
    ports = len(service["spec"].get("ports") or [])
    used = {"services": Decimal(1), "count/services": Decimal(1)}
    if kind == "LoadBalancer":
        used["services.loadbalancers"] = Decimal(1)
    if kind in ("NodePort", "LoadBalancer"):
        used["services.nodeports"] = Decimal(ports)
    return used


class QuotaController:
    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.quotas = context.watcher(RESOURCEQUOTAS)
        self.watchers: dict[Resource, Watcher] = {resource: context.watcher(resource) for resource in _COUNTED}
        self.queue: WorkQueue[Key] = WorkQueue("quota", self.sync, workers=2)
        self._tallies: dict[Key, Tally] = {}
        self.quotas.add_handler(self._on_quota)
        for watcher in self.watchers.values():
            watcher.add_handler(self._on_object)

    def _on_quota(self, change: str, quota: Object, old: Object | None) -> None:
        key = key_of(quota)
        if change == "DELETED":
            self._tallies.pop(key, None)
        elif old is None or _scopes(old) != _scopes(quota):
            self._tallies[key] = Tally()
            for resource in (PODS, SERVICES):
                for obj in self.watchers[resource].in_namespace(key[0]):
                    self._count("ADDED", obj, quota)
        self.queue.add(key)

    def _count(self, change: str, obj: Object, quota: Object) -> None:
        """Let a pod or a service count for a quota, or count no more."""
        tally, member = self._tallies[key_of(quota)], f"{obj['kind']}/{obj['metadata']['name']}"
        if obj["kind"] == PODS.kind:
            counts, amounts = not is_terminal(obj) and in_scope(quota, obj), pod_usage(obj)
        else:
            counts, amounts = not any(_scopes(quota)), service_usage(obj)
        if change == "DELETED" or not counts:
            tally.drop(member)
        else:
            tally.put(member, amounts)

    def _on_object(self, change: str, obj: Object, old: Object | None) -> None:
        if change == "MODIFIED" and old is not None and is_terminal(obj) == is_terminal(old):
            same = obj.get("spec") == old.get("spec")
            if same:
                return
        for quota in self.quotas.in_namespace(key_of(obj)[0]):
            if obj["kind"] in (PODS.kind, SERVICES.kind):
                self._count(change, obj, quota)
            self.queue.add(key_of(quota))

    async def sync(self, key: Key) -> None:
        quota = self.quotas.get(*key)
        if quota is None:
            return
        hard = quota["spec"].get("hard") or {}
        used = self._used(quota)
        status = {
            "hard": {name: canonical(value) for name, value in hard.items()},
            "used": {name: _text(name, used.get(name, Decimal(0)), hard[name]) for name in hard},
        }
        if status != (quota.get("status") or {}):
            await self.client.replace_status(RESOURCEQUOTAS, quota | {"status": status})
        self.queue.add_after(key, _RESYNC)

    def _used(self, quota: Object) -> dict[str, Decimal]:
        namespace = quota["metadata"]["namespace"]
        used = self._tallies[key_of(quota)].sums()
        if any(_scopes(quota)):
            return used
        for resource, watcher in self.watchers.items():
            if resource in (PODS, SERVICES):
                continue
            count = Decimal(watcher.count(namespace))
            suffix = f".{resource.group}" if resource.group else ""
            used[f"count/{resource.plural}{suffix}"] = count
            if resource.plural in _BARE:
                used[resource.plural] = count
        return used


def _scopes(quota: Object) -> tuple[Object | None, Object | None]:
    return quota["spec"].get("scopes"), quota["spec"].get("scopeSelector")


def _text(name: str, amount: Decimal, hard: str) -> str:
    if "memory" in name or "storage" in name or str(hard).endswith("i"):
        return format_binary(amount)
    return format_decimal(amount)
