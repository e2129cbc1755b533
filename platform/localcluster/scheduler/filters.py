"""Which nodes can run a pod, and why the others cannot: pure functions in the words of kube-scheduler.

Filters run in a fixed order and the first that fails hides the rest. A reason is `final` when removing other
pods would not help (UnschedulableAndUnresolvable). Source: kubernetes pkg/scheduler/framework/plugins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from localcluster.client import Object
from localcluster.controllers.pods import matches, matches_expression
from localcluster.scheduler.resources import Amounts, amounts, pod_requests

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"


@dataclass(slots=True)
class NodeInfo:
    """A node and the pods that occupy it."""

    node: Object
    allocatable: Amounts = field(default_factory=dict)
    requested: Amounts = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Object) -> NodeInfo:
        info = cls(node)
        info.update(node)
        return info

    @property
    def name(self) -> str:
        return self.node["metadata"]["name"]

    @property
    def labels(self) -> dict[str, str]:
        return self.node["metadata"].get("labels") or {}

    def update(self, node: Object) -> None:
        self.node = node
        self.allocatable = amounts(node.get("status", {}).get("allocatable"))

    def add(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        self.remove(uid)
        self.pods[uid] = pod
        for name, amount in pod_requests(pod).items():
            self.requested[name] = self.requested.get(name, 0) + amount

    def remove(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            for name, amount in pod_requests(pod).items():
                self.requested[name] = self.requested.get(name, 0) - amount

    def copy(self) -> NodeInfo:
        return NodeInfo(self.node, self.allocatable, dict(self.requested), dict(self.pods))


class World:
    """All nodes at one moment, with what rules between pods look for in all of them."""

    def __init__(self, nodes: Iterable[NodeInfo]) -> None:
        self.nodes = list(nodes)

    @cached_property
    def guards(self) -> list[tuple[NodeInfo, Object, Object]]:
        """(node, pod, term) for every required anti-affinity term of a running pod."""
        return [
            (node, other, term)
            for node in self.nodes
            for other in node.pods.values()
            if other["spec"].get("affinity")
            for term in _terms(other, "podAntiAffinity")
        ]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node does not fit; `final` when preemption could not help."""

    reasons: tuple[str, ...]
    final: bool


def _final(reason: str) -> Refusal:
    return Refusal((reason,), True)


def check(pod: Object, info: NodeInfo, world: World) -> Refusal | None:
    """None when `pod` fits on the node."""
    for rule in (_cordon, _name, _taints, _node_affinity, _ports, _fit):
        refusal = rule(pod, info)
        if refusal is not None:
            return refusal
    if _spread_rules(pod):
        refusal = _spread(pod, info, world.nodes)
        if refusal is not None:
            return refusal
    return _pod_affinity(pod, info, world)


def _cordon(pod: Object, info: NodeInfo) -> Refusal | None:
    if not info.node.get("spec", {}).get("unschedulable"):
        return None
    taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    return None if tolerates(pod, taint) else _final("node(s) were unschedulable")


def _name(pod: Object, info: NodeInfo) -> Refusal | None:
    wanted = pod["spec"].get("nodeName")
    if wanted and wanted != info.name:
        return _final("node(s) didn't match the requested node name")
    return None


