"""Why a claim waits or is refused, in a sentence a person can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .books import Block, Books, most_on
from .claims import Claim, Explanation, PassResult
from .options import device_options
from .shapes import MILLI, NodeSpec, Shape, fits_empty

MAX_CHANGE_SEARCHES = 200
"""Kinds of claims per pass for which the smallest change is looked for."""


def gpus_text(milli: int) -> str:
    """'2 GPUs', '0.5 GPU'."""
    count = milli / MILLI
    return f"{count:g} GPU{'' if count <= 1 else 's'}"


def refusal(books: Books, claim: Claim) -> tuple[str, str] | None:
    """Code and sentence if no flavor of the claim can ever hold it, judged on empty nodes and unused quota."""
    if claim.project not in books.tree.owners:
        return "no-quota", f"Project {claim.project} has no GPU quota. Ask the platform team for some."
    problems = [_flavor_problem(books, claim, flavor) for flavor in claim.flavors]
    return problems[0] if all(problems) else None


def _flavor_problem(books: Books, claim: Claim, flavor: str) -> tuple[str, str] | None:
    if flavor not in books.flavors:
        known = ", ".join(sorted(books.flavors)) or "none"
        return "unknown-flavor", f"There is no GPU flavor {flavor}. Known: {known}."
    most = books.tree.potential(claim.project, flavor)
    if claim.demand > most:
        return "over-quota", (
            f"Asks for {gpus_text(claim.demand)} of {flavor}; project {claim.project} can use at most "
            f"{gpus_text(most)}, even with all it may borrow. Ask for less, or for more quota."
        )
    if books.snapshot.nodes is None:
        return None
    shape = books.shape(claim, flavor)
    offered = books.node_kinds(shape)
    if not offered:
        return "no-node", f"No node offers {flavor}. Choose another flavor, or ask for such nodes."
    room = sum(most_on(shape, node) * count for node, count in offered)
    if room == 0:
        return "too-large", (
            f"No node can hold an instance with {shape.describe()}. The largest possible on {flavor} is "
            f"{_largest([node for node, _ in offered], shape)}."
        )
    if room < claim.count:
        return "too-many", (
            f"Asks for {claim.count} instances with {shape.describe()}; all nodes with {flavor} together hold "
            f"{room}. Ask for at most {room}."
        )
    return None


def _largest(nodes: Iterable[NodeSpec], shape: Shape) -> str:
    """The biggest node in terms of what was asked for, in words."""
    best = max(nodes, key=lambda n: (min(n.gpus - len(n.unhealthy), shape.gpus), n.cpu_milli, n.memory_mib))
    return Shape(best.cpu_milli, best.memory_mib, best.gpus - len(best.unhealthy)).describe()


@dataclass(slots=True)
class _Line:
    """Those waiting for one flavor so far, in order."""

    names: list[str]
    count: int = 0
    demand: int = 0


class Explainer:
    """Explains the outcome of one pass; `books` show the state after it."""

    def __init__(self, books: Books, result: PassResult) -> None:
        self.books = books
        self.result = result
        self._lines: dict[str, _Line] = {}
        self._reasons: dict[tuple[object, ...], tuple[str, str]] = {}
        self._changes: dict[tuple[object, ...], str] = {}
        self._rates = self._drain_rates()

    @staticmethod
    def refused(claim: Claim, code: str, sentence: str) -> Explanation:
        return Explanation(claim, code, sentence, claim.flavors[0])

    def waiting(self, blocked: Iterable[tuple[Claim, Block]]) -> list[Explanation]:
        """One explanation per blocked claim, given in the order of the queue."""
        return [self._explain(claim, block) for claim, block in blocked]

    def _explain(self, claim: Claim, block: Block) -> Explanation:
        flavor = block.flavor
        line = self._lines.setdefault(flavor, _Line([]))
        kind = (claim.project, claim.shape, claim.count, claim.flavors)
        reason = self._reasons.get((*kind, block.code))
        if reason is None:
            reason = self._reasons[*kind, block.code] = self._reason(claim, block)
            if len(self._changes) < MAX_CHANGE_SEARCHES:
                self._changes[kind] = self._change(claim)
        code, sentence = reason
        change = self._changes.get(kind, "")
        if line.count:
            names = ", ".join(line.names)
            more = f" and {line.count - len(line.names)} more" if line.count > len(line.names) else ""
            sentence = f"{sentence} Waiting behind {names}{more} ({gpus_text(line.demand)})."
        if change:
            sentence = f"{sentence} {change}"
        rate = self._rates.get(flavor, 0.0)
        wait = (line.demand + max(0, block.short) + claim.demand) / rate if rate else None
        explanation = Explanation(
            claim,
            code,
            sentence,
            flavor,
            line.count + 1,
            tuple(line.names),
            line.count,
            line.demand,
            change,
            wait,
        )
        if len(line.names) < 3:
            line.names.append(f"'{claim.label}' (project {claim.project})")
        line.count += 1
        line.demand += claim.demand
        return explanation

    def _drain_rates(self) -> dict[str, float]:
        """Thousandths of GPUs that running claims give back per second, per flavor."""
        rates: dict[str, float] = {}
        for running in self.books.snapshot.running:
            seconds = running.claim.expected_seconds
            if seconds:
                rates[running.flavor] = rates.get(running.flavor, 0.0) + running.claim.demand / seconds
        return rates

    # -- reasons ------------------------------------------------------------------------------------------

    def _reason(self, claim: Claim, block: Block) -> tuple[str, str]:
        return self._quota_reason(claim, block) if block.code == "quota" else self._node_reason(claim, block)

    def _quota_reason(self, claim: Claim, block: Block) -> tuple[str, str]:
        tree, flavor, project = self.books.tree, block.flavor, claim.project
        use, most = tree.use(project, flavor), tree.potential(project, flavor)
        asks = f"Asks for {gpus_text(claim.demand)} of {flavor}"
        if use + claim.demand > most:
            return "quota-own", (
                f"{asks}; project {project} uses {gpus_text(use)} of the {gpus_text(most)} it may have at most."
            )
        free = tree.available(project, flavor)
        if free >= claim.demand:
            held = self.books.held.get((tree.path(project)[-1], flavor), 0)
            return "held-back", f"{asks}; what is free is held for {gpus_text(held)} of claims waiting for long."
        cohort = tree.owners[project].parent or project
        return "quota-cohort", (
            f"{asks}; {gpus_text(max(0, free))} of its own and of cohort {cohort}'s quota is free, the rest is "
            f"in use by others."
        )

    def _node_reason(self, claim: Claim, block: Block) -> tuple[str, str]:
        flavor, placer = block.flavor, self.books.placer
        assert placer is not None
        shape = self.books.shape(claim, flavor)
        kinds = self.books.node_kinds(shape)
        hosts = sum(count for node, count in kinds if fits_empty(shape, node))
        fits = int(placer.feasible(shape).sum())
        states = [s for s in placer.fleet.states() if not shape.models or s.model in shape.models]
        left = [state.gpus for state in states]
        total = sum(sum(state.gpus) * placer.fleet.count(state) for state in states)
        asks = (
            f"the claim asks for {claim.count} x {shape.describe()}"
            if claim.count > 1
            else (f"the claim asks for {shape.describe()}")
        )
        head = f"{fits} of {hosts} nodes fit now: {asks}"
        if total < claim.demand:
            return "capacity", f"{head}, {gpus_text(total)} of {flavor} is free in all."
        if not any(device_options(levels, (shape.gpus, shape.gpu_milli)) for levels in left):
            whole = shape.gpu_milli == MILLI
            slices = [sum(x == MILLI for x in levels) * MILLI if whole else max(levels, default=0) for levels in left]
            return "fragmented", (
                f"{head}, {gpus_text(total)} is free but spread out; the largest free slice on one node is "
                f"{gpus_text(max(slices, default=0))}."
            )
        if fits == 0:
            return "cpu-memory", f"{head}; free GPUs are on nodes whose CPU or memory is used up."
        return "capacity", f"{head}, not enough for all instances at once."

    # -- the smallest change ------------------------------------------------------------------------------

    def _change(self, claim: Claim) -> str:
        """The least that would place the claim now, tried on the books; empty if nothing simple does."""
        for flavor in claim.flavors[1:]:
            if self._fits(claim, flavor):
                return f"Would start now on {flavor}, which it accepts later; lower its fallback wait."
        low, high = 0, claim.count - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(replace(claim, count=middle), claim.flavors[0]):
                low = middle
            else:
                high = middle - 1
        if low:
            return f"Would start now with {low} of its {claim.count} instances."
        shape = claim.shape
        for gpus in range(shape.gpus - 1, 0, -1):
            smaller = replace(shape, gpus=gpus)
            if self._fits(replace(claim, shape=smaller), claim.flavors[0]):
                return f"Would start now with {gpus_text(smaller.demand_milli)} per instance."
        for flavor in sorted(set(self.books.flavors) - set(claim.flavors)):
            anywhere = replace(claim, shape=replace(shape, models=frozenset()), flavors=(flavor,))
            if self._fits(anywhere, flavor):
                return f"Would start now on {flavor}."
        return ""

    def _fits(self, claim: Claim, flavor: str) -> bool:
        """Whether that claim could be booked now; leaves the books as they are."""
        outcome = self.books.try_book(claim, flavor)
        if isinstance(outcome, Block):
            return False
        self.books.unbook(outcome)
        return True
