"""Kinds that clients take every cluster to have: left out here, so that there are never any, and that can be read.

`kubectl apply --prune` looks through all of these for what to remove, and gives up over one that is not served.
"""

from __future__ import annotations

from localcluster.apiserver import status
from localcluster.apiserver.target import Target
from localcluster.apiserver.web import Answer, Request, json_answer
from localcluster.resources import Resource

_RESOURCES = (
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False),
    Resource("", "v1", "replicationcontrollers", "ReplicationController"),
    Resource("apps", "v1", "daemonsets", "DaemonSet"),
    Resource("apps", "v1", "statefulsets", "StatefulSet"),
    Resource("batch", "v1", "cronjobs", "CronJob"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress"),
)
_BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in _RESOURCES}


def answer(request: Request, target: Target, revision: int) -> Answer | None:
    """The answer for one of these kinds, None for any other; StatusError 404 for what is not there or left out."""
    resource = _BY_PATH.get((target.group, target.version, target.resource))
    if resource is None:
        return None
    reads = request.method in ("GET", "HEAD") and not request.flag("watch")
    if target.name and (reads or request.method == "DELETE"):
        raise status.not_found(resource, target.name)
    if not reads:
        raise status.left_out(target.resource) or status.method_not_allowed()
    metadata = {"resourceVersion": str(revision)}
    return json_answer(
        {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": []}
    )
