"""What every new cluster has: namespaces, priority classes and the service `kubernetes`."""

from __future__ import annotations

from typing import Any

from localcluster import resources as r
from localcluster.apiserver.managed import Manager
from localcluster.apiserver.objects import Objects, kind_of

Object = dict[str, Any]

_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_CLASSES = (
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
)


def ensure(objects: Objects, port: int) -> None:
    """Create what is missing."""
    manager = Manager("kube-apiserver", "Update", "v1")
    for name in _NAMESPACES:
        _create(objects, r.NAMESPACES, "", {"metadata": {"name": name}}, manager)
    for name, value, text in _CLASSES:
        priority = {"metadata": {"name": name}, "value": value, "description": text}
        _create(objects, r.PRIORITYCLASSES, "", priority, manager)
    service = {
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    }
    _create(objects, r.SERVICES, "default", service, manager)


def _create(objects: Objects, resource: r.Resource, namespace: str, obj: Object, manager: Manager) -> None:
    kind = kind_of(resource)
    if objects.table(kind).get(namespace, obj["metadata"]["name"]) is None:
        objects.create(kind, namespace, obj, manager)
