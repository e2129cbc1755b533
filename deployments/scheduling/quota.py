"""Hierarchical quota with borrowing and lending, per flavor, in thousandths of a GPU.

Definitions follow Kueue's cohorts. A project or cohort owns a nominal quota. What it does not keep to itself
(its lending limit) flows to its cohort, where idle siblings' quota can be borrowed up to the borrowing limit:

- subtree quota: own nominal plus what the children lend;
- guaranteed: the part of the subtree quota that is never lent;
- local availability: guaranteed quota not in use;
- availability: local availability plus what the parent can give, within the borrowing limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .shapes import PlannerInputError, whole_number


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of one project or cohort for one flavor; None is no limit."""

    nominal: int = 0
    borrowing_limit: int | None = None
    lending_limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("nominal", "borrowing_limit", "lending_limit"):
            value = getattr(self, name)
            if value is not None or name == "nominal":
                object.__setattr__(self, name, whole_number(name, value))


@dataclass(frozen=True, slots=True)
class Owner:
    """A project (leaf) or cohort (inner node) of the quota tree.

    `weight` scales its fair share: 2 may borrow twice as much as 1 before it counts as equally favoured; with 0 it
    may borrow only when nobody else wants to.
    """

    name: str
    parent: str | None = None
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.weight, int | float) or not 0 <= self.weight < float("inf"):
            raise PlannerInputError("weight", f"{self.weight!r} of {self.name!r} is not allowed; give 0 or more")


_NONE = Quota()


