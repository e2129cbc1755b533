"""The inventory of GPUs, from Node objects as the watcher has them."""

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.db import transaction

from deployments.models import GpuNode, GpuPool
from kube.objects import condition, labels_of, quantity

SIMULATED = "pilothouse.io/simulated"
# How often a node that has not changed is written down as seen.
SEEN_EVERY = dt.timedelta(minutes=1)
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of one extended resource on a node; columns of `GpuPool`."""

    resource: str
    product: str
    memory_mib: int
    capacity: int
    allocatable: int
    replicas: int = 1


def devices_of(node: Mapping[str, Any]) -> list[Devices]:
    """What accelerators a Node object offers, by `PILOTHOUSE_GPU_RESOURCES`; none for an ordinary node."""
    status, labels = node.get("status") or {}, labels_of(dict(node))
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    found = []
    for resource in sorted(set(capacity) | set(allocatable)):
        known = _known(resource)
        if known is None:
            continue
        healthy = _count(allocatable.get(resource))
        whole = max(_count(capacity.get(resource)), healthy)
        if whole == 0:
            continue
        product = labels.get(known.get("product") or "", "") or resource.rpartition("/")[2]
        memory = _memory(labels.get(known.get("memory") or "", ""))
        profile = _profile(resource)
        if profile:
            # With several profiles on a node, labels by resource tell what each slice has.
            told = _memory(labels.get(f"{resource}.memory") or "")
            product, memory = f"{product}/{profile}", told or _profile_memory(profile)
        shared = labels.get(f"{resource.removesuffix('.shared')}.replicas")
        replicas = max(_count(shared), 1) if resource.startswith("nvidia.com/") else 1
        found.append(Devices(resource, product[:200], memory, whole, healthy, replicas))
    return found


def _known(resource: str) -> dict[str, str] | None:
    patterns: dict[str, dict[str, str]] = settings.PILOTHOUSE_GPU_RESOURCES
    if resource in patterns:
        return patterns[resource]
    return next(
        (labels for name, labels in patterns.items() if name.endswith("*") and resource.startswith(name[:-1])), None
    )


def _count(value: Any) -> int:
    try:
        return max(0, int(quantity(str(value)))) if value is not None else 0
    except ValueError:
        return 0


def _memory(text: str) -> int:
    """MiB; labels give a plain number of MiB, or a quantity such as 64Gi or 64G."""
    if text.isdigit():
        return int(text)
    try:
        return int(quantity(text.removesuffix("B")) // MIB)
    except ValueError:
        return 0


def _profile(resource: str) -> str:
    name = resource.rpartition("/")[2]
    return name if name.startswith("mig-") else ""


def _profile_memory(profile: str) -> int:
    """mig-1g.5gb is a slice with 5 GiB."""
    found = re.search(r"(\d+)gb", profile)
    return int(found[1]) * 1024 if found else 0


def columns_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of `GpuNode` that a Node object tells."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    spec, labels = node.get("spec") or {}, labels_of(dict(node))
    return {
        "cpu_milli": math.floor(quantity(str(allocatable.get("cpu", "0"))) * 1000 + 1e-6),
        "memory_mib": math.floor(quantity(str(allocatable.get("memory", "0"))) / MIB),
        "labels": labels,
        "taints": [
            {key: taint[key] for key in ("key", "value", "effect") if key in taint}
            for taint in spec.get("taints") or ()
            if not taint.get("key", "").startswith("node.kubernetes.io/")
        ],
        "ready": condition(dict(node), "Ready").get("status") == "True",
        "schedulable": not spec.get("unschedulable"),
        "simulated": labels.get(SIMULATED) == "true",
        "gone_at": None,
    }


@transaction.atomic
def update(cluster: str, nodes: Iterable[Mapping[str, Any]], now: dt.datetime) -> bool:
    """Bring the rows of ``cluster`` in line with all of its Node objects; tells whether the supply changed.

    A node that is missing is kept with the time it went, so that claims on it can say what happened.
    """
    known = {row.name: row for row in GpuNode.objects.filter(cluster=cluster).prefetch_related("pools")}
    changed = False
    for node in nodes:
        devices = devices_of(node)
        row = known.pop(node["metadata"]["name"], None)
        if row is None and not devices:
            continue
        columns = columns_of(node)
        if row is None:
            row = GpuNode.objects.create(cluster=cluster, name=node["metadata"]["name"], seen_at=now, **columns)
            have: dict[str, GpuPool] = {}
            changed = True
        else:
            have = {pool.resource: pool for pool in row.pools.all()}
            differs = any(getattr(row, name) != value for name, value in columns.items())
            if differs or now - row.seen_at > SEEN_EVERY:
                GpuNode.objects.filter(pk=row.pk).update(seen_at=now, **columns)
            changed |= differs
        changed |= _save_pools(row, have, devices)
    for row in known.values():
        if row.gone_at is None:
            GpuNode.objects.filter(pk=row.pk).update(gone_at=now, ready=False)
            changed = True
    return changed


def _save_pools(node: GpuNode, have: dict[str, GpuPool], devices: list[Devices]) -> bool:
    changed = False
    for one in devices:
        columns = asdict(one)
        pool = have.pop(one.resource, None)
        if pool is None:
            GpuPool.objects.create(node=node, **columns)
            changed = True
        elif any(getattr(pool, name) != value for name, value in columns.items()):
            GpuPool.objects.filter(pk=pool.pk).update(**columns)
            changed = True
    for pool in have.values():
        pool.delete()
        changed = True
    return changed
