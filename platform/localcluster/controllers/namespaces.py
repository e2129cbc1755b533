"""Namespaces: what every new one gets, and how a terminating one is emptied."""

from __future__ import annotations

from collections import Counter

from localcluster.client import ApiError, Object
from localcluster.controllers.context import Context
from localcluster.pods import is_deleting
from localcluster.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    NAMESPACES,
    PODS,
    REPLICASETS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    STORED,
    Resource,
)
from localcluster.times import rfc3339
from localcluster.workqueue import WorkQueue

ROOT_CA = "kube-root-ca.crt"
_ROOT_CA_NOTE = {
    "kubernetes.io/description": (
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints "
        "such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
        "distributions of Kubernetes clusters."
    )
}

# Pods first, as everything else may be in use by them; the rest as recorded.
_FIRST = (PODS, DEPLOYMENTS, REPLICASETS, EVENTS, ENDPOINTSLICES, ENDPOINTS, SERVICES, SERVICEACCOUNTS, SECRETS)
_ORDER: tuple[Resource, ...] = (
    *_FIRST,
    *(resource for resource in STORED if resource.namespaced and resource not in _FIRST),
)


class NamespaceDefaultsController:
    """Service account `default` and ConfigMap `kube-root-ca.crt` in every namespace, made again when deleted."""

    def __init__(self, context: Context, root_ca: str) -> None:
        self.client = context.client
        self.root_ca = root_ca
        self.namespaces = context.watcher(NAMESPACES)
        self.accounts = context.watcher(SERVICEACCOUNTS)
        self.configmaps = context.watcher(CONFIGMAPS)
        self.queue: WorkQueue[str] = WorkQueue("namespace-defaults", self.sync)
        self.namespaces.add_handler(lambda change, obj, old: self.queue.add(obj["metadata"]["name"]))
        self.accounts.add_handler(self._on_child)
        self.configmaps.add_handler(self._on_child)

    def _on_child(self, change: str, obj: Object, old: Object | None) -> None:
        if change != "ADDED" and obj["metadata"]["name"] in ("default", ROOT_CA):
            self.queue.add(obj["metadata"]["namespace"])

    async def sync(self, name: str) -> None:
        namespace = self.namespaces.get("", name)
        if namespace is None or is_deleting(namespace):
            return
        if self.accounts.get(name, "default") is None:
            account: Object = {"metadata": {"name": "default", "namespace": name}}
            await self._create(SERVICEACCOUNTS, account)
        existing = self.configmaps.get(name, ROOT_CA)
        data = {"ca.crt": self.root_ca}
        if existing is None:
            metadata = {"name": ROOT_CA, "namespace": name, "annotations": _ROOT_CA_NOTE}
            await self._create(CONFIGMAPS, {"metadata": metadata, "data": data})
        elif existing.get("data") != data:
            await self.client.replace(CONFIGMAPS, existing | {"data": data})

    async def _create(self, resource: Resource, obj: Object) -> None:
        try:
            await self.client.create(resource, obj)
        except ApiError as error:
            # Terminating namespaces refuse new content; an existing object is what was wanted.
            if not error.is_exists and error.code not in (403, 404):
                raise