class QuotaTree:
    """Quota and use of a forest of owners. Use may exceed quota, for example after an admin lowered it."""

    def __init__(self, owners: Iterable[Owner]) -> None:
        self.owners: dict[str, Owner] = {}
        for owner in owners:
            if owner.name in self.owners:
                raise PlannerInputError("owners", f"{owner.name!r} is listed twice")
            self.owners[owner.name] = owner
        self._paths = {name: self._path(name) for name in self.owners}
        self.children: dict[str, list[str]] = {name: [] for name in self.owners}
        for owner in self.owners.values():
            if owner.parent is not None:
                self.children[owner.parent].append(owner.name)
        self.flavors = sorted({flavor for owner in self.owners.values() for flavor in owner.quotas})
        self._subtree: dict[tuple[str, str], int] = {}
        self._use: dict[tuple[str, str], int] = {}
        self.version = 0
        """Grows with every booking, so that what follows from use can be remembered."""
        self._potential: dict[tuple[str, str], int] = {}
        for name in sorted(self.owners, key=lambda n: -len(self._paths[n])):
            for flavor in self.flavors:
                lent = sum(self._lent(child, flavor) for child in self.children[name])
                self._subtree[name, flavor] = self.quota(name, flavor).nominal + lent

    def _path(self, name: str) -> tuple[str, ...]:
        path, seen = [name], {name}
        while (parent := self.owners[path[-1]].parent) is not None:
            if parent not in self.owners:
                raise PlannerInputError("parent", f"{path[-1]!r} names {parent!r}, which is not a known cohort")
            if parent in seen:
                raise PlannerInputError("parent", "cohorts form a cycle: " + " > ".join([*path, parent]))
            path.append(parent)
            seen.add(parent)
        return tuple(path)

    def path(self, name: str) -> tuple[str, ...]:
        """The owner and its cohorts, innermost first; raises for an unknown name."""
        try:
            return self._paths[name]
        except KeyError:
            raise PlannerInputError("project", f"{name!r} has no quota; known are those of the policy") from None

    def quota(self, name: str, flavor: str) -> Quota:
        return self.owners[name].quotas.get(flavor, _NONE)

    def subtree_quota(self, name: str, flavor: str) -> int:
        return self._subtree.get((name, flavor), 0)

    def guaranteed(self, name: str, flavor: str) -> int:
        """Quota nobody else can borrow."""
        limit = self.quota(name, flavor).lending_limit
        return 0 if limit is None else max(0, self.subtree_quota(name, flavor) - limit)

    def _lent(self, name: str, flavor: str) -> int:
        return self.subtree_quota(name, flavor) - self.guaranteed(name, flavor)

    def use(self, name: str, flavor: str) -> int:
        """What the project uses; for a cohort, what its children use of the quota they share."""
        return self._use.get((name, flavor), 0)

    def local_available(self, name: str, flavor: str) -> int:
        return max(0, self.guaranteed(name, flavor) - self.use(name, flavor))

    def available(self, name: str, flavor: str) -> int:
        """What the project can take now, borrowing included; negative when use exceeds quota."""
        parent = self.owners[name].parent
        if parent is None:
            return self.subtree_quota(name, flavor) - self.use(name, flavor)
        from_parent = self.available(parent, flavor)
        limit = self.quota(name, flavor).borrowing_limit
        if limit is not None:
            in_parent = max(0, self.use(name, flavor) - self.guaranteed(name, flavor))
            from_parent = min(from_parent, self._lent(name, flavor) - in_parent + limit)
        return self.local_available(name, flavor) + from_parent

    def potential(self, name: str, flavor: str) -> int:
        """What the project could use if nobody else used anything; a larger claim can never be admitted."""
        known = self._potential.get((name, flavor))
        if known is not None:
            return known
        owner = self.owners[name]
        most = self.subtree_quota(name, flavor)
        if owner.parent is not None:
            above = self.potential(owner.parent, flavor)
            limit = self.quota(name, flavor).borrowing_limit
            borrowed = self.guaranteed(name, flavor) + above
            most = borrowed if limit is None else min(borrowed, most + limit)
        self._potential[name, flavor] = most
        return most

    def fits_nominal(self, name: str, flavor: str, amount: int) -> bool:
        """Whether the project stays within its own quota after taking `amount` more."""
        return self.use(name, flavor) + amount <= self.subtree_quota(name, flavor)

    def borrowed(self, name: str, flavor: str) -> int:
        """Use beyond its own quota."""
        return max(0, self.use(name, flavor) - self.subtree_quota(name, flavor))

    def take(self, name: str, flavor: str, amount: int) -> None:
        """Book `amount` for the project; the books are kept even beyond the quota (use is a fact)."""
        self.version += 1
        for owner in self.path(name):
            kept = self.local_available(owner, flavor)
            self._use[owner, flavor] = self.use(owner, flavor) + amount
            amount -= min(amount, kept)
            if amount <= 0:
                return

    def give_back(self, name: str, flavor: str, amount: int) -> None:
        """The reverse of `take`."""
        self.version += 1
        for owner in self.path(name):
            shared = self.use(owner, flavor) - self.guaranteed(owner, flavor)
            self._use[owner, flavor] = self.use(owner, flavor) - amount
            amount = min(amount, shared)
            if amount <= 0:
                return

    def shares(self, name: str, flavor: str = "", extra: int = 0) -> list[float]:
        """Dominant shares before weighting of the project and its cohorts, innermost first.

        A share is borrowed over lendable quota, the largest over flavors; lendable is what the parent could give in
        all. An owner without a parent cannot borrow: 0. `extra` of `flavor` counts as if taken already.
        """
        result = []
        for owner in self.path(name):
            result.append(self._share(owner, flavor, extra))
            extra -= min(extra, self.local_available(owner, flavor))
        return result

    def _share(self, name: str, flavor: str, extra: int) -> float:
        if self.owners[name].parent is None:
            return 0.0
        return max((self.share_of(name, one, extra if one == flavor else 0) for one in self.flavors), default=0.0)

    def share_of(self, name: str, flavor: str, extra: int = 0) -> float:
        """The share in one flavor alone, before weighting."""
        parent = self.owners[name].parent
        borrowed = self.use(name, flavor) + extra - self.subtree_quota(name, flavor)
        return 0.0 if parent is None or borrowed <= 0 else borrowed / max(1, self.potential(parent, flavor))
