"""Use of devices: device seconds and cost per project, flavor and day, and past use that fades."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable

from django.db.models import F

from accounts.models import Project
from deployments.models import GpuClaim, GpuTenant, GpuUse
from deployments.scheduling.fairness import UsageDecay
from deployments.scheduling.shapes import MILLI
from deployments.services.gpu.rules import Rules

LONGEST = dt.timedelta(minutes=10)
"""A longer pause between passes is an outage: what ran then is not known."""


def account(rules: Rules, claims: Iterable[GpuClaim], now: dt.datetime) -> None:
    """Book what ``claims`` hold since the last time; once per stretch of time, since the row of rules moves along."""
    since, rules.settings.accounted_at = rules.settings.accounted_at, now
    if since is None or since >= now:
        return
    since = max(since, now - LONGEST)
    held: Counter[tuple[Project, str]] = Counter()
    for claim in claims:
        if claim.nodes and claim.flavor:
            held[claim.project, claim.flavor] += len(claim.nodes) * claim.devices
    prices = {flavor.name: flavor.price for flavor in rules.flavors}
    for (project, flavor), devices in held.items():
        for day, seconds in _days(since, now):
            amount = devices * seconds
            cost = amount / 3600 * prices.get(flavor, 0.0)
            updated = GpuUse.objects.filter(project=project, flavor=flavor, day=day).update(
                seconds=F("seconds") + amount, cost=F("cost") + cost
            )
            if not updated:
                GpuUse.objects.create(project=project, flavor=flavor, day=day, seconds=amount, cost=cost)
    _fade(rules, held, (now - since).total_seconds())


def _days(since: dt.datetime, now: dt.datetime) -> Iterable[tuple[dt.date, float]]:
    while since.date() < now.date():
        midnight = dt.datetime.combine(since.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
        yield since.date(), (midnight - since).total_seconds()
        since = midnight
    yield now.date(), (now - since).total_seconds()


def _fade(rules: Rules, held: Counter[tuple[Project, str]], seconds: float) -> None:
    decay = UsageDecay(rules.settings.half_life_hours * 3600, rules.settings.usage_weight)
    use: Counter[Project] = Counter()
    for (project, _), devices in held.items():
        use[project] += devices * MILLI
    known = {tenant.project_id: tenant for tenant in rules.tenants}
    for project in use:
        if project.pk not in known:
            tenant, _ = GpuTenant.objects.get_or_create(project=project)
            tenant.project = project
            known[project.pk] = tenant
            rules.tenants.append(tenant)
    for tenant in rules.tenants:
        past = decay.advance(tenant.past_use, use.get(tenant.project, 0), seconds)
        if past != tenant.past_use:
            tenant.past_use = past
            GpuTenant.objects.filter(pk=tenant.pk).update(past_use=past)
