"""What if: the claims of the last days replayed under the policy in force and under another, before that is saved."""

import copy
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accounts.errors import Invalid
from accounts.models import User
from deployments.models import GpuClaim, GpuQuota
from deployments.scheduling.claims import AdmissionPolicy
from deployments.scheduling.shapes import PlannerInputError
from deployments.scheduling.what_if import Job, Replay, replay
from deployments.services.gpu import gate
from deployments.services.gpu import policy as policy_of
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu import snapshot as snapshots

DAYS = 7
MAX_CLAIMS = 400
SHORTEST = 1.0

SETTINGS = (
    "minimum_run_seconds",
    "hold_after_seconds",
    "half_life_hours",
    "usage_weight",
    "preempt_within_project",
    "reclaim",
    "fair_sharing",
)
LIMITS = ("nominal", "borrowing_limit", "lending_limit")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Waiting in seconds, use in device hours."""

    started: int
    mean_wait: float
    longest_wait: float
    device_hours: float
    lost_hours: float
    evictions: int
    refused: int


@dataclass(frozen=True, slots=True)
class Comparison:
    claims: int
    now: Outcome
    then: Outcome


def proposal(
    rules: rules_of.Rules, settings: Mapping[str, Any], quotas: Mapping[str, Mapping[str, int | None]]
) -> rules_of.Rules:
    """The policy with some settings and quotas (by id) changed. Raises Invalid by field; changes no row."""
    changed = rules_of.Rules(
        copy.copy(rules.settings),
        rules.flavors,
        rules.cohorts,
        rules.tenants,
        [copy.copy(row) for row in rules.quotas],
    )
    for name, value in settings.items():
        if name not in SETTINGS:
            raise Invalid(**{name: f"Unknown; use {', '.join(SETTINGS)}"})
        setattr(changed.settings, name, value)
    problems, _ = policy_of.check(changed.settings)
    known = {str(row.pk): row for row in changed.quotas}
    for key, limits in quotas.items():
        if key not in known:
            raise Invalid(quotas=f"There is no quota {key}; load the page again")
        for name, value in limits.items():
            if name not in LIMITS:
                raise Invalid(quotas=f"Unknown limit '{name}'; use {', '.join(LIMITS)}")
            setattr(known[key], name, value)
        wrong, _ = policy_of.check(known[key])
        problems |= {f"quota-{key}-{name}": text for name, text in wrong.items()}
    if problems:
        raise Invalid(**problems)
    return changed


def compare(actor: User, changed: rules_of.Rules, now: dt.datetime) -> Comparison:
    """Replay the latest claims of `DAYS` days under both policies, on the nodes there are now.

    Raises Forbidden for all but the platform team, Invalid for a policy that contradicts itself.
    """
    gate.require_platform(actor)
    rules = rules_of.load()
    world = snapshots.load(now, rules)
    jobs = history(world)
    return Comparison(len(jobs), _run(world, rules, jobs), _run(world, changed, jobs))


def history(world: snapshots.World) -> list[Job]:
    """Claims of the last days as jobs that run as long as they did, or have so far."""
    rows = (
        GpuClaim.objects.filter(created_at__gt=world.now - dt.timedelta(days=DAYS), devices__gt=0, part__gte=0)
        .select_related("project", "instance_type")
        .order_by("-created_at")[:MAX_CLAIMS]
    )
    usual = snapshots.durations_of((row.label for row in rows), world.now)
    jobs = []
    for row in rows:
        ran = ((row.ended_at or world.now) - row.first_placed_at).total_seconds() if row.first_placed_at else 0.0
        seconds = max(ran or usual.get(row.label, 3600.0), SHORTEST)
        jobs.append(Job(snapshots.planner_claim(world, row, usual), seconds))
    return jobs


def _run(world: snapshots.World, rules: rules_of.Rules, jobs: Sequence[Job]) -> Outcome:
    projects = {job.claim.project for job in jobs}
    try:
        policy: AdmissionPolicy = rules_of.admission_policy(rules, world.supply, projects)
        result: Replay = replay(policy, jobs, world.supply.nodes)
    except PlannerInputError as error:
        raise Invalid(**{error.field: str(error)}) from None
    created = {job.claim.id: job.claim.created for job in jobs}
    waits = [at - created[key] for key, at in result.admitted.items()]
    return Outcome(
        started=len(waits),
        mean_wait=sum(waits) / len(waits) if waits else 0.0,
        longest_wait=max(waits, default=0.0),
        device_hours=result.gpu_seconds / 3600,
        lost_hours=result.lost_gpu_seconds / 3600,
        evictions=result.evictions,
        refused=len(result.refused),
    )


def save(actor: User, settings: Mapping[str, Any], quotas: Mapping[str, Mapping[str, int | None]]) -> list[str]:
    """Make a proposal the policy in force; answers warnings. Raises as `proposal` and `policy.save`."""
    gate.require_platform(actor)
    changed = proposal(rules_of.load(), settings, quotas)
    warnings = policy_of.save(actor, changed.settings)
    for row in changed.quotas:
        if str(row.pk) in quotas:
            before = GpuQuota.objects.get(pk=row.pk)
            if any(getattr(before, name) != getattr(row, name) for name in LIMITS):
                warnings += policy_of.save(actor, row)
    return warnings
