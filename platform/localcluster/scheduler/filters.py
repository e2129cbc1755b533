"""Which nodes can run a pod, and why the others cannot: pure functions in the words of kube-scheduler.

Filters run in a fixed order and the first that fails hides the rest. A reason is `final` when removing other
pods would not help (UnschedulableAndUnresolvable). Source: kubernetes pkg/scheduler/framework/plugins.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from localcluster.client import Object
from localcluster.pods import matches_expression
from localcluster.scheduler.world import NodeInfo, PodInfo, World

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node does not fit; `final` when preemption could not help."""

    reasons: tuple[str, ...]
    final: bool


def _final(reason: str) -> Refusal:
    return Refusal((reason,), True)


def check(world: World, info: NodeInfo) -> Refusal | None:
    """None when the world's pod fits on the node."""
    pod = world.pod
    for rule in (_cordon, _name, _taints, _node_affinity, _ports, _fit):
        refusal = rule(pod, info)
        if refusal is not None:
            return refusal
    if pod.spread:
        refusal = _spread(world, info)
        if refusal is not None:
            return refusal
    return _pod_affinity(world, info)


def _cordon(pod: PodInfo, info: NodeInfo) -> Refusal | None:
    if not info.spec.get("unschedulable"):
        return None
    taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    return None if tolerates(pod, taint) else _final("node(s) were unschedulable")


def _name(pod: PodInfo, info: NodeInfo) -> Refusal | None:
    wanted = pod.spec.get("nodeName")
    if wanted and wanted != info.name:
        return _final("node(s) didn't match the requested node name")
    return None


def tolerates(pod: PodInfo, taint: Object) -> bool:
    """Whether one of the pod's tolerations covers the taint."""
    for entry in pod.spec.get("tolerations") or []:
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


def _taints(pod: PodInfo, info: NodeInfo) -> Refusal | None:
    for taint in info.spec.get("taints") or ():
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


def node_is_eligible(pod: PodInfo, info: NodeInfo) -> bool:
    """Whether the pod's node selector and its required node affinity choose the node."""
    if not pod.node_selector.items() <= info.labels.items():
        return False
    terms = pod.node_terms
    return terms is None or any(node_term_matches(term, info) for term in terms)


def _node_affinity(pod: PodInfo, info: NodeInfo) -> Refusal | None:
    return None if node_is_eligible(pod, info) else _final("node(s) didn't match Pod's node affinity/selector")


def _ports(pod: PodInfo, info: NodeInfo) -> Refusal | None:
    if any(info.host_ports[port] for port in pod.host_ports):
        return Refusal(("node(s) didn't have free ports for the requested pod ports",), False)
    return None


def _fit(pod: PodInfo, info: NodeInfo) -> Refusal | None:
    reasons, final = [], False
    room = info.allocatable.get("pods", 0)
    if len(info.pods) + 1 > room:
        reasons.append("Too many pods")
        final = final or room < 1
    for name, amount in pod.requests.items():
        capacity = info.allocatable.get(name, 0)
        if amount > 0 and amount > capacity - info.requested.get(name, 0):
            reasons.append(f"Insufficient {name}")
            final = final or amount > capacity
    return Refusal(tuple(reasons), final) if reasons else None


def _pod_affinity(world: World, info: NodeInfo) -> Refusal | None:
    pod, labels = world.pod, info.labels
    for term in pod.affinity:
        key, places = term["topologyKey"], world.chosen(term)
        if key in labels and places[labels[key]]:
            continue
        # The first pod of a group that wants to be with itself may go anywhere.
        alone = not places and pod.is_chosen_by(term, pod)
        if not (key in labels and alone):
            return _final("node(s) didn't match pod affinity rules")
    for term in pod.anti_affinity:
        key = term["topologyKey"]
        if key in labels and world.chosen(term)[labels[key]]:
            return Refusal(("node(s) didn't match pod anti-affinity rules",), False)
    for key, guarded in world.guarded.items():
        if labels.get(key) in guarded:
            return Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",), False)
    return None


def _spread(world: World, info: NodeInfo) -> Refusal | None:
    for rule in world.pod.spread:
        key = rule["topologyKey"]
        if key not in info.labels:
            return _final("node(s) didn't match pod topology spread constraints (missing required label)")
        counts = world.spread(rule, node_is_eligible)
        own = int(world.pod.has_labels(rule.get("labelSelector")))
        if counts[info.labels[key]] + own - min(counts.values(), default=0) > rule.get("maxSkew", 1):
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
