"""metrics.k8s.io from what the kubelets measure (their `/stats` answers)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from localcluster import quantity, times
from localcluster import resources as r
from localcluster.apiserver import selectors, status, views
from localcluster.apiserver.objects import Objects
from localcluster.apiserver.target import Target
from localcluster.apiserver.web import Request

Object = dict[str, Any]

_VERSION = "metrics.k8s.io/v1beta1"
_COLUMNS = [
    {"name": "Name", "type": "string", "format": "name", "description": "Name of the resource", "priority": 0},
    {"name": "cpu", "type": "string", "format": "quantity", "description": "", "priority": 0},
    {"name": "memory", "type": "string", "format": "quantity", "description": "", "priority": 0},
    {"name": "Window", "type": "string", "format": "duration", "description": "", "priority": 0},
]


def _usage(stats: Object) -> Object:
    """CPU in nanocores and memory in KiB of a `{cpu: {usageNanoCores}, memory: {workingSetBytes}}`."""
    cpu = Decimal(stats.get("cpu", {}).get("usageNanoCores", 0)).scaleb(-9)
    memory = int(stats.get("memory", {}).get("workingSetBytes", 0)) // 1024
    return {"cpu": quantity.of(cpu), "memory": f"{memory}Ki" if memory else "0"}


def _summaries(stats: list[Any]) -> list[Object]:
    """The summaries in kubelets' answers: one kubelet may serve several nodes and then answers a list."""
    found: list[Object] = []
    for one in stats:
        found += one if isinstance(one, list) else one.get("items", [one])
    return found


def _timing(stats: Object) -> Object:
    return {
        "timestamp": stats.get("cpu", {}).get("time") or times.rfc3339(),
        "window": stats.get("window") or "10s",
    }


def _pods(objects: Objects, stats: list[Any], namespace: str | None) -> list[Object]:
    table = objects.store.tables[r.PODS]
    items = []
    for summary in _summaries(stats):
        for measured in summary.get("pods") or ():
            reference = measured["podRef"]
            if namespace is not None and reference["namespace"] != namespace:
                continue
            record = table.get(reference["namespace"], reference["name"])
            if record is None:
                continue
            containers = measured.get("containers") or []
            if not containers:
                continue
            metadata: Object = {
                "name": record.name,
                "namespace": record.namespace,
                "creationTimestamp": times.rfc3339(),
            }
            if record.labels:
                metadata["labels"] = record.labels
            usage = [{"name": one["name"], "usage": _usage(one)} for one in containers]
            items.append({"metadata": metadata, **_timing(containers[0]), "containers": usage})
    return sorted(items, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))


def _nodes(objects: Objects, stats: list[Any]) -> list[Object]:
    table = objects.store.tables[r.NODES]
    items = []
    for summary in _summaries(stats):
        measured = summary.get("node") or {}
        record = table.get("", measured.get("nodeName", ""))
        if record is None:
            continue
        metadata: Object = {"name": record.name, "creationTimestamp": times.rfc3339()}
        if record.labels:
            metadata["labels"] = record.labels
        items.append({"metadata": metadata, **_timing(measured), "usage": _usage(measured)})
    return sorted(items, key=lambda one: one["metadata"]["name"])


def answer(objects: Objects, stats: list[Any], request: Request, target: Target) -> Object:
    """The list, object or table that a request asks for; StatusError 404 for what was not measured."""
    if target.resource == "pods":
        items, kind = _pods(objects, stats, target.namespace), "PodMetrics"
    else:
        items, kind = _nodes(objects, stats), "NodeMetrics"
    selector = request.query.get("labelSelector", "")
    test = selectors.labels(selector) if selector else None
    if test is not None:
        items = [one for one in items if test(one["metadata"].get("labels") or {})]
    resource = r.Resource(target.group, target.version, target.resource, kind)
    as_table = views.choose(request.header(b"accept"), resource, of_list=not target.name) == "Table"
    if target.name:
        found = [one for one in items if one["metadata"]["name"] == target.name]
        if not found:
            missing = r.PODS if target.resource == "pods" else r.NODES
            raise status.not_found(missing, target.name)
        if not as_table:
            return {"kind": kind, "apiVersion": _VERSION, **found[0]}
        items = found
    if not as_table:
        return {"kind": f"{kind}List", "apiVersion": _VERSION, "metadata": {}, "items": items}
    rows = [{"cells": _cells(one), "object": views.partial(one)} for one in items]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": _COLUMNS,
        "rows": rows,
    }


def _cells(item: Object) -> list[str]:
    parts = item.get("containers") or [item]
    cpu = sum((quantity.parse(one["usage"]["cpu"]) for one in parts), Decimal(0))
    memory = sum((quantity.parse(one["usage"]["memory"]) for one in parts), Decimal(0))
    return [item["metadata"]["name"], quantity.of(cpu), quantity.of(memory, "Ki"), item["window"]]
