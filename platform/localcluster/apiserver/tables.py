"""Objects as rows of tables, the form in which `kubectl get` asks for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from localcluster import resources as r
from localcluster import times
from localcluster.apiserver.pod_rows import pod_row
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.store import Event, Record
from localcluster.apiserver.views import View, partial
from localcluster.resources import Resource

Object = dict[str, Any]
Row = list[Any]

_NONE = "<none>"
_CONDITIONS = {
    "Succeeded": [
        {
            "type": "Completed",
            "status": "True",
            "reason": "Succeeded",
            "message": "The pod has completed successfully.",
        }
    ],
    "Failed": [{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}],
}


@cache
def _columns() -> dict[str, list[Object]]:
    return orjson.loads((Path(__file__).parent / "data" / "columns.json").read_bytes())


def columns(resource: Resource) -> list[Object]:
    """The column definitions of a resource's tables."""
    return _columns()[f"{resource.plural}.{resource.group}"]


def duration(seconds: float) -> str:
    """A span as kubectl shows it: 5s, 3m12s, 42m, 5h30m, 3d4h, 12d."""
    whole = int(seconds)
    if whole < 0:
        return "<invalid>" if whole < -1 else "0s"
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        rest = whole % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = days // 365, days % 365
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def age(timestamp: str | None) -> str:
    """The span since a time of the API."""
    if not timestamp:
        return "<unknown>"
    return duration((datetime.now(UTC) - times.parse_time(timestamp)).total_seconds())


def _created(obj: Object) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


def _name(obj: Object) -> str:
    return obj["metadata"]["name"]


def _labels(selector: Object | None) -> str:
    from localcluster.apiserver.subresources import selector_text

    return selector_text(selector or {}) or _NONE


def _workload(spec: Object) -> list[str]:
    """What wide rows of workloads end with: containers, images and selector."""
    containers = (spec.get("template") or {}).get("spec", {}).get("containers") or []
    names, images = (",".join(one.get(key, "") for one in containers) for key in ("name", "image"))
    return [names, images, _labels(spec.get("selector"))]


def _deployment(obj: Object) -> Row:
    spec, state = obj["spec"], obj.get("status", {})
    ready = f"{state.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    updated, available = state.get("updatedReplicas", 0), state.get("availableReplicas", 0)
    return [_name(obj), ready, updated, available, _created(obj), *_workload(spec)]


def _replicaset(obj: Object) -> Row:
    spec, state = obj["spec"], obj.get("status", {})
    counts = [spec.get("replicas", 0), state.get("replicas", 0), state.get("readyReplicas", 0)]
    return [_name(obj), *counts, _created(obj), *_workload(spec)]


def _job(obj: Object) -> Row:
    spec, state = obj["spec"], obj.get("status", {})
    done = state.get("succeeded", 0)
    if spec.get("completions") is not None:
        completions = f"{done}/{spec['completions']}"
    else:
        parallel = spec.get("parallelism") or 0
        completions = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    held = {one["type"] for one in state.get("conditions") or () if one["status"] == "True"}
    shown = next((name for name in ("Complete", "Failed", "Suspended") if name in held), "Running")
    if shown == "Running" and "FailureTarget" in held:
        shown = "FailureTarget"
    elif shown == "Running" and "SuccessCriteriaMet" in held:
        shown = "SuccessCriteriaMet"
    elif shown == "Running" and obj["metadata"].get("deletionTimestamp"):
        shown = "Terminating"
    took = ""
    if state.get("startTime"):
        end = state.get("completionTime")
        until = times.parse_time(end) if end else datetime.now(UTC)
        took = duration((until - times.parse_time(state["startTime"])).total_seconds())
    return [_name(obj), shown, completions, took, _created(obj), *_workload(spec)]


def _service(obj: Object) -> Row:
    spec = obj["spec"]
    kind = spec.get("type", "ClusterIP")
    ports = []
    for port in spec.get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    address = spec.get("clusterIP") or _NONE
    external = _NONE
    if kind == "LoadBalancer":
        external = "<pending>"
    elif kind == "ExternalName":
        address, external = _NONE, spec.get("externalName", "")
    elif spec.get("externalIPs"):
        external = ",".join(spec["externalIPs"])
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items())) or _NONE
    return [_name(obj), kind, address, external, ",".join(ports) or _NONE, _created(obj), selector]


