"""One pass over all claims: reality, wishes, decisions, in one transaction under one lock.

Everything is computed anew from rows and the cluster, and written at the end: a worker that is killed leaves nothing
half granted, and a pass that is repeated changes nothing.
"""

import datetime as dt
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import connection, transaction
from django.db.models import Avg, F

from deployments import triggers
from deployments.models import GpuClaim, GpuNode, GpuPolicy, GpuPool, Rollout
from deployments.scheduling.admission import run_pass
from deployments.scheduling.claims import FairSharing, Snapshot
from deployments.services.gpu import accounting, demand, history, idle, moves, outgrown, reality, syncing
from deployments.services.gpu import claims as claims_of
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu.outcome import Recorder, changed
from deployments.services.gpu.snapshot import World, open_claims, snapshot, supply_of

logger = logging.getLogger(__name__)

State = GpuClaim.State
LOCK = 0x67707573
BUDGET_SECONDS = 20.0
"""After this long further rounds are left to the next pass."""
MAX_ROUNDS = 5
GAP_SECONDS = 60
"""Expected gap of a handover in place while nothing is known about how long the version takes to start."""


@dataclass(slots=True)
class Cluster:
    """What the pass saw of the cluster: pods and PodDisruptionBudgets as objects."""

    name: str
    pods: Sequence[dict[str, Any]] = ()
    budgets: Sequence[dict[str, Any]] = ()


@dataclass(slots=True)
class Done:
    """``versions`` are those whose claims changed."""

    versions: set[uuid.UUID] = field(default_factory=set)
    created: int = 0
    saved: int = 0
    note: str = ""


