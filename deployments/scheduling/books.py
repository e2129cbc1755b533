"""Quota and nodes together: what a claim needs on both sides, tried and booked as one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

from .claims import AdmissionPolicy, Claim, Grant, Running, Snapshot
from .fleet import Fleet, Placement
from .options import Policy
from .placement import Placer
from .quota import QuotaTree
from .shapes import NodeSpec, Shape, fits_empty
from .trial import choose
from .value import PilothousePolicy
from .workload import Workload

NO_PRODUCT = frozenset({"no product"})
"""Of a claim that accepts none of a flavor's products."""


@dataclass(frozen=True, slots=True)
class Block:
    """What stands in the way for one flavor: `code` is 'quota' or 'capacity'; `short` is how much quota lacks."""

    code: str
    flavor: str
    short: int = 0


class Books:
    """Free quota and free nodes of a snapshot, changed by `book` and `release`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.policy: AdmissionPolicy = snapshot.policy
        self.flavors = {flavor.name: flavor for flavor in self.policy.flavors}
        self.tree = QuotaTree(self.policy.owners)
        self.held: dict[tuple[str, str], int] = {}
        self.placer = self._placer() if snapshot.nodes is not None else None
        self._kinds: list[tuple[NodeSpec, int]] | None = None
        self._cant_quota: dict[tuple[str, str], int] = {}
        self._cant_place: dict[tuple[Shape, str], int] = {}
        for running in snapshot.running:
            self.tree.take(running.claim.project, running.flavor, running.claim.demand)

    def _placer(self) -> Placer:
        nodes = self.snapshot.nodes or ()
        fleet = Fleet(nodes)
        held = [p for running in self.snapshot.running for p in running.placements]
        for placement in [*held, *self.snapshot.foreign]:
            if not 0 <= placement.node < len(nodes):
                continue  # its node has vanished: it holds quota, but no place
            if fleet.fits(placement):
                fleet.occupy(placement)
            else:
                for node in fleet.siblings(placement.node):
                    fleet.close(node)
        wanted = {self.shape(claim, flavor) for claim in self.snapshot.waiting for flavor in claim.flavors}
        seen = [claim.shape for claim in self.snapshot.waiting] + [r.claim.shape for r in self.snapshot.running]
        history = self.snapshot.workload
        if history is not None:
            policy = _tried_policy(history, nodes)
        else:
            capacity: Counter[str] = Counter()
            for spec in nodes:
                capacity[spec.model] += spec.gpus
            policy = _usual_policy(Workload.of(seen) if seen else None, tuple(sorted(capacity.items())))
        return Placer(fleet, policy, sorted(wanted, key=lambda shape: shape.sort_key))

    def shape(self, claim: Claim, flavor: str) -> Shape:
        """The claim's shape bound to the products of that flavor."""
        known = self.flavors.get(flavor)
        if known is None or not claim.shape.gpus or not known.models:
            return claim.shape
        models = known.models & claim.shape.models if claim.shape.models else known.models
        # No product at all would mean any.
        return replace(claim.shape, models=models or NO_PRODUCT)

    def node_kinds(self, shape: Shape) -> list[tuple[NodeSpec, int]]:
        """Kinds of nodes with an admissible product, one node for each, and how many there are."""
        if self._kinds is None:
            examples: dict[tuple[object, ...], NodeSpec] = {}
            counts: Counter[tuple[object, ...]] = Counter()
            for node in self.snapshot.nodes or ():
                kind = (node.cpu_milli, node.memory_mib, node.gpus, node.model, node.unhealthy)
                examples.setdefault(kind, node)
                counts[kind] += 1
            self._kinds = [(examples[kind], count) for kind, count in counts.items()]
        return [(node, n) for node, n in self._kinds if not shape.models or node.model in shape.models]

    def available(self, claim: Claim, flavor: str) -> int:
        """Quota the claim may draw on; what held claims wait for is not lent to borrowers."""
        tree = self.tree
        free = tree.available(claim.project, flavor)
        if not tree.fits_nominal(claim.project, flavor, claim.demand):
            free -= self.held.get((tree.path(claim.project)[-1], flavor), 0)
        return free

    def try_book(self, claim: Claim, flavor: str) -> Grant | Block:
        """Book the claim if quota and nodes allow it now; otherwise say what blocks it and change nothing."""
        demand = claim.demand
        if demand >= self._cant_quota.get((claim.project, flavor), demand + 1):
            return Block("quota", flavor, demand - self.available(claim, flavor))
        short = demand - self.available(claim, flavor)
        if short > 0:
            self._cant_quota[claim.project, flavor] = demand
            return Block("quota", flavor, short)
        placements = self.try_place(claim, flavor)
        if placements is None:
            return Block("capacity", flavor)
        self.tree.take(claim.project, flavor, demand)
        return Grant(claim, flavor, placements)

    def try_place(self, claim: Claim, flavor: str) -> tuple[Placement, ...] | None:
        """Book nodes only; all instances or none."""
        if self.placer is None:
            return ()
        shape = self.shape(claim, flavor)
        if claim.count >= self._cant_place.get((shape, flavor), claim.count + 1):
            return None
        placements = self.placer.place_all(shape, claim.count)
        if placements is None:
            self._cant_place[shape, flavor] = claim.count
            return None
        return tuple(placements)

    def book(self, grant: Grant) -> bool:
        """Book a place chosen before; False and no change if it is not free any more."""
        for done, placement in enumerate(grant.placements):
            if self.placer is None or not self.placer.fleet.fits(placement):
                for earlier in grant.placements[:done]:
                    self.unplace(earlier)
                return False
            self.placer.occupy(placement)
        self.tree.take(grant.claim.project, grant.flavor, grant.claim.demand)
        return True

    def unbook(self, grant: Grant) -> None:
        """The reverse of `book` and of a successful `try_book`."""
        for placement in grant.placements:
            self.unplace(placement)
        self.tree.give_back(grant.claim.project, grant.flavor, grant.claim.demand)
        self.forget()

    def release(self, running: Running) -> None:
        """Take a running claim out of the books."""
        self.tree.give_back(running.claim.project, running.flavor, running.claim.demand)
        for placement in self.known(running):
            self.unplace(placement)
        self.forget()

    def restore(self, running: Running) -> bool:
        """Put back a running claim that was released; False and no change if it does not fit any more."""
        return self.book(Grant(running.claim, running.flavor, self.known(running)))

    def known(self, running: Running) -> tuple[Placement, ...]:
        """Its placements on nodes that exist and were not closed: those the books count."""
        if self.placer is None:
            return ()
        fleet = self.placer.fleet
        return tuple(p for p in running.placements if fleet.is_open(p.node))

    def unplace(self, placement: Placement) -> None:
        if self.placer is not None:
            self.placer.release(placement)

    def forget(self) -> None:
        """Something was released: what did not fit before may fit now."""
        self._cant_quota.clear()
        self._cant_place.clear()

    def hold(self, claim: Claim, flavor: str) -> None:
        """Keep what frees up for this claim: borrowers behind it get neither its quota nor its nodes."""
        root = self.tree.path(claim.project)[-1]
        self.held[root, flavor] = self.held.get((root, flavor), 0) + claim.demand
        if self.placer is None:
            return
        fleet, shape = self.placer.fleet, self.shape(claim, flavor)
        hosts = [i for i, node in enumerate(fleet.nodes) if fits_empty(shape, node)]
        hosts.sort(key=lambda node: -sum(fleet.devices(node)))
        left = claim.count
        for node in hosts:
            if left <= 0:
                break
            left -= most_on(shape, fleet.nodes[node])
            self.placer.close(node)


# Prices of a workload take some time to find and hold for every pass until history is looked at anew.


@lru_cache(maxsize=16)
def _usual_policy(workload: Workload | None, capacity: tuple[tuple[str, int], ...]) -> Policy:
    return PilothousePolicy(workload, dict(capacity))


@lru_cache(maxsize=16)
def _tried_policy(workload: Workload, nodes: tuple[NodeSpec, ...]) -> Policy:
    return choose(workload, nodes)


def most_on(shape: Shape, node: NodeSpec) -> int:
    """How many instances of `shape` fit on `node` when it is empty."""
    if not fits_empty(shape, node):
        return 0
    limits = [10**9]
    if shape.cpu_milli:
        limits.append(node.cpu_milli // shape.cpu_milli)
    if shape.memory_mib:
        limits.append(node.memory_mib // shape.memory_mib)
    if shape.gpus:
        devices = node.gpus - len(node.unhealthy)
        limits.append(devices * (1000 // shape.gpu_milli) // shape.gpus)
    return min(limits)