def _event(obj: Object) -> Row:
    involved, source = obj["involvedObject"], obj.get("source") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = obj.get("lastTimestamp") or series.get("lastObservedTime") or first
    component = obj.get("reportingComponent") or source.get("component", "")
    if source.get("host"):
        component = f"{component}, {source['host']}"
    elif obj.get("reportingInstance") and not source:
        component = f"{component}, {obj['reportingInstance']}"
    count = series.get("count") or obj.get("count") or 1
    target = f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"
    return [
        age(last),
        obj.get("type", ""),
        obj.get("reason", ""),
        target,
        involved.get("fieldPath", ""),
        component,
        obj.get("message", "").strip(),
        age(first),
        count,
        _name(obj),
    ]


def _endpoints(obj: Object) -> Row:
    found = [
        f"{address['ip']}:{port['port']}" if port else address["ip"]
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or [None]
        for address in subset.get("addresses") or ()
    ]
    return [_name(obj), _more(found) if found else _NONE, _created(obj)]


def _more(found: list[str]) -> str:
    if not found:
        return "<unset>"
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")


def _slice(obj: Object) -> Row:
    ports = [str(port.get("port", "*")) for port in obj.get("ports") or ()]
    addresses = [address for one in obj.get("endpoints") or () for address in one["addresses"]]
    return [_name(obj), obj["addressType"], _more(ports), _more(addresses), _created(obj)]


def _autoscaler(obj: Object) -> Row:
    spec, state = obj["spec"], obj.get("status", {})
    reference = f"{spec['scaleTargetRef']['kind']}/{spec['scaleTargetRef']['name']}"
    current = {
        (one.get("resource") or {}).get("name"): (one.get("resource") or {}).get("current") or {}
        for one in state.get("currentMetrics") or ()
    }
    targets = []
    for metric in spec.get("metrics") or ():
        wanted = metric.get("resource")
        if wanted is None:
            targets.append("<unknown>")
            continue
        target, found = wanted["target"], current.get(wanted["name"], {})
        if target.get("averageUtilization") is not None:
            now = found.get("averageUtilization")
            shown = f"{now}%" if now is not None else "<unknown>"
            targets.append(f"{wanted['name']}: {shown}/{target['averageUtilization']}%")
        else:
            targets.append(f"{wanted['name']}: {found.get('averageValue', '<unknown>')}/{target.get('averageValue')}")
    least = str(spec["minReplicas"]) if spec.get("minReplicas") is not None else "<unset>"
    counts = [least, spec["maxReplicas"], state.get("currentReplicas", 0)]
    return [_name(obj), reference, ", ".join(targets) or _NONE, *counts, _created(obj)]


def _budget(obj: Object) -> Row:
    spec = obj.get("spec") or {}
    values = [str(spec[key]) if spec.get(key) is not None else "N/A" for key in ("minAvailable", "maxUnavailable")]
    return [_name(obj), *values, obj.get("status", {}).get("disruptionsAllowed", 0), _created(obj)]


def _quota(obj: Object) -> Row:
    state = obj.get("status", {})
    used, hard = state.get("used") or {}, state.get("hard") or {}
    entries = {key: f"{key}: {used.get(key, '0')}/{limit}" for key, limit in sorted(hard.items())}
    limits = ", ".join(text for key, text in entries.items() if key.startswith("limits"))
    requests = ", ".join(text for key, text in entries.items() if not key.startswith("limits"))
    return [_name(obj), requests, limits, _created(obj)]