def tolerates(pod: Object, taint: Object) -> bool:
    """Whether one of the pod's tolerations covers the taint."""
    for entry in pod["spec"].get("tolerations") or []:
        if entry.get("effect") and entry["effect"] != taint["effect"]:
            continue
        key, operator = entry.get("key"), entry.get("operator") or "Equal"
        if not key and operator == "Exists":
            return True
        if key != taint["key"]:
            continue
        if operator == "Exists" or (entry.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def _taints(pod: Object, info: NodeInfo) -> Refusal | None:
    for taint in info.node.get("spec", {}).get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(pod, taint):
            return _final("node(s) had untolerated taint(s)")
    return None


def node_term_matches(term: Object, info: NodeInfo) -> bool:
    """One NodeSelectorTerm; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    names = {"metadata.name": info.name}
    return all(matches_expression(entry, info.labels) for entry in expressions) and all(
        matches_expression(entry, names) for entry in fields
    )


def _node_affinity(pod: Object, info: NodeInfo) -> Refusal | None:
    spec = pod["spec"]
    selector = spec.get("nodeSelector") or {}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    fits = selector.items() <= info.labels.items()
    if fits and required:
        fits = any(node_term_matches(term, info) for term in required.get("nodeSelectorTerms") or [])
    return None if fits else _final("node(s) didn't match Pod's node affinity/selector")


def _host_ports(pod: Object) -> set[tuple[str, int]]:
    return {
        (port.get("protocol") or "TCP", port["hostPort"])
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if port.get("hostPort")
    }


def _ports(pod: Object, info: NodeInfo) -> Refusal | None:
    wanted = _host_ports(pod)
    if wanted and any(wanted & _host_ports(other) for other in info.pods.values()):
        return Refusal(("node(s) didn't have free ports for the requested pod ports",), False)
    return None


def _fit(pod: Object, info: NodeInfo) -> Refusal | None:
    reasons, final = [], False
    room = info.allocatable.get("pods", 0)
    if len(info.pods) + 1 > room:
        reasons.append("Too many pods")
        final = final or room < 1
    for name, amount in pod_requests(pod).items():
        capacity = info.allocatable.get(name, 0)
        if amount > 0 and amount > capacity - info.requested.get(name, 0):
            reasons.append(f"Insufficient {name}")
            final = final or amount > capacity
    return Refusal(tuple(reasons), final) if reasons else None


def _terms(pod: Object, kind: str) -> list[Object]:
    affinity = (pod["spec"].get("affinity") or {}).get(kind) or {}
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []


def _term_chooses(term: Object, owner: Object, other: Object) -> bool:
    """Whether an affinity term of `owner` is about the pod `other`."""
    namespaces = term.get("namespaces")
    if not namespaces and term.get("namespaceSelector") is None:
        namespaces = [owner["metadata"].get("namespace")]
    if namespaces and other["metadata"].get("namespace") not in namespaces:
        return False
    return matches(term.get("labelSelector"), other["metadata"].get("labels"))


def _pod_affinity(pod: Object, info: NodeInfo, world: World) -> Refusal | None:
    affinity, anti = _terms(pod, "podAffinity"), _terms(pod, "podAntiAffinity")
    if not (affinity or anti or world.guards):
        return None
    nodes = world.nodes

    def neighbours(key: str) -> list[Object]:
        place = info.labels.get(key)
        if place is None:
            return []
        return [other for node in nodes if node.labels.get(key) == place for other in node.pods.values()]

    for term in affinity:
        key = term["topologyKey"]
        if key in info.labels and any(_term_chooses(term, pod, other) for other in neighbours(key)):
            continue
        # The first pod of a group that wants to be with itself may go anywhere.
        alone = not any(_term_chooses(term, pod, o) for node in nodes for o in node.pods.values())
        if not (key in info.labels and alone and _term_chooses(term, pod, pod)):
            return _final("node(s) didn't match pod affinity rules")
    for term in anti:
        if any(_term_chooses(term, pod, other) for other in neighbours(term["topologyKey"])):
            return Refusal(("node(s) didn't match pod anti-affinity rules",), False)
    for node, other, term in world.guards:
        key = term["topologyKey"]
        same = info.labels.get(key) is not None and info.labels.get(key) == node.labels.get(key)
        if same and _term_chooses(term, other, pod):
            return Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",), False)
    return None


def _spread_rules(pod: Object) -> list[Object]:
    rules = pod["spec"].get("topologySpreadConstraints") or []
    return [rule for rule in rules if rule.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]


def _spread(pod: Object, info: NodeInfo, nodes: list[NodeInfo]) -> Refusal | None:
    for rule in _spread_rules(pod):
        key = rule["topologyKey"]
        if key not in info.labels:
            return _final("node(s) didn't match pod topology spread constraints (missing required label)")
        counts: Counter[str] = Counter()
        for node in nodes:
            if key in node.labels and _node_affinity(pod, node) is None:
                counts[node.labels[key]] += sum(
                    matches(rule.get("labelSelector"), other["metadata"].get("labels"))
                    and other["metadata"].get("namespace") == pod["metadata"].get("namespace")
                    for other in node.pods.values()
                )
        own = int(matches(rule.get("labelSelector"), pod["metadata"].get("labels")))
        here = info.labels[key]
        if counts[here] + own - min(counts.values(), default=0) > rule.get("maxSkew", 1):
            return Refusal(("node(s) didn't match pod topology spread constraints",), False)
    return None


def missing_claim(pod: Object) -> str | None:
    """The name of a PersistentVolumeClaim that the pod wants; this cluster has none."""
    for volume in pod["spec"].get("volumes") or []:
        if volume.get("persistentVolumeClaim"):
            return volume["persistentVolumeClaim"]["claimName"]
    return None


def failure_message(refusals: dict[str, Refusal], preemption: str | None) -> str:
    """The FailedScheduling sentence; `preemption` tells what became of preempting, None when it succeeded."""
    if not refusals:
        return "no nodes available to schedule pods"
    reasons = Counter(reason for refusal in refusals.values() for reason in refusal.reasons)
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    message = f"0/{len(refusals)} nodes are available: {listed}."
    return f"{message} no new claims to deallocate, preemption: {preemption}" if preemption else message


def preemption_message(refusals: dict[str, Refusal]) -> str:
    """Why preempting other pods was of no use."""
    reasons: Counter[str] = Counter()
    for refusal in refusals.values():
        if refusal.final:
            reasons["Preemption is not helpful for scheduling"] += 1
        else:
            reasons["No preemption victims found for incoming pod"] += 1
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return f"0/{len(refusals)} nodes are available: {listed}."
