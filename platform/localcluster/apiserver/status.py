"""Failures of the API as `Status` objects, worded as Kubernetes words them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from localcluster.resources import Resource

Object = dict[str, Any]


class StatusError(Exception):
    """A failure answer: HTTP code and the parts of its Status body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Object | None = None,
        metadata: Object | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata or {}
        self.headers: list[tuple[bytes, bytes]] = []

    def body(self) -> Object:
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


@dataclass(frozen=True, slots=True)
class Cause:
    """One finding of validation: `reason` is a FieldValue... code, `field` a path such as spec.ports[0].name."""

    reason: str
    message: str
    field: str

    def as_dict(self) -> Object:
        return {"reason": self.reason, "message": self.message, "field": self.field}


def qualified(resource: Resource) -> str:
    """The resource as messages name it: `pods`, `deployments.apps`."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _details(resource: Resource, name: str, **more: Any) -> Object:
    details: Object = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    return details | more


def not_found(resource: Resource, name: str) -> StatusError:
    message = f'{qualified(resource)} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(resource, name))


def no_such_resource() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


_LEFT_OUT = {
    "customresourcedefinitions": "custom resource definitions are",
    "persistentvolumes": "persistent volumes are",
    "persistentvolumeclaims": "persistent volumes are",
    "networkpolicies": "network policies are",
    "ingresses": "ingresses are",
    "validatingwebhookconfigurations": "admission webhooks are",
    "mutatingwebhookconfigurations": "admission webhooks are",
    "roles": "roles are",
    "rolebindings": "roles are",
    "clusterroles": "roles are",
    "clusterrolebindings": "roles are",
    "storageclasses": "persistent volumes are",
    "volumeattachments": "persistent volumes are",
    "validatingadmissionpolicies": "admission policies are",
    "validatingadmissionpolicybindings": "admission policies are",
    "cronjobs": "cron jobs are",
    "statefulsets": "stateful sets are",
    "daemonsets": "daemon sets are",
    "replicationcontrollers": "replication controllers are",
    "ingressclasses": "ingresses are",
    "runtimeclasses": "runtime classes are",
    "certificatesigningrequests": "signing requests are",
    "pods/portforward": "port-forward is",
    "pods/attach": "attach is",
    "pods/ephemeralcontainers": "ephemeral containers are",
    "pods/resize": "resizing in place is",
}
_INSTEAD = {
    "pods/portforward": "reach a pod through /api/v1/namespaces/NAMESPACE/pods/NAME:PORT/proxy, or use `kubectl proxy`",
    "cronjobs": "create Jobs when they are due",
    "replicationcontrollers": "use a ReplicaSet or a Deployment",
    "pods/ephemeralcontainers": "use `kubectl exec`, or `kubectl debug --copy-to`",
    "pods/resize": "replace the pod",
    "pods/attach": "read `kubectl logs -f`, or use `kubectl exec`",
}


def left_out(resource: str) -> StatusError | None:
    """The failure for what the embedded cluster leaves out on purpose, None for what nobody has."""
    what = _LEFT_OUT.get(resource)
    if what is None:
        return None
    instead = _INSTEAD.get(resource, "use any conformant Kubernetes for that")
    message = f"{what} left out of the embedded cluster on purpose; {instead}"
    return StatusError(404, "NotFound", message, {"kind": resource})


def already_exists(resource: Resource, name: str) -> StatusError:
    message = f'{qualified(resource)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(resource, name))


def modified(resource: Resource, name: str) -> StatusError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def forbidden(resource: Resource, name: str, why: str, causes: Iterable[Cause] = ()) -> StatusError:
    message = f'{qualified(resource)} "{name}" is forbidden: {why}'
    if not name:
        message = f"{qualified(resource)} is forbidden: {why}"
    details = _details(resource, name)
    listed = [cause.as_dict() for cause in causes]
    if listed:
        details["causes"] = listed
    return StatusError(403, "Forbidden", message, details)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def internal(message: str) -> StatusError:
    return StatusError(500, "", message)


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> StatusError:
    """422 with all findings of one validation."""
    listed = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = listed[0] if len(listed) == 1 else "[" + ", ".join(listed) + "]"
    shown = f"{kind}.{group}" if group else kind
    details: Object = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    details["causes"] = [cause.as_dict() for cause in causes]
    return StatusError(422, "Invalid", f'{shown} "{name}" is invalid: {text}', details)


def bad_option(kind: str, causes: list[Cause]) -> StatusError:
    """422 for a query parameter; `kind` is CreateOptions, ListOptions, ..."""
    return invalid("meta.k8s.io", kind, "", causes)


def success(resource: Resource, name: str, uid: str) -> Object:
    """The answer to a DELETE that removed the object at once."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(resource, name, uid=uid),
    }
