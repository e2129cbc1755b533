"""An instance on its way to another node: it is started there, and the one before ends once the new one is ready.

While it lasts a claim of its own holds the new place, so that the version runs one instance more. No other instance is
touched, and a version that moves never has fewer ready instances than before.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.models import GpuClaim
from deployments.services.gpu import claims as claims_of
from deployments.services.gpu import snapshot as snapshots
from deployments.services.gpu.fleet import Place
from deployments.services.gpu.reality import Held, spared

State = GpuClaim.State
LONGEST = dt.timedelta(minutes=15)
"""A move that is not done by then is given up: the instance stays where it was."""


def begin(
    claim: GpuClaim, source: Place, target: Place, part: int, world: snapshots.World, now: dt.datetime
) -> GpuClaim:
    """Hold ``target`` for the instance of ``claim`` at ``source``."""
    assert claim.instance_type is not None
    move = GpuClaim(
        project=claim.project,
        version=claim.version,
        label=claim.label,
        part=part,
        instances=1,
        priority=claim.priority,
        state=State.PLACED,
        flavor=claim.flavor,
        nodes=[list(target)],
        moves_from=list(source),
        created_at=now,
        placed_at=now,
        first_placed_at=now,
    )
    claims_of.set_kind(move, claim.instance_type, world.supply)
    move.save()
    return move


def settle(
    claims: list[GpuClaim], pods: list[Held], cluster: str, budgets: Iterable[Mapping[str, Any]], now: dt.datetime
) -> None:
    """End moves that are done, given up, or that nobody waits for any more; writes to ``claims``."""
    by_version: dict[object, list[GpuClaim]] = {}
    for claim in claims:
        by_version.setdefault(claim.version_id, []).append(claim)
    budgets = list(budgets)
    for own in by_version.values():
        for move in [claim for claim in own if claim.is_move]:
            keeper = next(
                (c for c in own if c.part >= 0 and c.state == State.PLACED and move.moves_from in c.nodes), None
            )
            if keeper is None or move.state != State.PLACED or not move.nodes or now - move.created_at > LONGEST:
                claims_of.end(move, now)
            elif _arrived(move, own, pods, cluster) and spared(str(move.version_id), pods, budgets):
                keeper.nodes[keeper.nodes.index(move.moves_from)] = move.nodes[0]
                claims_of.end(move, now)


def _arrived(move: GpuClaim, own: list[GpuClaim], pods: list[Held], cluster: str) -> bool:
    """Whether as many ready pods of the version are on the new node as it has places there."""
    where, node = move.nodes[0]
    places = Counter(place[1] for claim in own if claim.ended_at is None for place in claim.nodes if place[0] == where)
    ready = sum(
        pod.version_id == str(move.version_id) and pod.node == node and pod.bound and pod.ready and not pod.deleting
        for pod in pods
    )
    return where == cluster and ready >= places[node]