def _node(obj: Object) -> Row:
    spec, state = obj.get("spec", {}), obj.get("status", {})
    info = state.get("nodeInfo", {})
    ready = next((one["status"] for one in state.get("conditions") or () if one["type"] == "Ready"), "Unknown")
    shown = {"True": "Ready", "False": "NotReady"}.get(ready, "NotReady" if state.get("conditions") else "Unknown")
    if spec.get("unschedulable"):
        shown += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or _NONE
    addresses = {one["type"]: one["address"] for one in state.get("addresses") or ()}
    kernel = info.get("kernelVersion") or "<unknown>"
    if info.get("architecture"):
        kernel = f"{kernel} ({info['architecture']})"
    return [
        _name(obj),
        shown,
        roles,
        _created(obj),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", _NONE),
        addresses.get("ExternalIP", _NONE),
        info.get("osImage") or "<unknown>",
        kernel,
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


_ROWS: dict[Resource, Callable[[Object], Row]] = {
    r.DEPLOYMENTS: _deployment,
    r.REPLICASETS: _replicaset,
    r.JOBS: _job,
    r.SERVICES: _service,
    r.EVENTS: _event,
    r.ENDPOINTS: _endpoints,
    r.ENDPOINTSLICES: _slice,
    r.HPAS: _autoscaler,
    r.PDBS: _budget,
    r.RESOURCEQUOTAS: _quota,
    r.NODES: _node,
    r.PODS: lambda obj: pod_row(obj, _created(obj), age),
    r.CONFIGMAPS: lambda obj: [
        _name(obj),
        len(obj.get("data") or ()) + len(obj.get("binaryData") or ()),
        _created(obj),
    ],
    r.SECRETS: lambda obj: [_name(obj), obj.get("type", ""), len(obj.get("data") or ()), _created(obj)],
    r.NAMESPACES: lambda obj: [_name(obj), obj["status"]["phase"], _created(obj)],
    r.LEASES: lambda obj: [_name(obj), (obj.get("spec") or {}).get("holderIdentity", ""), _created(obj)],
    r.PRIORITYCLASSES: lambda obj: [
        _name(obj),
        obj["value"],
        bool(obj.get("globalDefault")),
        _created(obj),
        obj.get("preemptionPolicy", ""),
    ],
    r.LIMITRANGES: lambda obj: [_name(obj), obj["metadata"]["creationTimestamp"]],
}


class TableView(View):
    """Tables of objects."""

    def __init__(self, kind: Kind, include: str) -> None:
        super().__init__(kind)
        self.include = include
        self.list_kind = "Table"
        self.api_version = "meta.k8s.io/v1"
        self._row = _ROWS.get(kind.resource, lambda obj: [_name(obj), _created(obj)])
        self._first = True

    def item(self, record: Record) -> bytes:
        obj = record.load()
        row: Object = {"cells": self._row(obj)}
        if self.kind.resource == r.PODS:
            conditions = _CONDITIONS.get(obj.get("status", {}).get("phase", ""))
            if conditions:
                row["conditions"] = conditions
        if self.include == "None":
            row["object"] = None
        elif self.include == "Object":
            row["object"] = {
                "kind": self.kind.resource.kind,
                "apiVersion": self.kind.resource.api_version,
                **obj,
            }
        else:
            row["object"] = partial(obj)
        return orjson.dumps(row)

    def _table(self, metadata: Object, rows: bytes, *, with_columns: bool) -> bytes:
        head = orjson.dumps(
            {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": columns(self.kind.resource) if with_columns else None,
            }
        )
        return head[:-1] + b',"rows":[' + rows + b"]}"

    def single(self, record: Record) -> bytes:
        metadata = {"resourceVersion": str(record.revision)}
        return self._table(metadata, self.item(record), with_columns=True)

    def list_head(self, metadata: Object) -> tuple[bytes, bytes]:
        head = self._table(metadata, b"", with_columns=True)
        return head[:-2], b"]}"

    def line(self, event: Event) -> bytes:
        return self.event(event.type, event.record)

    def event(self, kind: str, record: Record) -> bytes:
        # Only the first event of a watch carries the columns.
        table = self._table({"resourceVersion": str(record.revision)}, self.item(record), with_columns=self._first)
        self._first = False
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), table)

    def bookmark_kind(self) -> tuple[str, str]:
        return "Table", self.api_version
