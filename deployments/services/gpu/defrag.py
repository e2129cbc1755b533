"""Moving instances so that a larger slice is free: advice, which is a dry run, and carrying it out."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from accounts import audit
from accounts.errors import Conflict
from accounts.models import User
from deployments import triggers
from deployments.models import GpuClaim, Rollout
from deployments.scheduling import defrag as planner
from deployments.scheduling.claims import Snapshot
from deployments.services import intent
from deployments.services.gpu import gate, moves
from deployments.services.gpu import snapshot as snapshots
from deployments.services.gpu.fleet import Place

State = GpuClaim.State


@dataclass(frozen=True, slots=True)
class Move:
    """One instance from a node to another: a further one starts there before that one ends."""

    claim: GpuClaim
    source: Place
    target: Place


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


def advise_all(world: snapshots.World, flavors: Iterable[str]) -> list[Advice]:
    """Advice for each flavor for which there is some."""
    view = _view(world)
    return [advice for flavor in flavors if (advice := _advise(world, view, flavor)) is not None]


def advise(world: snapshots.World, flavor: str) -> Advice | None:
    """The moves that free the largest slice of a flavor; None when no move helps, or some are under way. Changes
    nothing."""
    return _advise(world, _view(world), flavor)


def _advise(world: snapshots.World, view: Snapshot, flavor: str) -> Advice | None:
    if any(claim.is_move and claim.flavor == flavor for claim in world.claims):
        return None
    found = planner.advise(view, flavor)
    if found is None:
        return None
    rows = {str(claim.pk): claim for claim in world.claims}
    pools = world.supply.pools

    def place(number: int) -> Place:
        return pools[number].node.cluster, pools[number].node.name

    told = tuple(
        Move(rows[move.running.claim.id], place(move.origin.node), place(move.target.node)) for move in found.moves
    )
    return Advice(flavor, found.slice_before, found.slice_after, pools[found.node].node.name, told)


def _view(world: snapshots.World) -> Snapshot:
    movable = _movable(world)
    return snapshots.snapshot(world, [], frozenset(str(claim.pk) for claim in world.claims) - movable)


def _movable(world: snapshots.World) -> set[str]:
    """Ids of claims whose instances may move: all of the version's run, and it neither moves nor rolls over now.

    The planner itself leaves those alone that have not run for the minimum run time.
    """
    held = Counter(claim.version_id for claim in world.claims for _ in claim.nodes)
    busy = {claim.version_id for claim in world.claims if claim.part < 0 or claim.state != State.PLACED}
    busy |= set(
        Rollout.objects.filter(version__in=[key for key in held if key], state=Rollout.State.IN_PROGRESS).values_list(
            "version", flat=True
        )
    )
    return {
        str(claim.pk)
        for claim in world.claims
        if claim.version is not None
        and claim.version_id not in busy
        and claim.version.ready_instances >= held[claim.version_id]
    }


@transaction.atomic
def defragment(actor: User, flavor: str, token: str) -> Advice:
    """Carry out advice that was shown: each instance is started at its new place before the old one ends.

    Raises Conflict when the advice is not what it was: something changed meanwhile.
    """
    gate.require_platform(actor)
    gate.wait_for_pass()
    now = timezone.now()
    world = snapshots.load(now)
    advice = advise(world, flavor) if flavor in world.supply.flavors else None
    if advice is None or advice.token != token:
        raise Conflict("Something changed since this advice was made; look at it again")
    began: Counter[object] = Counter()
    for move in advice.moves:
        version = move.claim.version
        assert version is not None
        moves.begin(move.claim, move.source, move.target, GpuClaim.MOVE - began[version.pk], world, now)
        began[version.pk] += 1
        told = {"node": move.source[1]}, {"node": move.target[1]}
        audit.record(actor, "move", version, project=version.deployment.project, old=told[0], new=told[1])
    keys = [move.claim.version_id for move in advice.moves if move.claim.version_id is not None]
    transaction.on_commit(lambda: [triggers.wake(key) for key in keys] and None)
    intent.schedule_gpus_later()
    return advice
