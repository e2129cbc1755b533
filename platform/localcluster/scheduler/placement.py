"""Choosing among nodes that fit, and making room by preemption: pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from localcluster.scheduler.filters import Refusal, check, node_term_matches, tolerates
from localcluster.scheduler.world import NodeInfo, PodInfo, World


def score(pod: PodInfo, info: NodeInfo) -> float:
    """Higher is better: free share of cpu and memory, preferred affinity and taints, siblings spread out."""
    requests = pod.requests
    free = []
    for name in ("cpu", "memory"):
        capacity = info.allocatable.get(name, 0)
        used = info.requested.get(name, 0) + requests.get(name, 0)
        free.append(max(0.0, (capacity - used) / capacity) if capacity else 0.0)
    total = sum(free) / len(free) + (1 - abs(free[0] - free[1])) * 0.5
    for entry in pod.preferred_nodes:
        if node_term_matches(entry["preference"], info):
            total += entry["weight"] / 100
    for taint in info.spec.get("taints") or ():
        if taint["effect"] == "PreferNoSchedule" and not tolerates(pod, taint):
            total -= 1
    if pod.owner:
        total -= info.owners[pod.owner] * 0.25
    return total


def best(pod: PodInfo, fitting: list[NodeInfo]) -> NodeInfo:
    """The node with the highest score; names break ties, so that the choice is repeatable."""
    return max(fitting, key=lambda info: (score(pod, info), info.name))


@dataclass(frozen=True, slots=True)
class Preemption:
    """Pods to remove from a node so that a pod of higher priority fits."""

    node: str
    victims: tuple[PodInfo, ...]


def plan_preemption(
    pod: PodInfo, nodes: Iterable[NodeInfo], refusals: dict[str, Refusal], protected: frozenset[str] = frozenset()
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
            broken = sum(victim.uid in protected for victim in victims)
            priorities = [victim.priority for victim in victims]
            cost = (broken, max(priorities), sum(priorities), len(victims), info.name)
            candidates.append((cost, Preemption(info.name, tuple(victims))))
    return min(candidates, key=lambda entry: entry[0])[1] if candidates else None


def _victims(pod: PodInfo, info: NodeInfo, nodes: list[NodeInfo], protected: frozenset[str]) -> list[PodInfo] | None:
    lower = [other for other in info.pods.values() if other.priority < pod.priority]
    if not lower:
        return None
    trial = info.copy()
    for other in lower:
        trial.remove(other.uid)
    around = [trial if node is info else node for node in nodes]
    if check(World(pod, around), trial) is not None:
        return None
    # Give back as many as still fit: protected ones first, then the most important and oldest.
    lower.sort(key=lambda other: other.object.get("status", {}).get("startTime") or "~")
    lower.sort(key=lambda other: other.priority, reverse=True)
    lower.sort(key=lambda other: other.uid not in protected)
    victims = []
    for other in lower:
        trial.add(other)
        if check(World(pod, around), trial) is not None:
            trial.remove(other.uid)
            victims.append(other)
    return victims
