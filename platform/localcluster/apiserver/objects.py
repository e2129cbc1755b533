"""Creating, changing and deleting objects: what happens between a decoded body and the store."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import orjson

from localcluster import resources as r
from localcluster import times
from localcluster.apiserver import admission, deletion, managed, naming, status
from localcluster.apiserver.deletion import DeleteOptions
from localcluster.apiserver.managed import Manager
from localcluster.apiserver.network import Addresses
from localcluster.apiserver.registry import BY_RESOURCE, Kind
from localcluster.apiserver.status import Cause
from localcluster.apiserver.store import EventType, Record, Store, Table, record_of
from localcluster.apiserver.validation import base, updates
from localcluster.apiserver.validation.base import Causes

Object = dict[str, Any]
Change = Callable[[Object], Object]

_PROTECTED = frozenset({"default", "kube-system", "kube-public"})


def encode(obj: Object) -> bytes:
    """The stored text: metadata first, without kind and apiVersion."""
    ordered = {"metadata": obj["metadata"]}
    ordered.update((key, value) for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata"))
    # orjson gives its bytes a far larger allocation than their length; keep an exact copy.
    return bytes(memoryview(orjson.dumps(ordered)))


def whole(kind: Kind, obj: Object) -> Object:
    """The object with its kind and apiVersion in front."""
    return {"kind": kind.resource.kind, "apiVersion": kind.resource.api_version, **obj}


def _spec_of(kind: Kind, obj: Object) -> Any:
    """What a change of counts as a new generation."""
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status", "kind", "apiVersion")}
    if kind.resource == r.DEPLOYMENTS:
        rest["annotations"] = obj["metadata"].get("annotations")
    return rest


def _same(old: Object, new: Object) -> bool:
    """Equal but for managedFields, resourceVersion and where empty maps stand."""
    if len(old) != len(new):
        return False
    for key, value in new.items():
        if key == "metadata":
            ignored = ("managedFields", "resourceVersion")
            before = {k: v for k, v in old["metadata"].items() if k not in ignored}
            after = {k: v for k, v in value.items() if k not in ignored}
            if before != after:
                return False
        elif old.get(key) != value:
            return False
    return True


class Objects:
    """Writes to the store. Every method is synchronous, so no other request comes between read and write."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.usages = admission.usages(store)
        services = store.tables[r.SERVICES]
        self.addresses = Addresses(record.load() for record in services.records())

    def table(self, kind: Kind) -> Table:
        return self.store.tables[kind.resource]

    def record(self, kind: Kind, namespace: str, name: str) -> Record:
        """The stored record; StatusError 404."""
        record = self.table(kind).get(namespace, name)
        if record is None:
            raise status.not_found(kind.resource, name)
        return record

    # -- creating ---------------------------------------------------------------------------------

    def create(
        self, kind: Kind, namespace: str, obj: Object, manager: Manager, *, dry_run: bool = False, applied: bool = False
    ) -> Object:
        """Store a new object; the object as stored. `applied`: managedFields are set already."""
        resource = kind.resource
        metadata = obj.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise status.internal("resourceVersion should not be set on objects to be created")
        self._identify(kind, namespace, metadata)
        name = metadata.get("name", "")
        self._check_namespace(kind, namespace, name)
        if kind.has_status and resource not in (r.PODS, r.NODES):
            obj.pop("status", None)
        if resource == r.NAMESPACES:
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            obj["status"] = {"phase": "Active"}
        if resource == r.JOBS:
            _job_identity(obj)
        kind.defaults(obj)
        if resource == r.PODS:
            admission.pod(self.store, obj)
        self._validate(kind, obj)
        if resource == r.SERVICES:
            self._allocate(kind, obj, None, dry_run=dry_run)
        admission.quotas(self.store, self.usages, kind, obj, namespace)
        if self.table(kind).get(namespace, name) is not None:
            if resource == r.SERVICES and not dry_run:
                self.addresses.release(obj["spec"])
            raise status.already_exists(resource, name)
        if not applied:
            managed.created(kind.type, obj, manager, managed.RESET_MAIN if kind.has_status else ())
        if dry_run:
            return obj
        self._write("ADDED", kind, obj, None)
        return obj

    def _identify(self, kind: Kind, namespace: str, metadata: Object) -> None:
        if kind.resource.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise status.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
        elif metadata.get("namespace"):
            raise status.bad_request("namespace may not be set for cluster-scoped resources")
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"][:58] + naming.suffix()
        for key in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(key, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = times.rfc3339()
        if kind.has_generation:
            metadata["generation"] = 1

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.resource.namespaced:
            return
        record = self.store.tables[r.NAMESPACES].get("", namespace)
        if record is None:
            raise status.not_found(r.NAMESPACES, namespace)
        if record.fields[0] == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            raise status.forbidden(kind.resource, name, why, [cause])

    def _validate(self, kind: Kind, obj: Object, old: Object | None = None) -> None:
        causes = Causes()
        base.metadata(obj["metadata"], kind.name_rule, causes)
        if old is not None:
            # Kubernetes checks this for every kind and again within each, and reports it as often.
            updates.metadata(old, obj, causes)
            updates.metadata(old, obj, causes)
        kind.validate(obj, causes)
        if old is not None:
            kind.validate_update(old, obj, causes)
        if causes.found:
            resource = kind.resource
            raise status.invalid(resource.group, resource.kind, obj["metadata"].get("name", ""), causes.found)

    def _allocate(self, kind: Kind, obj: Object, old: Object | None, *, dry_run: bool) -> None:
        causes = self.addresses.allocate(obj["spec"], old["spec"] if old else None, keep=not dry_run)
        if causes:
            raise status.invalid("", kind.resource.kind, obj["metadata"]["name"], causes)

    def _write(self, event: EventType, kind: Kind, obj: Object, previous: Record | None) -> None:
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(self.store.next_revision())
        obj.pop("kind", None)
        obj.pop("apiVersion", None)
        table = self.table(kind)
        record = record_of(table, metadata.get("namespace", ""), metadata["name"], obj, encode(obj))
        self.store.write(table, event, record, previous)
        self.usages.changed(kind, obj, gone=event == "DELETED")

    def store_changed(self, kind: Kind, obj: Object, previous: Record) -> None:
        """Store a change that a subresource has made and checked by itself."""
        self._write("MODIFIED", kind, obj, previous)

    # -- changing ---------------------------------------------------------------------------------

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Change,
        manager: Manager,
        *,
        subresource: str = "",
        dry_run: bool = False,
        applied: bool = False,
        patching: bool = False,
    ) -> Object:
        """Store a changed object; `change` gets a copy of the old one (whole) and returns the new one."""
        record = self.record(kind, namespace, name)
        old = record.load()
        new = change(whole(kind, record.load()))
        new.pop("kind", None)
        new.pop("apiVersion", None)
        self._check_update(kind, old, new, patching=patching)
        self._keep(kind, old, new, subresource)
        if subresource != "status":
            kind.defaults(new)
            if kind.resource == r.SERVICES:
                _follow_address(old["spec"], new["spec"])
            self._validate(kind, new, old)
        else:
            causes = Causes()
            updates.metadata(old, new, causes)
            if causes.found:
                raise status.invalid(kind.resource.group, kind.resource.kind, name, causes.found)
        if kind.resource == r.SERVICES and subresource != "status":
            self._allocate(kind, new, old, dry_run=dry_run)
        if subresource != "status" and kind.has_generation and _spec_of(kind, old) != _spec_of(kind, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if not applied:
            reset = managed.RESET_STATUS if subresource == "status" else managed.RESET_MAIN if kind.has_status else ()
            managed.updated(kind.type, old, new, manager, reset)
        same_managers = not applied or old["metadata"].get("managedFields") == new["metadata"].get("managedFields")
        if _same(old, new) and same_managers and not _drops_ownership(old, new):
            return old
        if dry_run:
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            return new
        if self._is_finished(kind, new):
            return self._remove(kind, record, new)
        self._write("MODIFIED", kind, new, record)
        return new

    def _check_update(self, kind: Kind, old: Object, new: Object, *, patching: bool) -> None:
        metadata, before = new.setdefault("metadata", {}), old["metadata"]
        resource, name = kind.resource, before["name"]
        if metadata.setdefault("name", name) != name:
            raise status.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        if resource.namespaced and metadata.setdefault("namespace", before["namespace"]) != before["namespace"]:
            raise status.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        version = metadata.get("resourceVersion")
        if version and not version.isdigit():
            raise status.internal(f'strconv.ParseUint: parsing "{version}": invalid syntax')
        if patching and metadata.get("uid", before["uid"]) != before["uid"]:
            text = f"Invalid value: {base.show(metadata['uid'])}: {base.IMMUTABLE}"
            causes = [Cause("FieldValueInvalid", text, "metadata.uid")] * 2
            raise status.invalid(resource.group, resource.kind, name, causes)
        if metadata.get("uid") and metadata["uid"] != before["uid"]:
            where = f"/registry/{resource.plural}/" + "/".join(filter(None, (before.get("namespace"), name)))
            why = (
                f"StorageError: invalid object, Code: 4, Key: {where}, ResourceVersion: 0, AdditionalErrorMsg: "
                f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
            )
            raise status.conflict(resource, name, why)
        if version and version not in ("0", before["resourceVersion"]):
            raise status.modified(resource, name)

    def _keep(self, kind: Kind, old: Object, new: Object, subresource: str) -> None:
        """Carry over what this write may not touch."""
        before, after = old["metadata"], new["metadata"]
        for key in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
            after.pop(key, None)
            if before.get(key) is not None:
                after[key] = before[key]
        after.pop("selfLink", None)
        after["resourceVersion"] = before["resourceVersion"]
        if subresource == "status":
            wanted = new.get("status")
            for key in [key for key in new if key not in ("metadata", "status")]:
                del new[key]
            new.update((key, value) for key, value in old.items() if key not in ("metadata", "status"))
            if wanted is None:
                new.pop("status", None)
            if kind.resource == r.DEPLOYMENTS:
                after.pop("labels", None)
                if "labels" in before:
                    after["labels"] = before["labels"]
            if "ownerReferences" in before:
                after["ownerReferences"] = before["ownerReferences"]
            else:
                after.pop("ownerReferences", None)
            if kind.resource == r.PODS and "status" in new:
                new["status"].setdefault("qosClass", old.get("status", {}).get("qosClass", "BestEffort"))
        elif kind.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        if kind.resource == r.NAMESPACES and subresource != "finalize":
            new["spec"] = old.get("spec", {})

    def _is_finished(self, kind: Kind, obj: Object) -> bool:
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
            return False
        if kind.resource == r.NAMESPACES:
            return not obj.get("spec", {}).get("finalizers")
        return not metadata.get("deletionGracePeriodSeconds")

    # -- deleting ---------------------------------------------------------------------------------

    def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> tuple[Object, bool]:
        """Delete or start deleting; the object as it is now, and whether the answer shows it."""
        record = self.record(kind, namespace, name)
        obj = record.load()
        deletion.check_preconditions(kind, obj, options)
        if kind.resource == r.NAMESPACES:
            return self._delete_namespace(kind, record, obj, options)
        before = orjson.dumps(obj)
        metadata = obj["metadata"]
        deletion.propagate(kind, metadata, options.propagation)
        grace = deletion.grace_of(kind, obj, options.grace_seconds)
        pending = grace > 0 or bool(metadata.get("finalizers"))
        if not pending:
            if kind.resource == r.PODS:
                deletion.mark(metadata, 0)
            if options.dry_run:
                return obj, kind.deletes_with_object
            if orjson.dumps(obj) != before:
                # A pod is first shown with no time left, then gone.
                self._write("MODIFIED", kind, obj, record)
                record = self.record(kind, namespace, name)
            return self._remove(kind, record, obj), kind.deletes_with_object
        deletion.mark(metadata, grace)
        if not options.dry_run and orjson.dumps(obj) != before:
            self._write("MODIFIED", kind, obj, record)
        return obj, True

    def _delete_namespace(self, kind: Kind, record: Record, obj: Object, options: DeleteOptions) -> tuple[Object, bool]:
        metadata = obj["metadata"]
        if metadata["name"] in _PROTECTED:
            raise status.forbidden(kind.resource, metadata["name"], "this namespace may not be deleted")
        if metadata.get("deletionTimestamp"):
            if self._is_finished(kind, obj) and not options.dry_run:
                return self._remove(kind, record, obj), True
            return obj, True
        metadata["deletionTimestamp"] = times.rfc3339()
        obj["status"]["phase"] = "Terminating"
        if not options.dry_run:
            self._write("MODIFIED", kind, obj, record)
        return obj, True

    def _remove(self, kind: Kind, record: Record, obj: Object) -> Object:
        if kind.resource == r.SERVICES:
            self.addresses.release(obj["spec"])
        answer = {**obj, "metadata": dict(obj["metadata"])}
        self._write("DELETED", kind, obj, record)
        return answer if kind.resource != r.NAMESPACES else obj


def _drops_ownership(old: Object, new: Object) -> bool:
    return bool(old["metadata"].get("managedFields")) and not new["metadata"].get("managedFields")


def _follow_address(old: Object, new: Object) -> None:
    """clusterIP and clusterIPs say the same: a change of the first alone changes the second."""
    address, addresses = new.get("clusterIP"), new.get("clusterIPs")
    if address and address != old.get("clusterIP") and addresses == old.get("clusterIPs"):
        new["clusterIPs"] = [address]
    elif not address and addresses and new.get("type") != "ExternalName":
        new["clusterIP"] = addresses[0]


def _job_identity(obj: Object) -> None:
    """Jobs select their pods by their own uid, unless they bring a selector."""
    spec = obj.setdefault("spec", {})
    if spec.get("manualSelector"):
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"].get("name", "")
    labels = spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {})
    labels.update(
        {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name,
        }
    )
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def kind_of(resource: r.Resource) -> Kind:
    """The behaviour of a stored resource."""
    return BY_RESOURCE[resource]
