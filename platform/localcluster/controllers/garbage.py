"""The garbage collector: deletes what no owner holds any more.

Background: dependents go once the owner is gone. Foreground: the owner stays, with a finalizer, until the
dependents that block it are gone. Orphan: dependents lose their owner references first.
Source: kubernetes pkg/controller/garbagecollector.
"""

from __future__ import annotations

from dataclasses import dataclass

from localcluster.client import ApiError, Object, Propagation
from localcluster.controllers.context import Context
from localcluster.pods import is_deleting
from localcluster.resources import EVENTS, STORED, Resource
from localcluster.workqueue import WorkQueue

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_BY_KIND = {(resource.api_version, resource.kind): resource for resource in STORED}


@dataclass(frozen=True, slots=True)
class Node:
    """One object of the graph."""

    resource: Resource
    namespace: str
    name: str
    uid: str


class GarbageCollector:
    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.objects: dict[str, tuple[Node, Object]] = {}
        self.dependents: dict[str, set[str]] = {}
        self.queue: WorkQueue[Node] = WorkQueue("garbage", self.sync)
        for resource in STORED:
            if resource is not EVENTS:
                context.watcher(resource).add_handler(self._handler(resource))

    def _handler(self, resource: Resource):
        def on_change(change: str, obj: Object, old: Object | None) -> None:
            metadata = obj["metadata"]
            node = Node(resource, metadata.get("namespace") or "", metadata["name"], metadata["uid"])
            for owner in (old or obj)["metadata"].get("ownerReferences") or []:
                self._unlink(owner["uid"], node.uid)
            if change == "DELETED":
                self.objects.pop(node.uid, None)
                self._look_at_dependents(node.uid)
                for owner in metadata.get("ownerReferences") or []:
                    self._look_at(owner["uid"])
                return
            self.objects[node.uid] = (node, obj)
            for owner in metadata.get("ownerReferences") or []:
                self.dependents.setdefault(owner["uid"], set()).add(node.uid)
            if _needs_a_look(obj, old):
                self.queue.add(node)

        return on_change

    def _unlink(self, owner: str, dependent: str) -> None:
        known = self.dependents.get(owner)
        if known:
            known.discard(dependent)
            if not known:
                del self.dependents[owner]

    def _look_at(self, uid: str) -> None:
        if uid in self.objects:
            self.queue.add(self.objects[uid][0])

    def _look_at_dependents(self, uid: str) -> None:
        for dependent in self.dependents.get(uid, ()):
            self._look_at(dependent)

    async def sync(self, node: Node) -> None:
        known = self.objects.get(node.uid)
        if known is None:
            return
        obj = known[1]
        finalizers = obj["metadata"].get("finalizers") or []
        if is_deleting(obj):
            if ORPHAN in finalizers:
                await self._orphan(node, obj)
            elif FOREGROUND in finalizers:
                await self._delete_dependents(node, obj)
            return
        if obj["metadata"].get("ownerReferences"):
            await self._judge(node, obj)

    async def _judge(self, node: Node, obj: Object) -> None:
        """Delete an object whose owners are all gone; drop references to those that are."""
        references = obj["metadata"]["ownerReferences"]
        solid, dangling, waiting = [], [], []
        for reference in references:
            owner = await self._owner(node, reference)
            if owner is None:
                dangling.append(reference)
            elif is_deleting(owner) and FOREGROUND in (owner["metadata"].get("finalizers") or []):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if dangling or waiting:
                await self._set_owners(node, solid)
            return
        finalizers = obj["metadata"].get("finalizers") or []
        policy: Propagation = "Background"
        if waiting and self.dependents.get(node.uid):
            policy = "Foreground"
        elif ORPHAN in finalizers:
            policy = "Orphan"
        elif FOREGROUND in finalizers:
            policy = "Foreground"
        await self._delete(node, policy)

    async def _owner(self, node: Node, reference: Object) -> Object | None:
        """The owner, None when it is certainly gone."""
        known = self.objects.get(reference["uid"])
        if known is not None:
            return known[1]
        resource = _BY_KIND.get((reference["apiVersion"], reference["kind"]))
        if resource is None:
            # A kind this collector does not watch: never delete on ignorance.
            return {"metadata": {"uid": reference["uid"]}}
        # The cache may be younger than the reference; the API server knows.
        namespace = node.namespace if resource.namespaced else None
        if resource.namespaced and not namespace:
            return {"metadata": {"uid": reference["uid"]}}
        owner = await self.client.get_or_none(resource, reference["name"], namespace)
        if owner is None or owner["metadata"]["uid"] != reference["uid"]:
            return None
        return owner

    async def _set_owners(self, node: Node, owners: list[Object]) -> None:
        patch = {"metadata": {"uid": node.uid, "ownerReferences": owners}}
        await self.client.patch(node.resource, node.name, node.namespace or None, patch)

    async def _delete(self, node: Node, policy: Propagation) -> None:
        try:
            await self.client.delete(node.resource, node.name, node.namespace or None, propagation=policy, uid=node.uid)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise

    async def _orphan(self, node: Node, obj: Object) -> None:
        for uid in list(self.dependents.get(node.uid, ())):
            known = self.objects.get(uid)
            if known is None:
                continue
            references = known[1]["metadata"].get("ownerReferences") or []
            owners = [owner for owner in references if owner["uid"] != node.uid]
            try:
                await self._set_owners(known[0], owners)
            except ApiError as error:
                if not (error.is_not_found or error.is_conflict):
                    raise
        await self._drop_finalizer(node, obj, ORPHAN)

    async def _delete_dependents(self, node: Node, obj: Object) -> None:
        blocking = False
        for uid in list(self.dependents.get(node.uid, ())):
            known = self.objects.get(uid)
            if known is None:
                continue
            dependent, content = known
            for owner in content["metadata"].get("ownerReferences") or []:
                if owner["uid"] == node.uid and owner.get("blockOwnerDeletion"):
                    blocking = True
            if not is_deleting(content):
                await self._judge(dependent, content)
        if not blocking:
            await self._drop_finalizer(node, obj, FOREGROUND)

    async def _drop_finalizer(self, node: Node, obj: Object, finalizer: str) -> None:
        left = [entry for entry in obj["metadata"].get("finalizers") or [] if entry != finalizer]
        patch = {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"], "finalizers": left}}
        await self.client.patch(node.resource, node.name, node.namespace or None, patch)


def _needs_a_look(obj: Object, old: Object | None) -> bool:
    metadata = obj["metadata"]
    if is_deleting(obj):
        return bool({ORPHAN, FOREGROUND} & set(metadata.get("finalizers") or []))
    if not metadata.get("ownerReferences"):
        return False
    return old is None or old["metadata"].get("ownerReferences") != metadata["ownerReferences"]
