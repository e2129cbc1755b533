"""What people do with claims: taking idle devices back, and moving instances so that a larger slice is free."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from accounts import access, audit
from accounts.access import AnyUser, Permission
from accounts.errors import Conflict, NotFound
from accounts.models import User
from deployments import triggers
from deployments.models import DeploymentVersion, GpuClaim, Rollout
from deployments.scheduling.books import Books
from deployments.scheduling.fleet import Placement
from deployments.services import intent
from deployments.services.gpu import board, gate, idle
from deployments.services.gpu import claims as claims_of
from deployments.services.gpu import snapshot as snapshots

State = GpuClaim.State
MAX_NODES_TRIED = 30
"""Nodes that advice tries to empty, those with the least on them first."""


@transaction.atomic
def release(actor: User, version: DeploymentVersion) -> int:
    """Take a version's devices until its next request; how many. Raises Conflict when it holds none."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    gate.wait_for_pass()
    held = list(GpuClaim.objects.filter(version=version, state=State.PLACED, ended_at=None, devices__gt=0))
    if not held:
        raise Conflict(f"Version '{version}' holds no devices; nothing to take back")
    now = timezone.now()
    for claim in held:
        idle.let_go(claim, f"{actor} took its devices back while it was idle.", now)
        claim.save()
    devices = sum(claim.demand for claim in held)
    audit.record(
        actor, "release", version, project=version.deployment.project, old={"devices": devices}, new={"devices": 0}
    )
    transaction.on_commit(lambda: triggers.wake(version.pk) and None)
    intent.schedule_gpus_later()
    return devices


def find_version(user: AnyUser, claim_id: str) -> DeploymentVersion:
    """The version of a claim that the user may see. Raises NotFound."""
    claim = GpuClaim.objects.select_related("version__deployment__project").filter(pk=claim_id).first()
    if claim is None or claim.version is None or not access.can(user, Permission.PROJECT_VIEW, claim.project):
        raise NotFound("Claim", claim_id)
    return claim.version


# -- defragmentation --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """One instance from a node to another: a second one starts there before the first ends."""

    claim: GpuClaim
    source: tuple[str, str]
    target: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Advice:
    """Moves that make the largest free slice of a flavor grow from ``before`` to ``after`` devices."""

    flavor: str
    before: int
    after: int
    node: str
    moves: tuple[Move, ...]

    @property
    def token(self) -> str:
        """Tells this advice from another, so that what is carried out is what was shown."""
        told = [self.flavor, self.after, [[str(m.claim.pk), *m.source, *m.target] for m in self.moves]]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def advise(world: snapshots.World, flavor: str) -> Advice | None:
    """The moves that free the largest slice of a flavor; None when no move helps. Nothing is changed.

    Only versions with one instance are moved: of those a second instance takes over without a gap.
    """
    found = board.shelves(world)
    offered = {n: shelf for n, shelf in enumerate(found) if flavor in shelf.flavors and shelf.open}
    before = max((shelf.free for shelf in offered.values()), default=0)
    movable = _movable(world)
    best: Advice | None = None
    candidates = sorted(offered, key=lambda n: (len({_claim_id(d) for d in offered[n].devices}), n))[:MAX_NODES_TRIED]
    view = snapshots.snapshot(world, [])
    for number in candidates:
        shelf = offered[number]
        here = {device.claim.pk: device.claim for device in shelf.devices if device.claim is not None}
        going = [claim for claim in here.values() if claim.pk in movable]
        after = shelf.free + sum(claim.devices for claim in going)
        if not going or after <= before or (best is not None and after <= best.after):
            continue
        moves = _try(world, Books(view), number, going, flavor)
        if moves is not None:
            best = Advice(flavor, before, after, shelf.pool.node.name, moves)
    return best


def _claim_id(device: board.Device) -> str:
    return str(device.claim.pk) if device.claim is not None else device.kind


def _movable(world: snapshots.World) -> set[object]:
    count: dict[object, int] = {}
    for claim in world.claims:
        count[claim.version_id] = count.get(claim.version_id, 0) + len(claim.nodes)
    rolling = set(
        Rollout.objects.filter(version__in=[key for key in count if key], state=Rollout.State.IN_PROGRESS).values_list(
            "version", flat=True
        )
    )
    return {
        claim.pk
        for claim in world.claims
        if claim.state == State.PLACED and count[claim.version_id] == 1 and claim.version_id not in rolling
    }


def _try(
    world: snapshots.World, books: Books, number: int, going: Iterable[GpuClaim], flavor: str
) -> tuple[Move, ...] | None:
    """Where those on a node would go when nothing more may be put there; None if not all find a place."""
    assert books.placer is not None
    books.placer.close(number)
    pools = world.supply.pools
    source = (pools[number].node.cluster, pools[number].node.name)
    moves = []
    for claim in sorted(going, key=lambda claim: (-claim.devices, str(claim.pk))):
        planned = snapshots.planner_claim(world, claim)
        placement: Placement | None = books.placer.place(books.shape(planned, flavor))
        if placement is None:
            return None
        node = pools[placement.node].node
        moves.append(Move(claim, source, (node.cluster, node.name)))
    return tuple(moves)


@transaction.atomic
def defragment(actor: User, flavor: str, token: str) -> Advice:
    """Carry out advice that was shown: each instance is started at its new place before the old one ends.

    Raises Conflict when the advice is not what it was: something changed meanwhile.
    """
    gate.require_platform(actor)
    gate.wait_for_pass()
    now = timezone.now()
    world = snapshots.load(now)
    advice = advise(world, flavor)
    if advice is None or advice.token != token:
        raise Conflict("Something changed since this advice was made; look at it again")
    for move in advice.moves:
        assert move.claim.version is not None
        version = intent.lock(move.claim.version)
        rollout = intent.roll_out(version, actor, Rollout.Cause.RESTART, restarted_at=now)
        if rollout is None:
            continue
        Rollout.objects.filter(pk=rollout.pk).update(strategy=Rollout.Strategy.SURGE, expected_gap=0)
        surge = GpuClaim(
            project=move.claim.project,
            version=version,
            label=move.claim.label,
            part=GpuClaim.SURGE,
            instances=1,
            priority=move.claim.priority,
            state=State.PLACED,
            flavor=flavor,
            nodes=[list(move.target)],
            created_at=now,
            placed_at=now,
            first_placed_at=now,
        )
        assert move.claim.instance_type is not None
        claims_of.set_kind(surge, move.claim.instance_type, world.supply)
        surge.save()
        told = {"node": move.source[1]}, {"node": move.target[1]}
        audit.record(actor, "move", version, project=version.deployment.project, old=told[0], new=told[1])
    return advice