def lock() -> bool:
    """Whether this transaction is the one pass; given back at its end, also when its process is killed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        row = cursor.fetchone()
    return bool(row and row[0])


@transaction.atomic
def run(seen: Cluster, now: dt.datetime) -> Done | None:
    """One pass; None when another is under way. Wakes the reconciler for what changed, once committed."""
    if not lock():
        return None
    return Pass(seen, now).run()


class Pass:
    def __init__(self, seen: Cluster, now: dt.datetime) -> None:
        self.now, self.seen = now, seen
        self.clock = time.monotonic()
        self.rules = rules_of.load()
        self.nodes = list(GpuNode.objects.prefetch_related("pools"))
        self.foreign = {node.pk: _foreign(node) for node in self.nodes}
        self.claims = open_claims()
        self.before = {str(claim.pk): claims_of.columns(claim) for claim in self.claims}
        self.held = reality.held_by(seen.pods)
        self.ended: list[GpuClaim] = []
        self.handed: set[uuid.UUID | None] = set()
        """Versions whose place passed from one size to another in this pass."""
        self.done = Done()

    def run(self) -> Done:
        resources = {flavor.name: flavor.resource for flavor in self.rules.flavors}
        accounting.account(self.rules, self.claims, self.now)
        self._end_surges()
        moves.settle(self.claims, self.held, self.seen.name, self.seen.budgets, self.now)
        self._reality(resources)
        versions = demand.concerned()
        wishes = claims_of.wishes(versions, set(resources.values()), claims_of.Levels.load())
        idle.release(self.rules.settings, self.claims, self.now)
        idle.wake(self.claims, self.now)
        self.world = World(self.rules, supply_of(self._pools(), self.rules.flavors, self.claims), self.claims, self.now)
        self._sync(wishes)
        self._grow(wishes)
        self._decide(wishes)
        self._handovers(wishes)
        self._save()
        return self.done

    def _pools(self) -> Iterable[Any]:
        return [pool for node in self.nodes for pool in node.pools.all()]

    def _end_surges(self) -> None:
        """Before reality is looked at: what runs in a surge's place then is the version's own."""
        surges = [claim for claim in self.claims if claim.part == GpuClaim.SURGE]
        rolling = Rollout.objects.filter(
            version__in=[claim.version_id for claim in surges], state=Rollout.State.IN_PROGRESS
        )
        going = set(rolling.values_list("version", flat=True)) if surges else set()
        for claim in surges:
            if claim.version_id not in going:
                claims_of.end(claim, self.now)
        self.claims = [claim for claim in self.claims if claim.ended_at is None]
        self.ended = [claim for claim in surges if claim.ended_at is not None]

    def _reality(self, resources: dict[str, str]) -> None:
        verdict = reality.reconcile(self.claims, self.held, self.nodes, self.seen.name, resources)
        by_id = {str(claim.pk): claim for claim in self.claims}
        for key in verdict.ended:
            by_id[key].nodes, by_id[key].displaced_for = [], None
        for key, (places, why) in verdict.lost.items():
            claims_of.lose(by_id[key], places, why, self.now)

    def _sync(self, wishes: dict[uuid.UUID, claims_of.Wish]) -> None:
        by_version: dict[uuid.UUID | None, list[GpuClaim]] = {key: [] for key in wishes}
        for claim in self.claims:
            by_version.setdefault(claim.version_id, []).append(claim)
        for key, found in by_version.items():
            wish = wishes.get(key) if key is not None else None
            if wish is None:
                for claim in found:
                    claims_of.end(claim, self.now)
                continue
            self.claims += syncing.sync(wish, found, self.world.supply, self.now)
        outgrown.retire(self.claims, {key for key, wish in wishes.items() if wish.rolling is not None}, self.now)
        self.world.claims = [claim for claim in self.claims if claim.ended_at is None]

    # -- decisions ------------------------------------------------------------------------------------------

    def _decide(self, wishes: dict[uuid.UUID, claims_of.Wish]) -> None:
        """A first round for the types that versions like best, further ones for those they fall back to."""
        recorder = Recorder(self.world, {str(claim.pk): claim for claim in self.world.claims})
        protected = reality.protected(self.world.claims, self.held, self.seen.budgets)
        queue = [claim for claim in self.world.claims if self._queues(claim)]
        for number in range(MAX_ROUNDS):
            asking = self._round(number, queue, wishes, recorder)
            if number and not asking:
                return
            if number and time.monotonic() - self.clock > BUDGET_SECONDS:
                self.done.note = "The pass took long; types that versions fall back to were left to the next one."
                return
            view = snapshot(self.world, asking, protected)
            if not number:
                recorder.all(run_pass(view))
                continue
            result = run_pass(_gently(view))
            for grant in result.granted:
                recorder.granted(grant)
            for explanation in result.waiting:
                # What the first type can never have, another may have later.
                if recorder.by_id[explanation.claim.id].state == State.REFUSED:
                    recorder.waits(explanation)
            for claim in asking:
                if claim.state != State.PLACED:
                    assert claim.version_id is not None
                    wish = wishes[claim.version_id]
                    claims_of.set_kind(claim, wish.choices[0].kind, self.world.supply)

    def _grow(self, wishes: dict[uuid.UUID, claims_of.Wish]) -> None:
        """New sizes of versions that hold another: beside it when the turn and the room are theirs, else in its place.

        Displaces nobody; who finds no room either way waits in the queue like all others.
        """
        for claim, held in outgrown.successors(self.world.claims):
            assert claim.version_id is not None
            wish = wishes[claim.version_id]
            beside: list[tuple[list[GpuClaim], int]] = [([], wish.instances)] if wish.rolling is not None else []
            for leaving, count in [*beside, (held, wish.instances), (held, wish.least)]:
                if self._passes_over(claim, leaving, count, wish):
                    break
            else:
                claim.instances = wish.least

    def _passes_over(self, claim: GpuClaim, leaving: list[GpuClaim], count: int, wish: claims_of.Wish) -> bool:
        """Whether ``count`` instances of the new size have their turn and find room once ``leaving`` are gone."""
        claim.instances = count
        world = replace(self.world, claims=[other for other in self.world.claims if other not in leaving])
        view = snapshot(world, [other for other in world.claims if self._queues(other)])
        result = run_pass(_undisturbed(view), until=str(claim.pk))
        grant = next((one for one in result.granted if one.claim.id == str(claim.pk)), None)
        if grant is None:
            return False
        Recorder(world, {str(claim.pk): claim}).granted(grant)
        for old in leaving:
            claims_of.end(old, self.now)
            self.handed.add(old.version_id)
        self.claims += syncing.split(wish, claim, self.world.supply, self.now)
        self.world.claims = [other for other in self.claims if other.ended_at is None]
        return True

    def _queues(self, claim: GpuClaim) -> bool:
        open_ = claim.state in (State.WAITING, State.EVICTED, State.REFUSED)
        return open_ and not claim.nodes and claim.part >= 0

    def _round(
        self, number: int, queue: list[GpuClaim], wishes: dict[uuid.UUID, claims_of.Wish], recorder: Recorder
    ) -> list[GpuClaim]:
        """Claims that ask in this round, set to the type it is about; a type without devices is granted at once."""
        asking = []
        for claim in queue:
            wish = wishes.get(claim.version_id) if claim.version_id is not None else None
            if wish is None or claim.state == State.PLACED or (claim.reserved and number):
                continue
            if claim.part == 0 and not claim.reserved:
                if number >= len(wish.choices):
                    continue
                choice = wish.choices[number]
                waited = (self.now - claim.created_at).total_seconds()
                if number and claim.state != State.REFUSED and waited < choice.after:
                    continue
                claims_of.set_kind(claim, choice.kind, self.world.supply)
            elif number:
                continue
            if claim.devices == 0:
                recorder.place(claim, "", [])
            else:
                asking.append(claim)
        return asking

    def _handovers(self, wishes: dict[uuid.UUID, claims_of.Wish]) -> None:
        """How rollouts pass over: with one instance more where a slice is free, else in place, with the gap told."""
        chosen: dict[uuid.UUID, tuple[str, int | None]] = {}
        extra: list[tuple[GpuClaim, Rollout]] = []
        handed: list[Rollout] = []
        beside = {c.version_id for c in self.world.claims if c.is_outgrown and c.state == State.PLACED}
        placed = {c.version_id: c for c in self.world.claims if c.state == State.PLACED and c.part >= 0}
        for wish in wishes.values():
            rollout, base = wish.rolling, placed.get(wish.version.pk)
            if rollout is None or rollout.strategy or base is None or base.instance_type is None:
                continue
            if not base.devices:
                chosen[rollout.pk] = (Rollout.Strategy.SURGE, None)
            elif wish.version.pk in beside:
                chosen[rollout.pk] = (Rollout.Strategy.SURGE, 0)
            elif wish.version.pk in self.handed:
                handed.append(rollout)
            elif not wish.version.ready_instances:
                chosen[rollout.pk] = (Rollout.Strategy.IN_PLACE, None)
            else:
                claim = claims_of.new(wish, GpuClaim.SURGE, 1, base.instance_type, self.world.supply, self.now)
                extra.append((claim, rollout))
        self._place_surges([claim for claim, _ in extra])
        for claim, rollout in extra:
            if claim.state == State.PLACED:
                self.claims.append(claim)
                chosen[rollout.pk] = (Rollout.Strategy.SURGE, 0)
            else:
                handed.append(rollout)
        gaps = _start_seconds(handed)
        for rollout in handed:
            chosen[rollout.pk] = (Rollout.Strategy.IN_PLACE, gaps.get(rollout.version_id, GAP_SECONDS))
        self._announce(chosen)

    def _place_surges(self, asking: list[GpuClaim]) -> None:
        if not asking:
            return
        recorder = Recorder(self.world, {str(claim.pk): claim for claim in asking})
        self.world.claims += asking
        for grant in run_pass(_gently(snapshot(self.world, asking))).granted:
            recorder.granted(grant)

    def _announce(self, chosen: dict[uuid.UUID, tuple[str, int | None]]) -> None:
        """Write strategy and gap on rollouts that have none; few queries, however many rollouts there are."""
        for strategy, gap in set(chosen.values()):
            keys = [key for key, choice in chosen.items() if choice == (strategy, gap)]
            undecided = Rollout.objects.filter(pk__in=keys, strategy="")
            self.done.versions |= set(undecided.values_list("version", flat=True))
            undecided.update(strategy=strategy, expected_gap=gap)

    # -- saving ---------------------------------------------------------------------------------------------

    def _save(self) -> None:
        fresh = [claim for claim in self.claims if str(claim.pk) not in self.before and claim.ended_at is None]
        read = (claim for claim in [*self.claims, *self.ended] if str(claim.pk) in self.before)
        saved = changed(self.before, read)
        placed = {
            claim.version_id
            for claim in [*fresh, *saved]
            if claim.state == State.PLACED and claim.placed_at == self.now and claim.version_id is not None
        }
        columns = [name.removesuffix("_id") for name in claims_of.COLUMNS]
        # Parts that are given up are free before others take them.
        for leaving in (True, False):
            group = [claim for claim in saved if (claim.ended_at is not None or claim.is_outgrown) == leaving]
            GpuClaim.objects.bulk_update(group, columns, batch_size=200)
        GpuClaim.objects.bulk_create(fresh, batch_size=500)
        history.write([*fresh, *saved], self.before, self.now)
        # Waiting for a place is not the rollout's fault: its time begins now.
        Rollout.objects.filter(version__in=placed, state=Rollout.State.IN_PROGRESS).update(deadline_at=None)
        self._save_foreign()
        self.done.versions |= {
            claim.version_id for claim in [*fresh, *saved] if claim.version_id is not None and self._matters(claim)
        }
        self.done.created, self.done.saved = len(fresh), len(saved)
        GpuPolicy.objects.filter(id=1).update(
            accounted_at=self.rules.settings.accounted_at,
            passed_at=self.now,
            pass_ms=int((time.monotonic() - self.clock) * 1000),
            pass_note=self.done.note,
        )
        versions = sorted(self.done.versions)
        transaction.on_commit(lambda: [triggers.wake(key) for key in versions] and None)

    def _matters(self, claim: GpuClaim) -> bool:
        """Whether the reconciler has something to do or to tell; a better place in the queue is told here alone."""
        old = self.before.get(str(claim.pk))
        names = ("state", "nodes", "instances", "instance_type_id", "reason_code", "reason_message", "reason_next")
        return old is None or any(getattr(claim, name) != old[name] for name in names)

    def _save_foreign(self) -> None:
        for node in self.nodes:
            if _foreign(node) == self.foreign[node.pk]:
                continue
            GpuNode.objects.filter(pk=node.pk).update(
                foreign_cpu_milli=node.foreign_cpu_milli, foreign_memory_mib=node.foreign_memory_mib
            )
            GpuPool.objects.bulk_update(node.pools.all(), ["foreign"])


def _foreign(node: GpuNode) -> tuple[int, ...]:
    return (node.foreign_cpu_milli, node.foreign_memory_mib, *(pool.foreign for pool in node.pools.all()))


def _undisturbed(view: Snapshot) -> Snapshot:
    """The same view, with nobody displaced."""
    policy = replace(view.policy, reclaim=False, preempt_within_project=False, fair_sharing=FairSharing.OFF)
    return replace(view, policy=policy)


def _gently(view: Snapshot) -> Snapshot:
    """The same view for claims beyond the first round: nobody displaced, no place made before."""
    return replace(_undisturbed(view), reserved={})


def _start_seconds(rollouts: Sequence[Rollout]) -> dict[uuid.UUID, int]:
    """How long an instance of each version took to become ready in rollouts before; by version, where known."""
    if not rollouts:
        return {}
    earlier = Rollout.objects.filter(
        version__in=[rollout.version_id for rollout in rollouts],
        state=Rollout.State.COMPLETE,
        scheduled_at__isnull=False,
        ready_at__isnull=False,
    )
    means = earlier.order_by().values_list("version").annotate(mean=Avg(F("ready_at") - F("scheduled_at")))
    return {version: max(1, round(mean.total_seconds())) for version, mean in means}
