"""What scheduling a pod looks at again and again: nodes with sums kept by every change, a pod and its wishes.

Nothing here decides; the rules are in `filters` and `placement`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from localcluster.client import Object
from localcluster.pods import controller_of, matches
from localcluster.scheduler.resources import Amounts, amounts, pod_requests

Place = str | None


class PodInfo:
    """A pod, and what rules ask of it for every node, worked out once."""

    def __init__(self, pod: Object) -> None:
        self.object = pod
        self.spec: Object = pod["spec"]

    @property
    def uid(self) -> str:
        return self.object["metadata"]["uid"]

    @property
    def namespace(self) -> str | None:
        return self.object["metadata"].get("namespace")

    @property
    def priority(self) -> int:
        return self.spec.get("priority") or 0

    @cached_property
    def requests(self) -> Amounts:
        return pod_requests(self.object)

    @cached_property
    def owner(self) -> str | None:
        """The uid of the controlling owner."""
        reference = controller_of(self.object)
        return reference["uid"] if reference else None

    @cached_property
    def host_ports(self) -> frozenset[tuple[str, int]]:
        return frozenset(
            (port.get("protocol") or "TCP", port["hostPort"])
            for container in self.spec["containers"]
            for port in container.get("ports") or []
            if port.get("hostPort")
        )

    @cached_property
    def node_selector(self) -> dict[str, str]:
        return self.spec.get("nodeSelector") or {}

    @cached_property
    def node_terms(self) -> list[Object] | None:
        """The node selector terms of the required node affinity, None without one."""
        required = self._affinity("nodeAffinity").get("requiredDuringSchedulingIgnoredDuringExecution")
        return (required.get("nodeSelectorTerms") or []) if required else None

    @cached_property
    def preferred_nodes(self) -> list[Object]:
        """Weighted terms of the preferred node affinity."""
        return self._affinity("nodeAffinity").get("preferredDuringSchedulingIgnoredDuringExecution") or []

    @cached_property
    def affinity(self) -> list[Object]:
        """Required terms: only beside pods that they choose."""
        return self._affinity("podAffinity").get("requiredDuringSchedulingIgnoredDuringExecution") or []

    @cached_property
    def anti_affinity(self) -> list[Object]:
        """Required terms: not beside pods that they choose."""
        return self._affinity("podAntiAffinity").get("requiredDuringSchedulingIgnoredDuringExecution") or []

    @cached_property
    def spread(self) -> list[Object]:
        """The topology spread constraints that must be kept."""
        rules = self.spec.get("topologySpreadConstraints") or []
        return [rule for rule in rules if rule.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]

    def _affinity(self, kind: str) -> Object:
        return (self.spec.get("affinity") or {}).get(kind) or {}

    def has_labels(self, selector: Object | None) -> bool:
        return matches(selector, self.object["metadata"].get("labels"))

    def is_chosen_by(self, term: Object, owner: PodInfo) -> bool:
        """Whether an affinity term of `owner` is about this pod."""
        namespaces = term.get("namespaces")
        if not namespaces and term.get("namespaceSelector") is None:
            namespaces = [owner.namespace]
        if namespaces and self.namespace not in namespaces:
            return False
        return self.has_labels(term.get("labelSelector"))


class NodeInfo:
    """A node and the pods that occupy it, with sums that follow every pod that comes and goes."""

    def __init__(self, node: Object) -> None:
        self.requested: Amounts = {}
        self.pods: dict[str, PodInfo] = {}
        self.owners: Counter[str] = Counter()
        self.host_ports: Counter[tuple[str, int]] = Counter()
        self.guards: dict[str, PodInfo] = {}
        self.update(node)

    def update(self, node: Object) -> None:
        self.node = node
        self.name: str = node["metadata"]["name"]
        self.labels: dict[str, str] = node["metadata"].get("labels") or {}
        self.spec: Object = node.get("spec") or {}
        self.allocatable = amounts(node.get("status", {}).get("allocatable"))

    def add(self, pod: PodInfo) -> None:
        self.remove(pod.uid)
        self.pods[pod.uid] = pod
        self._count(pod, 1)
        if pod.anti_affinity:
            self.guards[pod.uid] = pod

    def remove(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self._count(pod, -1)
            self.guards.pop(uid, None)

    def _count(self, pod: PodInfo, sign: int) -> None:
        for name, amount in pod.requests.items():
            self.requested[name] = self.requested.get(name, 0) + sign * amount
        counts: tuple[tuple[Counter[Any], Iterable[Any]], ...] = (
            (self.owners, (pod.owner,) if pod.owner else ()),
            (self.host_ports, pod.host_ports),
        )
        for counter, keys in counts:
            for key in keys:
                counter[key] += sign
                if not counter[key]:
                    del counter[key]

    def copy(self) -> NodeInfo:
        made = NodeInfo(self.node)
        made.requested, made.pods = dict(self.requested), dict(self.pods)
        made.owners, made.host_ports, made.guards = self.owners.copy(), self.host_ports.copy(), dict(self.guards)
        return made


class World:
    """All nodes at one moment as one pod sees them: where the pods are that its rules, or theirs, are about."""

    def __init__(self, pod: PodInfo, nodes: Iterable[NodeInfo]) -> None:
        self.pod = pod
        self.nodes = list(nodes)
        self._chosen: dict[int, Counter[Place]] = {}
        self._spread: dict[int, Counter[str]] = {}

    def chosen(self, term: Object) -> Counter[Place]:
        """How many pods an affinity term of this pod chooses, by the value of its topology key (None: without)."""
        if id(term) not in self._chosen:
            places: Counter[Place] = Counter()
            for node in self.nodes:
                count = sum(other.is_chosen_by(term, self.pod) for other in node.pods.values())
                if count:
                    places[node.labels.get(term["topologyKey"])] += count
            self._chosen[id(term)] = places
        return self._chosen[id(term)]

    @cached_property
    def guarded(self) -> dict[str, set[str]]:
        """By topology key the values where pods run that do not want this one beside them."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            for other in node.guards.values():
                for term in other.anti_affinity:
                    place = node.labels.get(term["topologyKey"])
                    if place is not None and self.pod.is_chosen_by(term, other):
                        found.setdefault(term["topologyKey"], set()).add(place)
        return found

    def spread(self, rule: Object, is_eligible: Callable[[PodInfo, NodeInfo], bool]) -> Counter[str]:
        """How many pods a spread constraint counts on nodes that may take the pod, by topology value."""
        if id(rule) not in self._spread:
            key, counts = rule["topologyKey"], Counter[str]()
            for node in self.nodes:
                if key in node.labels and is_eligible(self.pod, node):
                    counts[node.labels[key]] += sum(
                        other.namespace == self.pod.namespace and other.has_labels(rule.get("labelSelector"))
                        for other in node.pods.values()
                    )
            self._spread[id(rule)] = counts
        return self._spread[id(rule)]
