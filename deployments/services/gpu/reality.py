"""Claims brought in line with the cluster: what really runs where decides, and what was lost is asked for anew."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.models import GpuClaim, GpuNode
from deployments.services.gpu.fleet import Place
from kube import specs
from kube.objects import condition, labels_of
from kube.parsing import requests_of

State = GpuClaim.State
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """A pod that takes resources of a node: it is bound there, or was sent there and waits to be."""

    namespace: str
    name: str
    node: str
    version_id: str = ""
    bound: bool = True
    deleting: bool = False
    ready: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def held_by(pods: Iterable[dict[str, Any]]) -> list[Held]:
    """Pods that are bound to a node, or that we sent to one; those that have ended are left out."""
    found = []
    for pod in pods:
        metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        if status.get("phase") in ("Succeeded", "Failed"):
            continue
        labels = labels_of(pod)
        ours = labels.get(specs.MANAGED_BY) == specs.MANAGER
        sent = (metadata.get("annotations") or {}).get(specs.NODE, "") if ours else ""
        node = spec.get("nodeName") or sent
        if not node:
            continue
        found.append(
            Held(
                metadata.get("namespace", ""),
                metadata["name"],
                node,
                labels.get(specs.VERSION_ID, "") if ours else "",
                bound=bool(spec.get("nodeName")),
                deleting=bool(metadata.get("deletionTimestamp")),
                ready=condition(pod, "Ready").get("status") == "True",
                resources=requests_of(pod),
                labels=labels,
            )
        )
    return found


@dataclass(slots=True)
class Verdict:
    """What the cluster says of the claims. ``lost`` maps a claim's id to (its places that are gone, why)."""

    lost: dict[str, tuple[list[Place], str]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    """Displaced claims of which no pod is left."""
    moved: set[str] = field(default_factory=set)


def reconcile(
    claims: list[GpuClaim], pods: list[Held], nodes: list[GpuNode], cluster: str, resources: Mapping[str, str]
) -> Verdict:
    """Move claims' places to where their pods are, and find those that are lost; writes to ``claims`` and ``nodes``.

    ``resources`` maps flavors to extended resources. On ``nodes`` and their pools what no claim stands for is
    written down as foreign.
    """
    verdict = Verdict()
    known = {node.name: node for node in nodes if node.cluster == cluster and node.gone_at is None}
    gone = {(node.cluster, node.name) for node in nodes if node.gone_at is not None}
    by_version: dict[str, list[Held]] = {}
    for pod in pods:
        if pod.version_id:
            by_version.setdefault(pod.version_id, []).append(pod)
    for version_id, holders in _by_version(claims).items():
        mine = by_version.get(version_id, [])
        for claim in holders:
            if claim.state != State.PLACED and not any(pod.node in _nodes_of(claim, cluster) for pod in mine):
                verdict.ended.add(str(claim.pk))
        _follow(holders, mine, known, cluster, resources, verdict)
    _foreign(claims, pods, known, cluster, resources)
    _losses(claims, by_version, known, gone, cluster, resources, verdict)
    return verdict


def _by_version(claims: list[GpuClaim]) -> dict[str, list[GpuClaim]]:
    found: dict[str, list[GpuClaim]] = {}
    for claim in claims:
        if claim.nodes:
            found.setdefault(str(claim.version_id or ""), []).append(claim)
    return found


def _nodes_of(claim: GpuClaim, cluster: str) -> list[str]:
    return [node for where, node in claim.nodes if where == cluster]


def _follow(
    holders: list[GpuClaim],
    pods: list[Held],
    known: Mapping[str, GpuNode],
    cluster: str,
    resources: Mapping[str, str],
    verdict: Verdict,
) -> None:
    """The scheduler's verdict wins: a pod that is bound elsewhere takes a place of its version with it."""
    placed = [claim for claim in holders if claim.state == State.PLACED]
    free = Counter(node for claim in placed for node in _nodes_of(claim, cluster))
    going = Counter(node for claim in holders if claim.state != State.PLACED for node in _nodes_of(claim, cluster))
    stray = []
    for pod in pods:
        if pod.deleting:
            continue
        if free[pod.node] > 0:
            free[pod.node] -= 1
        elif going[pod.node] > 0:
            going[pod.node] -= 1  # of a displaced claim, which has not ended yet
        elif pod.bound:
            stray.append(pod)
    for pod in stray:
        node = known.get(pod.node)
        if node is None:
            continue
        offered = {pool.resource for pool in node.pools.all()}
        for claim in placed:
            spare = [n for n in _nodes_of(claim, cluster) if free[n] > 0]
            if spare and resources.get(claim.flavor) in offered:
                claim.nodes[claim.nodes.index([cluster, spare[0]])] = [cluster, pod.node]
                free[spare[0]] -= 1
                verdict.moved.add(str(claim.pk))
                break


def _foreign(
    claims: list[GpuClaim], pods: list[Held], known: Mapping[str, GpuNode], cluster: str, resources: Mapping[str, str]
) -> None:
    """Per node and pool what is taken beyond the claims."""
    total: dict[str, defaultdict[str, float]] = {name: defaultdict(float) for name in known}
    places: Counter[tuple[str, str]] = Counter(
        (str(claim.version_id or ""), node) for claim in claims for node in _nodes_of(claim, cluster)
    )
    alive: Counter[tuple[str, str]] = Counter()
    dying: Counter[tuple[str, str]] = Counter()
    for pod in pods:
        if pod.node not in total:
            continue
        key = (pod.version_id, pod.node)
        if pod.version_id:
            # A pod that ends and its successor on the same node share one place.
            line = dying if pod.deleting else alive
            line[key] += 1
            if line[key] <= places[key]:
                continue
        if pod.bound:
            for name, value in pod.resources.items():
                total[pod.node][name] += value
    for name, node in known.items():
        taken = total[name]
        node.foreign_cpu_milli = round(taken["cpu"] * 1000)
        node.foreign_memory_mib = -int(-taken["memory"] // MIB)
        for pool in node.pools.all():
            pool.foreign = int(taken[pool.resource])


def _losses(
    claims: list[GpuClaim],
    by_version: Mapping[str, list[Held]],
    known: Mapping[str, GpuNode],
    gone: set[Place],
    cluster: str,
    resources: Mapping[str, str],
    verdict: Verdict,
) -> None:
    """Places on nodes that are gone, or that others took before the pod came. Running pods are left alone."""
    bound: Counter[tuple[str, str]] = Counter(
        (version, pod.node) for version, pods in by_version.items() for pod in pods if pod.bound
    )
    pools = {(name, pool.resource): pool for name, node in known.items() for pool in node.pools.all()}
    wanted: Counter[tuple[str, str]] = Counter()
    unbound: dict[tuple[str, str], list[tuple[GpuClaim, Place]]] = {}
    for claim in claims:
        if claim.state != State.PLACED:
            continue
        resource = resources.get(claim.flavor, "")
        for where, name in claim.nodes:
            if (where, name) in gone or (where == cluster and (name, resource) not in pools):
                _lose(verdict, claim, (where, name), f"Node {name} is gone.")
                continue
            if where != cluster:
                continue
            wanted[name, resource] += claim.devices
            key = (str(claim.version_id or ""), name)
            if bound[key] > 0:
                bound[key] -= 1
            else:
                unbound.setdefault((name, resource), []).append((claim, (where, name)))
    for (name, resource), waiting in unbound.items():
        pool, node = pools[name, resource], known[name]
        closed = not node.ready or not node.schedulable
        short = wanted[name, resource] + pool.foreign - min(pool.allocatable, pool.capacity)
        for claim, place in reversed(waiting):
            if closed:
                _lose(verdict, claim, place, f"Node {name} takes no new instances.")
            elif short > 0:
                _lose(verdict, claim, place, f"The devices of node {name} were taken by others, or failed.")
                short -= claim.devices


def _lose(verdict: Verdict, claim: GpuClaim, place: Place, why: str) -> None:
    places, _ = verdict.lost.setdefault(str(claim.pk), ([], why))
    places.append(place)


def protected(claims: list[GpuClaim], pods: list[Held], budgets: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Ids of claims of which a PodDisruptionBudget lets no pod, or not all pods, go now."""
    found: set[str] = set()
    mine = _running(pods)
    for budget in budgets:
        for claim in claims:
            covered = _covered(budget, mine.get(str(claim.version_id), ()))
            if covered and min(covered, claim.instances) > _allowed(budget):
                found.add(str(claim.pk))
    return frozenset(found)


def spared(version_id: str, pods: list[Held], budgets: Iterable[Mapping[str, Any]]) -> bool:
    """Whether every PodDisruptionBudget lets one pod of the version go now."""
    mine = _running(pods).get(version_id, [])
    return all(_allowed(budget) > 0 for budget in budgets if _covered(budget, mine))


def _running(pods: list[Held]) -> dict[str, list[Held]]:
    mine: dict[str, list[Held]] = {}
    for pod in pods:
        if pod.version_id and pod.bound and not pod.deleting:
            mine.setdefault(pod.version_id, []).append(pod)
    return mine


def _covered(budget: Mapping[str, Any], pods: Iterable[Held]) -> int:
    """How many of the pods a budget is about."""
    namespace, selector = budget["metadata"].get("namespace", ""), (budget.get("spec") or {}).get("selector")
    if selector is None:
        return 0
    return sum(pod.namespace == namespace and selected(selector, pod.labels) for pod in pods)


def _allowed(budget: Mapping[str, Any]) -> int:
    return int((budget.get("status") or {}).get("disruptionsAllowed", 0))


def selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector chooses an object with these labels; an empty one chooses all."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        value, values = labels.get(rule["key"]), rule.get("values") or ()
        match rule["operator"]:
            case "In":
                holds = value in values
            case "NotIn":
                holds = value not in values
            case "Exists":
                holds = value is not None
            case _:
                holds = value is None
        if not holds:
            return False
    return True
