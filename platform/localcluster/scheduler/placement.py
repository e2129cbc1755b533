"""Choosing among nodes that fit, and making room by preemption: pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from localcluster.client import Object
from localcluster.controllers.pods import controller_of
from localcluster.scheduler.filters import NodeInfo, Refusal, World, check, node_term_matches, tolerates
from localcluster.scheduler.resources import pod_requests


def priority(pod: Object) -> int:
    return pod["spec"].get("priority") or 0


def score(pod: Object, info: NodeInfo) -> float:
    """Higher is better: free share of cpu and memory, preferred affinity and taints, siblings spread out."""
    requests = pod_requests(pod)
    free = []
    for name in ("cpu", "memory"):
        capacity = info.allocatable.get(name, 0)
        used = info.requested.get(name, 0) + requests.get(name, 0)
        free.append(max(0.0, (capacity - used) / capacity) if capacity else 0.0)
    total = sum(free) / len(free) + (1 - abs(free[0] - free[1])) * 0.5
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    for entry in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []:
        if node_term_matches(entry["preference"], info):
            total += entry["weight"] / 100
    for taint in info.node.get("spec", {}).get("taints") or []:
        if taint["effect"] == "PreferNoSchedule" and not tolerates(pod, taint):
            total -= 1
    owner = controller_of(pod)
    if owner:
        siblings = 0
        for other in info.pods.values():
            reference = controller_of(other)
            siblings += reference is not None and reference["uid"] == owner["uid"]
        total -= siblings * 0.25
    return total


def best(pod: Object, fitting: list[NodeInfo]) -> NodeInfo:
    """The node with the highest score; names break ties, so that the choice is repeatable."""
    return max(fitting, key=lambda info: (score(pod, info), info.name))


@dataclass(frozen=True, slots=True)
class Preemption:
    """Pods to remove from a node so that a pod of higher priority fits."""

    node: str
    victims: tuple[Object, ...]


def plan_preemption(
    pod: Object, nodes: Iterable[NodeInfo], refusals: dict[str, Refusal], protected: frozenset[str] = frozenset()
) -> Preemption | None:
    """The cheapest set of lower-priority pods whose removal lets `pod` run, None when there is none.

    `protected` are uids whose removal would break a disruption budget: they are taken only when nothing else
    helps. Source: kubernetes pkg/scheduler/framework/preemption.
    """
    nodes = list(nodes)
    candidates: list[tuple[tuple[int, int, int, int, str], Preemption]] = []
    for info in nodes:
        refusal = refusals.get(info.name)
        if refusal is None or refusal.final:
            continue
        victims = _victims(pod, info, nodes, protected)
        if victims:
            broken = sum(victim["metadata"]["uid"] in protected for victim in victims)
            priorities = [priority(victim) for victim in victims]
            cost = (broken, max(priorities), sum(priorities), len(victims), info.name)
            candidates.append((cost, Preemption(info.name, tuple(victims))))
    return min(candidates, key=lambda entry: entry[0])[1] if candidates else None


def _victims(pod: Object, info: NodeInfo, nodes: list[NodeInfo], protected: frozenset[str]) -> list[Object] | None:
    lower = [other for other in info.pods.values() if priority(other) < priority(pod)]
    trial = info.copy()
    for other in lower:
        trial.remove(other["metadata"]["uid"])
    around = [trial if node is info else node for node in nodes]
    if not lower or check(pod, trial, World(around)) is not None:
        return None
    # Give back as many as still fit: protected ones first, then the most important and oldest.
    lower.sort(key=lambda p: p.get("status", {}).get("startTime") or "~")
    lower.sort(key=priority, reverse=True)
    lower.sort(key=lambda p: p["metadata"]["uid"] not in protected)
    victims = []
    for other in lower:
        trial.add(other)
        if check(pod, trial, World(around)) is not None:
            trial.remove(other["metadata"]["uid"])
            victims.append(other)
    return victims
