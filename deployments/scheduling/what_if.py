"""What if: replay claims under a policy, event by event, to compare waiting, use and evictions before saving it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from .admission import run_pass
from .claims import AdmissionPolicy, Claim, Grant, Running, Snapshot
from .shapes import MILLI, NodeSpec, PlannerInputError
from .workload import Workload

KINDS = 24
"""Kinds of tasks that the typical workload of a replay is condensed to."""
MAX_ROUNDS = 100
"""Passes at one moment before the replay gives up: more means that claims evict each other in turn."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claim and how long it runs once it starts; an evicted one starts over."""

    claim: Claim
    seconds: float


@dataclass(slots=True)
class Replay:
    """Outcome. `admitted` maps claims to the moment of their first start, `finished` to that of their end."""

    admitted: dict[str, float] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    evictions: int = 0
    gpu_seconds: float = 0.0
    lost_gpu_seconds: float = 0.0
    passes: int = 0
    pass_seconds: float = 0.0
    longest_pass_seconds: float = 0.0

    def mean_wait(self, jobs: Iterable[Job]) -> float:
        """Mean time from creation to first start of those that started; 0 if none did."""
        waits = [self.admitted[j.claim.id] - j.claim.created for j in jobs if j.claim.id in self.admitted]
        return sum(waits) / len(waits) if waits else 0.0

    @property
    def makespan(self) -> float:
        return max(self.finished.values(), default=0.0)


def replay(policy: AdmissionPolicy, jobs: Sequence[Job], nodes: Sequence[NodeSpec] | None = None) -> Replay:
    """Run `jobs` under `policy`; decisions take no time, so the outcome depends on the policy alone.

    Raises PlannerInputError for a policy that contradicts itself, or under which evictions do not come to an end.
    """
    by_id = {job.claim.id: job for job in jobs}
    arrivals = sorted(jobs, key=lambda job: (job.claim.created, job.claim.id))
    result = Replay()
    typical = Workload.of(job.claim.shape for job in jobs).condensed(KINDS) if jobs else None
    state = _State(Snapshot(0.0, policy, (), nodes=None if nodes is None else tuple(nodes), workload=typical))
    ends: list[tuple[float, str, float]] = []
    index = 0
    while index < len(arrivals) or ends:
        moments = [_moment(arrivals[index].claim.created)] if index < len(arrivals) else []
        now = min([*moments, ends[0][0]] if ends else moments)
        while index < len(arrivals) and _moment(arrivals[index].claim.created) <= now:
            state.waiting[arrivals[index].claim.id] = arrivals[index].claim
            index += 1
        while ends and ends[0][0] <= now:
            _, claim_id, started = heapq.heappop(ends)
            running = state.running.get(claim_id)
            if running is not None and running.started == started:
                del state.running[claim_id]
                result.finished[claim_id] = now
        state.account(now)
        for running in state.settle(now, result):
            seconds = by_id[running.claim.id].seconds
            heapq.heappush(ends, (_moment(now + seconds), running.claim.id, running.started))
            result.admitted.setdefault(running.claim.id, now)
        if not ends and index == len(arrivals):
            break
    done = [by_id[claim_id] for claim_id in result.finished]
    result.gpu_seconds = sum(job.claim.demand / MILLI * job.seconds for job in done)
    return result


def _moment(seconds: float) -> float:
    """Times nearer to each other than a microsecond are one moment, with one pass."""
    return round(seconds, 6)


class _State:
    """Claims between events."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.waiting: dict[str, Claim] = {}
        self.running: dict[str, Running] = {}
        self.past: dict[str, float] = {}
        self.since = 0.0

    def account(self, now: float) -> None:
        """Bring past use up to `now`, taking what runs after this moment's ends as steady since the last one."""
        use: dict[str, int] = dict.fromkeys(self.past, 0)
        for running in self.running.values():
            use[running.claim.project] = use.get(running.claim.project, 0) + running.claim.demand
        decay = self.snapshot.policy.decay
        for project, amount in use.items():
            self.past[project] = decay.advance(self.past.get(project, 0.0), amount, now - self.since)
        self.since = now

    def settle(self, now: float, result: Replay) -> list[Running]:
        """Passes at `now` until nothing changes; answers what runs that did not before."""
        before = {running.claim.id: running.started for running in self.running.values()}
        reserved: dict[str, Grant] = {}
        for _ in range(MAX_ROUNDS):
            clock = perf_counter()
            outcome = run_pass(
                replace(
                    self.snapshot,
                    now=now,
                    waiting=tuple(self.waiting.values()),
                    running=tuple(self.running.values()),
                    past_use=dict(self.past),
                    reserved=reserved,
                )
            )
            seconds = perf_counter() - clock
            result.passes += 1
            result.pass_seconds += seconds
            result.longest_pass_seconds = max(result.longest_pass_seconds, seconds)
            for grant in outcome.granted:
                claim = self.waiting.pop(grant.claim.id)
                self.running[claim.id] = Running(claim, grant.flavor, now, grant.placements)
            for explanation in outcome.refused:
                self.waiting.pop(explanation.claim.id)
                result.refused[explanation.claim.id] = explanation.sentence
            for eviction in outcome.evictions:
                gone = self.running.pop(eviction.running.claim.id)
                self.waiting[gone.claim.id] = gone.claim
                result.evictions += 1
                result.lost_gpu_seconds += gone.claim.demand / MILLI * (now - gone.started)
            reserved = {grant.claim.id: grant for grant in outcome.reserved}
            if not outcome.evictions:
                break
        else:
            raise PlannerInputError(
                "policy", f"claims still displace each other after {MAX_ROUNDS} passes at {now:.0f} s"
            )
        return [r for r in self.running.values() if before.get(r.claim.id) != r.started or r.started == now]
