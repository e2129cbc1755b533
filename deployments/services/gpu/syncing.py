"""A version's open claims brought in line with what it wants now."""

import datetime as dt

from deployments.models import GpuClaim
from deployments.services.gpu import claims as claims_of
from deployments.services.gpu import outgrown
from deployments.services.gpu.fleet import Supply

State = GpuClaim.State


def sync(wish: claims_of.Wish, open_claims: list[GpuClaim], supply: Supply, now: dt.datetime) -> list[GpuClaim]:
    """Bring a version's open claims in line with its wish; answers the new ones.

    Claims that hold a place keep it: instances are taken from the end, or asked for as further parts. What is held in
    a size that is not wanted any more is kept as outgrown, see there.
    """
    kinds = {choice.kind.pk: choice.kind for choice in wish.choices}
    there = sorted((claim for claim in open_claims if claim.ended_at is None), key=lambda claim: claim.part)
    fitting = outgrown.sort_out(wish, there, kinds, now)
    live = []
    for claim in fitting:
        if claim.part == GpuClaim.SURGE and wish.rolling is None:
            claims_of.end(claim, now)
            continue
        claim.priority, claim.label = wish.priority, claims_of.label_of(wish.version)
        kind = claim.instance_type
        assert kind is not None
        if claim.state != State.PLACED:
            claim.flavors = supply.flavors_for(kind) if kind.accelerator else []
        if claim.part >= 0:
            live.append(claim)
    claims_of.trim(wish, live, now)
    live = [claim for claim in live if claim.ended_at is None]
    if wish.instances == 0:
        return []
    base = next((claim for claim in live if claim.part == 0), None)
    if base is None:
        count = max(1, min(wish.least, wish.instances - sum(claim.instances for claim in live)))
        kind = live[0].instance_type if live else None
        return [claims_of.new(wish, 0, count, kind or wish.choices[0].kind, supply, now)]
    if base.state != State.PLACED:
        if not base.nodes:
            base.instances = max(1, min(wish.least, wish.instances))
        return []
    return further(wish, live, supply, now)


def further(wish: claims_of.Wish, live: list[GpuClaim], supply: Supply, now: dt.datetime) -> list[GpuClaim]:
    """Claims for the instances that are wanted beyond ``live``, whose first is placed."""
    kind = live[0].instance_type
    assert kind is not None
    first = max(claim.part for claim in live) + 1
    missing = wish.instances - sum(claim.instances for claim in live)
    return [claims_of.new(wish, first + number, 1, kind, supply, now) for number in range(missing)]


def split(wish: claims_of.Wish, base: GpuClaim, supply: Supply, now: dt.datetime) -> list[GpuClaim]:
    """Make instances that a first claim holds beyond the least ones claims of their own; answers those, and further
    ones for what is missing."""
    extra, base.nodes = base.nodes[wish.least :], base.nodes[: wish.least]
    base.instances = min(base.instances, wish.least)
    found = further(wish, [base], supply, now)
    for claim, place in zip(found, extra, strict=False):
        claim.state, claim.flavor, claim.nodes = State.PLACED, base.flavor, [place]
        claim.placed_at = claim.first_placed_at = now
    return found
