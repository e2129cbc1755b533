"""The platform team's policy as the planner takes it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from deployments.models import GpuCohort, GpuFlavor, GpuPolicy, GpuQuota, GpuTenant
from deployments.scheduling.claims import AdmissionPolicy, FairSharing
from deployments.scheduling.fairness import UsageDecay
from deployments.scheduling.quota import Owner, Quota
from deployments.scheduling.shapes import MILLI
from deployments.services.gpu.fleet import Supply

OPEN = 1_000_000
"""Devices that everybody may use of a flavor for which no quota was set at all."""


@dataclass(slots=True)
class Rules:
    """All rows of the policy; a replay changes copies of them."""

    settings: GpuPolicy
    flavors: list[GpuFlavor] = field(default_factory=list)
    cohorts: list[GpuCohort] = field(default_factory=list)
    tenants: list[GpuTenant] = field(default_factory=list)
    quotas: list[GpuQuota] = field(default_factory=list)


def settings_row() -> GpuPolicy:
    return GpuPolicy.objects.get_or_create(id=1)[0]


def load() -> Rules:
    return Rules(
        settings_row(),
        list(GpuFlavor.objects.all()),
        list(GpuCohort.objects.select_related("parent")),
        list(GpuTenant.objects.select_related("project", "cohort")),
        list(GpuQuota.objects.select_related("flavor", "project", "cohort")),
    )


def cohort_owner(name: str) -> str:
    """Of a cohort among the owners, where a project may have the same name."""
    return f"'{name}'"


def owners(rules: Rules, projects: Iterable[str]) -> tuple[Owner, ...]:
    """The quota tree. ``projects`` are those with claims; those the policy names are in it anyway.

    A flavor without any quota is open to all: its roots get as much as anybody may want.
    """
    limits: dict[tuple[str, bool], dict[str, Quota]] = {}
    for row in rules.quotas:
        owner = (row.project.name, True) if row.project else (row.cohort.name if row.cohort else "", False)
        limits.setdefault(owner, {})[row.flavor.name] = Quota(
            row.nominal * MILLI,
            None if row.borrowing_limit is None else row.borrowing_limit * MILLI,
            None if row.lending_limit is None else row.lending_limit * MILLI,
        )
    unlimited = {flavor.name for flavor in rules.flavors} - {row.flavor.name for row in rules.quotas}
    free = {name: Quota(OPEN * MILLI) for name in unlimited}
    tenants = {tenant.project.name: tenant for tenant in rules.tenants}
    found = [
        Owner(
            cohort_owner(cohort.name),
            cohort_owner(cohort.parent.name) if cohort.parent else None,
            {**limits.get((cohort.name, False), {}), **({} if cohort.parent else free)},
            cohort.weight,
        )
        for cohort in rules.cohorts
    ]
    names = {*projects, *tenants, *(name for name, is_project in limits if is_project)}
    for name in sorted(names):
        tenant = tenants.get(name)
        cohort = tenant.cohort if tenant is not None else None
        found.append(
            Owner(
                name,
                cohort_owner(cohort.name) if cohort else None,
                {**limits.get((name, True), {}), **({} if cohort else free)},
                tenant.weight if tenant is not None else 1.0,
            )
        )
    return tuple(found)


def admission_policy(rules: Rules, supply: Supply, projects: Iterable[str]) -> AdmissionPolicy:
    """Raises PlannerInputError for rows that contradict each other, naming the field."""
    row = rules.settings
    return AdmissionPolicy(
        owners=owners(rules, projects),
        flavors=supply.planner_flavors(),
        decay=UsageDecay(row.half_life_hours * 3600, row.usage_weight),
        min_run_seconds=row.minimum_run_seconds,
        hold_after=row.hold_after_seconds,
        preempt_within_project=row.preempt_within_project,
        reclaim=row.reclaim,
        fair_sharing=FairSharing(row.fair_sharing),
    )
