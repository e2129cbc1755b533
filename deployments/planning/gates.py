"""Which waiting pod goes to which node that the GPU pass chose. Pure.

Pods with GPUs are created behind a scheduling gate. Opened, they carry the node in an affinity, so that the cluster's
scheduler still binds them, and its verdict wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kube.state import Pod


@dataclass(frozen=True, slots=True)
class Open:
    """Take the gate from a pod and bind it to a node."""

    pod: str
    node: str


@dataclass(frozen=True, slots=True)
class Yield:
    """Let this pod be the first to go when its Deployment is scaled down: its place is not the version's any more."""

    pod: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a pod that was sent to a node which is not the version's any more; its successor goes elsewhere."""

    pod: str


def yields(nodes: Iterable[str], pods: Sequence[Pod]) -> list[Yield]:
    """Bound pods beyond the places that the version holds on their node, before it is scaled down."""
    left = Counter(nodes)
    found = []
    for pod in pods:
        if not pod.node or pod.deleting or pod.finished:
            continue
        if left[pod.node] > 0:
            left[pod.node] -= 1
        elif not pod.yields:
            found.append(Yield(pod.name))
    return found


def steps(nodes: Iterable[str], pods: Sequence[Pod]) -> list[Open | Drop]:
    """``nodes`` names the node of each instance that the version holds."""
    left = Counter(nodes)
    alive = [pod for pod in pods if not pod.deleting and not pod.finished]
    found: list[Open | Drop] = []
    for pod in alive:
        if pod.node:
            left[pod.node] -= 1
    for pod in alive:
        if pod.node or pod.gated or not pod.assigned:
            continue
        if left[pod.assigned] > 0:
            left[pod.assigned] -= 1
        else:
            found.append(Drop(pod.name))
    free = sorted((+left).elements())
    gated = [pod for pod in alive if pod.gated and not pod.node]
    found += [Open(pod.name, node) for pod, node in zip(gated, free, strict=False)]
    return found
