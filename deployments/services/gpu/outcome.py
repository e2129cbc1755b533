"""The planner's answers written onto claims. Explanations are debounced, so that pages do not flicker."""

import datetime as dt
import re
from collections.abc import Iterable

from deployments.models import GpuClaim
from deployments.scheduling.claims import Eviction, Explanation, Grant, PassResult
from deployments.scheduling.explain import gpus_text
from deployments.scheduling.shapes import MILLI
from deployments.services.gpu import claims as claims_of
from deployments.services.gpu.snapshot import World

State = GpuClaim.State

# While the reason stays the same, numbers and neighbours are told anew no more often than this.
QUIET = dt.timedelta(seconds=30)
AHEAD_NAMED = 3

# Codes of refusals that a new node or quota may lift without the claim being changed.
PATIENT = frozenset({"no-node"})

NEXT = {
    "quota-own": "Stop another version of the project, ask for fewer devices, or ask the platform team for more quota.",
    "quota-cohort": "It starts as soon as others give back what they borrow, or ask for fewer devices.",
    "held-back": "It starts once the claims that have waited for long are placed.",
    "capacity": "Ask for fewer devices, stop another version, or wait until one ends.",
    "fragmented": "Ask for fewer devices an instance; the platform team can make room by moving instances.",
    "cpu-memory": "Choose an instance type with less CPU or memory.",
    "no-node": "Choose another instance type, or ask the platform team for such nodes.",
    "no-quota": "Ask the platform team for GPU quota.",
    "over-quota": "Ask for fewer devices or instances, or ask the platform team for more quota.",
    "unknown-flavor": "Choose another instance type.",
    "too-large": "Choose a smaller instance type.",
    "too-many": "Lower the minimum number of instances.",
}


class Recorder:
    """Writes one pass's outcome; ``by_id`` holds all open claims."""

    def __init__(self, world: World, by_id: dict[str, GpuClaim]) -> None:
        self.world = world
        self.by_id = by_id
        self._lines: dict[str, list[str]] = {}

    def all(self, result: PassResult) -> None:
        for grant in result.granted:
            self.granted(grant)
        for eviction in result.evictions:
            self.evicted(eviction)
        for grant in result.reserved:
            self.reserved(grant)
        for explanation in result.refused:
            self.refused(explanation)
        for explanation in result.waiting:
            self.waits(explanation)

    def places(self, grant: Grant) -> list[list[str]]:
        pools = self.world.supply.pools
        return [[pools[p.node].node.cluster, pools[p.node].node.name] for p in grant.placements]

    def granted(self, grant: Grant) -> None:
        self.place(self.by_id[grant.claim.id], grant.flavor, self.places(grant))

    def place(self, claim: GpuClaim, flavor: str, nodes: list[list[str]]) -> None:
        for name, value in claims_of.NOTHING.items():
            setattr(claim, name, value)
        claim.state, claim.flavor, claim.nodes = State.PLACED, flavor, nodes
        claim.reserved, claim.displaced_for = None, None
        claim.placed_at = self.world.now
        claim.first_placed_at = claim.first_placed_at or self.world.now

    def reserved(self, grant: Grant) -> None:
        claim = self.by_id[grant.claim.id]
        claim.reserved = {"flavor": grant.flavor, "nodes": self.places(grant)}
        text = "Room was made by displacing others; it starts as soon as they have ended."
        self._reason(claim, "making-room", text, "Nothing to do.")
        claim.position, claim.ahead, claim.ahead_claims = 1, 0, []

    def evicted(self, eviction: Eviction) -> None:
        """A version's first instances take its further ones along: without them those are of no use."""
        first = self.by_id[eviction.running.claim.id]
        going = [first]
        if first.part == 0:
            going += [
                other
                for other in self.by_id.values()
                if other.version_id == first.version_id and other.state == State.PLACED and other is not first
            ]
        for claim in going:
            claim.state = State.EVICTED
            claim.displaced_for = self.by_id[eviction.beneficiary.id].pk
            claim.evictions += 1
            self._reason(claim, "displaced", eviction.reason, "Nothing to do; it waits in the queue again.")

    def refused(self, explanation: Explanation) -> None:
        claim = self.by_id[explanation.claim.id]
        claim.state = State.WAITING if explanation.code in PATIENT else State.REFUSED
        claim.position, claim.ahead, claim.ahead_claims, claim.expected_wait = None, 0, [], None
        self._reason(claim, explanation.code, explanation.sentence, NEXT.get(explanation.code, ""))

    def waits(self, explanation: Explanation) -> None:
        claim = self.by_id[explanation.claim.id]
        line = self._lines.setdefault(explanation.flavor, [])
        ahead = line[-AHEAD_NAMED:]
        line.append(str(claim.pk))
        if claim.state == State.REFUSED:
            claim.state = State.WAITING
        text = without_names(explanation)
        if claim.state == State.EVICTED:
            text = f"Displaced before, now in the queue again. {text}"
        next_step = explanation.change or NEXT.get(explanation.code, "")
        place = {
            "position": explanation.position,
            "ahead": -(-explanation.ahead_demand // MILLI),
            "ahead_claims": ahead,
        }
        moved = any(getattr(claim, name) != value for name, value in place.items())
        if self._reason(claim, explanation.code, text, next_step, moved):
            for name, value in place.items():
                setattr(claim, name, value)
            claim.expected_wait = explanation.expected_wait

    def _reason(self, claim: GpuClaim, code: str, text: str, next_step: str, moved: bool = False) -> bool:
        """Whether the explanation was taken over: it says something new, and a like one is not too young."""
        told = (claim.reason_code, claim.reason_message, claim.reason_next)
        young = claim.reason_at is not None and self.world.now - claim.reason_at < QUIET
        if (told == (code, text, next_step) and not moved) or (claim.reason_code == code and young):
            return False
        claim.reason_code, claim.reason_message, claim.reason_next = code, text, next_step
        claim.reason_at = self.world.now
        return True


def without_names(explanation: Explanation) -> str:
    """The sentence with the number of those ahead in place of their names, which not everybody may know.

    The smallest change is left out: it is the next step.
    """
    text = explanation.sentence.removesuffix(f" {explanation.change}") if explanation.change else explanation.sentence
    text = re.sub(r"cohort '([^']+)''s", r"cohort \1's", text)
    count = explanation.ahead_count
    if not count:
        return text
    names = ", ".join(explanation.ahead)
    more = f" and {count - len(explanation.ahead)} more" if count > len(explanation.ahead) else ""
    gpus = gpus_text(explanation.ahead_demand)
    told = f" Waiting behind {names}{more} ({gpus})."
    return text.replace(told, f" Waiting behind {count} claim{'s' if count > 1 else ''} ({gpus}).")


def changed(before: dict[str, dict[str, object]], claims: Iterable[GpuClaim]) -> list[GpuClaim]:
    """Claims that differ from what was read."""
    return [claim for claim in claims if before.get(str(claim.pk)) != claims_of.columns(claim)]