class NamespaceController:
    """Deletes the content of a terminating namespace, tells what is left, and lets go of it when empty."""

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.namespaces = context.watcher(NAMESPACES)
        self.queue: WorkQueue[str] = WorkQueue("namespace", self.sync, workers=4)
        self.namespaces.add_handler(self._on_namespace)
        for resource in _ORDER:
            if resource is not EVENTS:
                context.watcher(resource).add_handler(self._on_content)

    def _on_namespace(self, change: str, obj: Object, old: Object | None) -> None:
        if is_deleting(obj) and change != "DELETED":
            self.queue.add(obj["metadata"]["name"])

    def _on_content(self, change: str, obj: Object, old: Object | None) -> None:
        if change == "DELETED":
            name = obj["metadata"].get("namespace") or ""
            namespace = self.namespaces.get("", name)
            if namespace is not None and is_deleting(namespace):
                self.queue.add_after(name, 0.05)

    async def sync(self, name: str) -> None:
        namespace = self.namespaces.get("", name)
        if namespace is None or not is_deleting(namespace):
            return
        if not (namespace["spec"].get("finalizers") or []):
            return
        remaining: dict[Resource, list[Object]] = {}
        failures: list[str] = []
        for resource in _ORDER:
            await self._empty(resource, name, remaining, failures)
            if resource is PODS and remaining:
                break  # the rest waits, so that terminating pods keep what they mount
        if remaining or failures:
            pods = remaining.get(PODS, [])
            # Pods that are ending need time and no words; what holds them otherwise is told.
            if failures or not pods or any(pod["metadata"].get("finalizers") for pod in pods):
                await self._tell(namespace, remaining, failures)
            self.queue.add_after(name, 1.0)
            return
        spec = namespace["spec"] | {
            "finalizers": [entry for entry in namespace["spec"]["finalizers"] if entry != "kubernetes"]
        }
        try:
            await self.client.replace(NAMESPACES, namespace | {"spec": spec}, subresource="finalize")
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def _empty(
        self, resource: Resource, name: str, remaining: dict[Resource, list[Object]], failures: list[str]
    ) -> None:
        page = await self.client.list(resource, name)
        if not page.items:
            return
        if any(not is_deleting(obj) for obj in page):
            try:
                await self.client.delete_collection(resource, name, propagation="Background")
            except ApiError as error:
                failures.append(str(error))
            page = await self.client.list(resource, name)
        if page.items:
            remaining[resource] = page.items

    async def _tell(self, namespace: Object, remaining: dict[Resource, list[Object]], failures: list[str]) -> None:
        old = {entry["type"]: entry for entry in namespace["status"].get("conditions") or []}
        conditions = []
        for condition in remaining_conditions(remaining, failures):
            before = old.get(condition["type"])
            stamp = rfc3339()
            if before and before["status"] == condition["status"]:
                stamp = before["lastTransitionTime"]
            conditions.append(
                {
                    "type": condition["type"],
                    "status": condition["status"],
                    "lastTransitionTime": stamp,
                    "reason": condition["reason"],
                    "message": condition["message"],
                }
            )
        if conditions != namespace["status"].get("conditions"):
            status = namespace["status"] | {"conditions": conditions}
            await self.client.replace_status(NAMESPACES, namespace | {"status": status})


def remaining_conditions(remaining: dict[Resource, list[Object]], failures: list[str]) -> list[Object]:
    """The five conditions of a terminating namespace, in the recorded order and words."""
    counts = {_plural(resource): len(items) for resource, items in remaining.items()}
    finalizers = Counter(
        finalizer
        for items in remaining.values()
        for obj in items
        for finalizer in obj["metadata"].get("finalizers") or []
    )
    rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            False,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            False,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
    ]
    if failures:
        text = f"Failed to delete all resource types, {len(failures)} remaining: {', '.join(failures)}"
        rows.append(("NamespaceDeletionContentFailure", True, "ContentDeletionFailed", text))
    else:
        text = "All content successfully deleted, may be waiting on finalization"
        rows.append(("NamespaceDeletionContentFailure", False, "ContentDeleted", text))
    if counts:
        listed = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(counts.items()))
        rows.append(
            (
                "NamespaceContentRemaining",
                True,
                "SomeResourcesRemain",
                f"Some resources are remaining: {listed}",
            )
        )
    else:
        rows.append(("NamespaceContentRemaining", False, "ContentRemoved", "All content successfully removed"))
    if finalizers:
        listed = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
        text = f"Some content in the namespace has finalizers remaining: {listed}"
        rows.append(("NamespaceFinalizersRemaining", True, "SomeFinalizersRemain", text))
    else:
        text = "All content-preserving finalizers finished"
        rows.append(("NamespaceFinalizersRemaining", False, "ContentHasNoFinalizers", text))
    return [
        {"type": kind, "status": str(bad), "reason": reason, "message": message} for kind, bad, reason, message in rows
    ]


def _plural(resource: Resource) -> str:
    # "configmaps." is how Kubernetes prints a resource of the core group.
    return f"{resource.plural}.{resource.group}"
