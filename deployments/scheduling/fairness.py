"""Whose turn it is: dominant resource share with weights, softened by past use that decays.

Shares follow dominant resource fairness (Ghodsi et al., NSDI 2011) over borrowed quota, as in Kueue: a project
within its own quota has share 0 and goes first. Past use decays by halves, as in fair-share batch systems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .quota import QuotaTree
from .shapes import PlannerInputError


@dataclass(frozen=True, slots=True)
class UsageDecay:
    """Past use halves every `half_life` seconds; `weight` says how much of it counts against the present share."""

    half_life: float = 86_400.0
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.half_life < math.inf:
            raise PlannerInputError("half_life", f"{self.half_life!r} is not allowed; give seconds above 0")
        if not 0 <= self.weight < math.inf:
            raise PlannerInputError("usage_weight", f"{self.weight!r} is not allowed; give 0 or more")

    def advance(self, past: float, use: float, seconds: float) -> float:
        """Decayed use (thousandths x seconds) after `seconds` of steady `use` (thousandths)."""
        rate = math.log(2) / self.half_life
        kept = math.exp(-rate * seconds)
        return past * kept + use * (1 - kept) / rate

    def steady(self, use: float) -> float:
        """Where `advance` settles under steady use."""
        return use * self.half_life / math.log(2)


def weighted_shares(
    tree: QuotaTree, project: str, decay: UsageDecay, past: float = 0.0, flavor: str = "", extra: int = 0
) -> dict[str, float]:
    """Shares of the project and its cohorts, innermost first, as they would be with `extra` of `flavor` more.

    Past use counts only for a project that borrows: steady use of all lendable quota adds `decay.weight` to its share.
    An owner of weight 0 that borrows has an infinite share.
    """
    path = tree.path(project)
    shares = tree.shares(project, flavor, extra)
    parent = tree.owners[project].parent
    if past > 0 and parent is not None and shares[0] > 0:
        lendable = sum(tree.potential(parent, flavor) for flavor in tree.flavors)
        shares[0] += decay.weight * past / decay.steady(max(1, lendable))
    weighted = {}
    for name, share in zip(path, shares, strict=True):
        weight = tree.owners[name].weight
        weighted[name] = 0.0 if share == 0 else share / weight if weight else math.inf
    return weighted


def weighted_share(
    tree: QuotaTree, project: str, decay: UsageDecay, past: float = 0.0, flavor: str = "", extra: int = 0
) -> tuple[float, ...]:
    """`weighted_shares`, outermost cohort first; smaller goes first.

    Comparing from the outside in makes cohorts take turns before their projects do.
    """
    return tuple(reversed(weighted_shares(tree, project, decay, past, flavor, extra).values()))
