"""On which grounds a running claim may have to go for a waiting one. Three, and no other:

- priority: the same project, a strictly lower priority;
- own quota: the claimant stays within its own quota, and the victim's project keeps its own in full afterwards;
- fair share, where the policy says so: both borrow, and the claimant's share would be below the victim's.

None of them can be returned by the victim, so two claims never evict each other in turn. Its priority is lower. To
come back after giving up lent quota it would have to borrow, and who borrows takes nobody's own quota. And where A,
with its claim, has a smaller share than B has with the victim, B's share with the victim is above A's, which is all
that coming back would be judged by. Use that fades only ever forbids an eviction, so it does not swing back either.

Running for less than the minimum run time, or protected by a disruption budget, is out of reach.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

from .books import Books
from .claims import Claim, FairSharing, Grant, Running
from .fairness import weighted_shares


class Grounds:
    """Who may go for `claim` on `flavor` under `rule`. Made before anything is released for it: what the claimant's
    own project releases on the way does not make its share look smaller."""

    def __init__(self, books: Books, claim: Claim, flavor: str, rule: FairSharing) -> None:
        self.books, self.claim, self.flavor, self.rule = books, claim, flavor, rule
        policy, tree = books.policy, books.tree
        self._path = tree.path(claim.project)
        within = all(tree.fits_nominal(owner, flavor, claim.demand) for owner in self._path[:-1])
        self.reclaims = policy.reclaim and within
        self.shares = not self.reclaims and rule is not FairSharing.OFF
        self._mine = self._both(claim.project, claim.demand) if self.shares else []

    def candidates(self, gone: Container[str]) -> list[Running]:
        """Who may go, best victims first: borrowers (of the largest share), low priority, least work lost."""
        snapshot, policy, tree = self.books.snapshot, self.books.policy, self.books.tree
        others = self.reclaims or self.shares
        rank: dict[str, float] = {}
        found: list[tuple[tuple[bool, float, int, float, str], Running]] = []
        for running in snapshot.running:
            victim = running.claim
            if running.flavor != self.flavor or not running.evictable or running.evicted_for or victim.id in gone:
                continue
            if snapshot.now - running.started < policy.min_run_seconds:
                continue
            own = victim.project == self.claim.project
            if own and not (policy.preempt_within_project and victim.priority < self.claim.priority):
                continue
            if not own and not (others and tree.path(victim.project)[-1] == self._path[-1]):
                continue
            if victim.project not in rank:
                rank[victim.project] = 0.0 if own or not self.shares else -self._theirs(victim.project)
            found.append(((own, rank[victim.project], victim.priority, -running.started, victim.id), running))
        return [running for _, running in sorted(found, key=lambda item: item[0])]

    def allow(self, running: Running) -> bool:
        """Whether `running` may go in the state that the books show now."""
        if running.claim.project == self.claim.project:
            return True
        return self._keeps_guarantee(running) and (self.reclaims or self._is_fairer(running))

    def sound(self, victims: Sequence[Running], gone: Container[str], started: Sequence[Grant]) -> bool:
        """Whether these victims together may go for a fairer share; `started` was granted in this pass.

        Nobody goes while its project runs something of lower priority on the flavor, which it would displace next.
        Under the looser rule no more goes than is used: the claimant's project would take what is left over, and the
        victims, with the smaller share then, came back for it.
        """
        if not self.shares:
            return True
        going = {running.claim.id for running in victims}
        lowest: dict[str, int] = {}
        there = [(one.claim, one.flavor) for one in self.books.snapshot.running]
        for claim, flavor in [*there, *((one.claim, one.flavor) for one in started)]:
            if flavor == self.flavor and claim.id not in going and claim.id not in gone:
                lowest[claim.project] = min(claim.priority, lowest.get(claim.project, claim.priority))
        others = [running.claim for running in victims if running.claim.project != self.claim.project]
        if any(claim.priority > lowest.get(claim.project, claim.priority) for claim in others):
            return False
        loose = self.rule is FairSharing.INITIAL_SHARE
        return not loose or sum(running.claim.demand for running in victims) <= self.claim.demand

    def reason(self, running: Running) -> str:
        """A sentence for the owner of the victim."""
        back = "It starts again by itself as soon as there is room."
        if running.claim.project == self.claim.project:
            return (
                f"Stopped for '{self.claim.label}' of the same project, whose priority {self.claim.priority} is above "
                f"{running.claim.priority}. {back}"
            )
        if self.reclaims:
            return (
                f"Stopped because project {self.claim.project} needs its own quota back, which this claim had "
                f"borrowed. {back}"
            )
        return (
            f"Stopped because project {self.claim.project} has borrowed less than its fair share so far, and this "
            f"claim's project more. {back}"
        )

    def _keeps_guarantee(self, running: Running) -> bool:
        """Whether the victim's project, and cohorts of its own, keep their quota in full without `running`."""
        tree = self.books.tree
        for owner in tree.path(running.claim.project):
            if owner in self._path:
                break
            if tree.use(owner, self.flavor) - running.claim.demand < tree.subtree_quota(owner, self.flavor):
                return False
        return True

    def _is_fairer(self, running: Running) -> bool:
        """Whether the claimant, with its claim, has the smaller share: than the victim's with it, and, unless the
        rule is content with that or the victim's weight is 0, no larger one than the victim's without it. Of now
        alone, and with past use."""
        tree, victim = self.books.tree, running.claim
        if not self.shares:
            return False
        mine, theirs = self._where_they_part(victim.project)
        now = self._both(victim.project, 0)
        if not all(claimant[mine] < before[theirs] for claimant, before in zip(self._mine, now, strict=True)):
            return False
        if self.rule is FairSharing.INITIAL_SHARE or now[0][theirs] == math.inf:
            return True
        tree.give_back(victim.project, self.flavor, victim.demand)
        then = self._both(victim.project, 0)
        # What it borrows of other flavors is not given to anybody here, and would let it come back.
        left = tree.share_of(theirs, self.flavor) / tree.owners[theirs].weight
        tree.take(victim.project, self.flavor, victim.demand)
        fair = all(claimant[mine] <= after[theirs] for claimant, after in zip(self._mine, then, strict=True))
        return fair and self._mine[0][mine] <= left

    def _both(self, project: str, extra: int) -> list[dict[str, float]]:
        """Weighted shares of the project and its cohorts: of now alone, and with past use."""
        snapshot, decay = self.books.snapshot, self.books.policy.decay
        past = snapshot.past_use.get(project, 0.0)
        return [
            weighted_shares(self.books.tree, project, decay, counted, self.flavor, extra) for counted in (0.0, past)
        ]

    def _theirs(self, project: str) -> float:
        _, theirs = self._where_they_part(project)
        return self._both(project, 0)[0][theirs]

    def _where_they_part(self, project: str) -> tuple[str, str]:
        """The owners below the nearest common cohort, of the claimant and of `project`: there shares compare."""
        path = self.books.tree.path(project)
        common = next(owner for owner in path if owner in self._path)
        return self._path[self._path.index(common) - 1], path[path.index(common) - 1]
