"""Sizes that a version holds but does not want any more: kept until there is a place for what it wants instead.

A version whose instance type, or whose type's number of devices, was changed goes on running as it is. Its new claim
waits beside what it holds. Either both find room, and the rollout surges; or the new size finds room once the old one
is gone, and it is handed over in place, in the very pass that decides so. Who cannot have the new size keeps the old.
"""

import datetime as dt
import uuid
from collections.abc import Mapping

from deployments.models import GpuClaim, InstanceType
from deployments.services.gpu import claims as claims_of

State = GpuClaim.State


def sort_out(
    wish: claims_of.Wish, there: list[GpuClaim], kinds: Mapping[uuid.UUID, InstanceType], now: dt.datetime
) -> list[GpuClaim]:
    """Of the open claims ``there``, those of a type and size that are wanted; the others are kept as outgrown or end.

    An outgrown size that is wanted again is as before.
    """
    fitting = [claim for claim in there if not claim.is_outgrown and _fits(claim, kinds)]
    old = [claim for claim in there if claim.is_outgrown]
    for claim in there:
        if claim.is_outgrown or claim in fitting:
            continue
        if _answers(wish, claim):
            claim.part = min([GpuClaim.OUTGROWN + 1, *(one.part for one in old)]) - 1
            old.append(claim)
        else:
            claims_of.end(claim, now)
    old = _held(old, now)
    again = [claim for claim in old if claim.state == State.PLACED and _fits(claim, kinds)]
    if again and not any(claim.part >= 0 and claim.state == State.PLACED for claim in fitting):
        for claim in fitting:
            claims_of.end(claim, now)
        for number, claim in enumerate(sorted(again, key=lambda claim: -claim.part)):
            claim.part = number
        fitting, old = again, [claim for claim in old if claim not in again]
    claims_of.trim(wish, old, now)
    return sorted(fitting, key=lambda claim: claim.part)


def _fits(claim: GpuClaim, kinds: Mapping[uuid.UUID, InstanceType]) -> bool:
    """Whether the claim is of a type that is wanted, as large as it is now. A place keeps its CPU and memory until the
    version is rolled over."""
    kind = kinds.get(claim.instance_type_id) if claim.instance_type_id is not None else None
    return kind is not None and claim.devices == kind.accelerator


def _answers(wish: claims_of.Wish, claim: GpuClaim) -> bool:
    """Whether something runs on the claim that would be missed."""
    placed = claim.part >= 0 and claim.state == State.PLACED and (claim.nodes or not claim.devices)
    return bool(placed and wish.version.ready_instances)


def _held(old: list[GpuClaim], now: dt.datetime) -> list[GpuClaim]:
    """Those that still hold something; what was taken from them ends."""
    for claim in old:
        if claim.state != State.PLACED and not claim.nodes:
            claims_of.end(claim, now)
    return [claim for claim in old if claim.ended_at is None]


def successors(claims: list[GpuClaim]) -> list[tuple[GpuClaim, list[GpuClaim]]]:
    """New first claims that wait while their version holds an outgrown size, each with what it holds."""
    kept: dict[object, list[GpuClaim]] = {}
    for claim in claims:
        if claim.is_outgrown and claim.state == State.PLACED and claim.ended_at is None:
            kept.setdefault(claim.version_id, []).append(claim)
    return [
        (claim, kept[claim.version_id])
        for claim in claims
        if claim.part == 0 and claim.version_id in kept and claim.state in (State.WAITING, State.REFUSED)
    ]


def retire(claims: list[GpuClaim], rolling: set[uuid.UUID], now: dt.datetime) -> None:
    """End outgrown claims of versions that have their new size and have passed over to it."""
    placed = {claim.version_id for claim in claims if claim.part == 0 and claim.state == State.PLACED}
    for claim in claims:
        if claim.is_outgrown and claim.version_id in placed and claim.version_id not in rolling:
            claims_of.end(claim, now)
