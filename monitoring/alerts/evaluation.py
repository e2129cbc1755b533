"""Judging every rule, and telling each change of an alert's state once."""

import datetime as dt
import logging
import uuid
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Min, Q, QuerySet

from deployments.models import DeploymentVersion, Request
from monitoring.alerts import delivery
from monitoring.alerts.conditions import Facts, Verdict, judge
from monitoring.metrics import query, source
from monitoring.metrics.cells import Cell, Coverage, Scope
from monitoring.metrics.prometheus import SourceUnavailable
from monitoring.models import Alert, AlertRule, Delivery, Webhook

logger = logging.getLogger(__name__)

# A state that flips at once is told at the pace of this.
SHORTEST_FIRING = dt.timedelta(seconds=60)
# Numbers that are older are not of now, and a span is known when so much of it was read.
STALE = dt.timedelta(seconds=60)
MOST_OF_IT = 0.8


def evaluate(now: dt.datetime) -> int:
    """One pass over all rules; how many alerts changed."""
    changed = 0
    known: dict[tuple[uuid.UUID, int], Facts] = {}
    blind = False
    rules = AlertRule.objects.select_related("project", "deployment").filter(enabled=True)
    for rule in rules.iterator():
        for version in _covered(rule):
            key = (version.pk, rule.window)
            if key not in known:
                start = now - dt.timedelta(seconds=rule.window)
                numbers = None if blind else _numbers(version, start, now)
                blind = numbers is None
                known[key] = facts(version, start, now, numbers)
            changed += settle(rule, version, judge(rule.kind, rule.threshold, rule.window, known[key]), now)
    return changed + _close_disabled(now)


def _covered(rule: AlertRule) -> QuerySet[DeploymentVersion]:
    """Versions of which a rule may have something to say: those at rest have neither requests nor instances."""
    waiting = Request.objects.filter(batch=True, status=Request.Status.PENDING).values("version")
    firing = Alert.objects.filter(rule=rule, state=Alert.State.FIRING).values("version")
    versions = DeploymentVersion.objects.filter(deployment__project=rule.project).select_related("deployment")
    if rule.deployment_id is not None:
        versions = versions.filter(deployment=rule.deployment)
    return versions.filter(Q(desired_instances__gt=0) | Q(ready_instances__gt=0) | Q(pk__in=waiting) | Q(pk__in=firing))


def _numbers(version: DeploymentVersion, start: dt.datetime, now: dt.datetime) -> tuple[Cell, Coverage] | None:
    """Everything since ``start`` and how well it is known; None when nobody can be asked."""
    try:
        whole = query.total(Scope((version.pk,)), start, now, now)
        return whole, source.current().coverage(version.pk, start, now)
    except SourceUnavailable as error:
        logger.warning("Alerts are judged without numbers: %s", error)
        return None


def facts(
    version: DeploymentVersion, start: dt.datetime, now: dt.datetime, numbers: tuple[Cell, Coverage] | None
) -> Facts:
    """What is known of a version since ``start``."""
    whole, known = numbers or (Cell(0, 1), Coverage())
    values = whole.values()
    rollout = version.rollouts.order_by("-queued_at").values_list("queued_at", flat=True).first()
    waiting = Request.objects.filter(version=version, batch=True, status=Request.Status.PENDING)
    oldest = waiting.aggregate(oldest=Min("time_created"))["oldest"]
    held, measured = whole.levels.get("accelerators", 0.0), whole.levels.get("gpu_devices", 0.0)
    return Facts(
        requests=whole.counts["requests"],
        errors=whole.counts["errors"],
        p95=values["p95"],
        restarts=whole.counts["restarts"],
        queue_age=(now - oldest).total_seconds() if oldest is not None else 0,
        wanted=version.desired_instances if version.target_revision_id else 0,
        ready=version.ready_instances,
        was_ready=whole.levels.get("instances", 0.0) > 0,
        settled=(rollout or version.creation_date) <= start,
        accelerators=held,
        held_throughout=known.held and known.share >= MOST_OF_IT,
        gpu_use=values["gpu_use"] if measured >= MOST_OF_IT * held else None,
        measured=numbers is not None and _up_to_date(version, known, now),
        why=version.reason_message,
    )


def _up_to_date(version: DeploymentVersion, known: Coverage, now: dt.datetime) -> bool:
    """Whether the numbers reach to now. Of a version without instances there are none to wait for."""
    if known.latest is not None and now - known.latest <= STALE:
        return True
    return not version.instances.filter(deleted_at=None, time_created__lt=now - STALE).exists()


def settle(rule: AlertRule, version: DeploymentVersion, verdict: Verdict, now: dt.datetime) -> bool:
    """Bring the alert to the verdict; True when that was a change and ours to tell."""
    if not verdict.known:
        return False
    alert = Alert.objects.filter(rule=rule, version=version).first()
    if alert is None:
        if not verdict.firing:
            return False
        alert, _ = Alert.objects.get_or_create(rule=rule, version=version, defaults={"since": now})
    firing = alert.state == Alert.State.FIRING
    if firing == verdict.firing:
        if firing:
            Alert.objects.filter(pk=alert.pk, state=alert.state).update(value=verdict.value, message=verdict.message)
        return False
    # A clock that was set back must not make that last.
    if firing and dt.timedelta(0) <= now - alert.since < SHORTEST_FIRING:
        return False
    state = Alert.State.FIRING if verdict.firing else Alert.State.OK
    with transaction.atomic():
        ours = Alert.objects.filter(pk=alert.pk, state=alert.state, changes=alert.changes).update(
            state=state, changes=alert.changes + 1, since=now, value=verdict.value, message=verdict.message
        )
        if not ours:
            return False
        occasion = f"alert:{alert.pk}:{alert.changes + 1}"
        delivery.put(messages(rule, payload(rule, version, state, verdict, now), occasion, now))
    return True


def messages(rule: AlertRule, content: dict[str, Any], occasion: str, now: dt.datetime) -> list[Delivery]:
    """One for each receiver of the rule."""
    common = {"project_id": rule.project_id, "occasion": occasion, "payload": content, "next_attempt_at": now}
    hooks = rule.webhooks.filter(enabled=True, event=Webhook.Event.ALERT)
    return [
        *(Delivery(webhook=webhook, **common) for webhook in hooks),
        *(Delivery(email=email, **common) for email in rule.emails),
    ]


def payload(
    rule: AlertRule, version: DeploymentVersion, state: str, verdict: Verdict, now: dt.datetime
) -> dict[str, Any]:
    """What receivers get; ``text`` is what chat services show, ``subject`` a mail's."""
    deployment = version.deployment
    name, word = f"{deployment.name}/{version.version}", "FIRING" if state == Alert.State.FIRING else "RESOLVED"
    url = f"{settings.PILOTHOUSE_URL}/projects/{rule.project.name}/deployments/{deployment.name}"
    return {
        "event": "alert",
        "state": "firing" if state == Alert.State.FIRING else "resolved",
        "rule": rule.name,
        "kind": rule.kind,
        "project": rule.project.name,
        "deployment_id": str(deployment.pk),
        "deployment_name": deployment.name,
        "deployment_version_id": str(version.pk),
        "deployment_version_name": version.version,
        "value": verdict.value,
        "threshold": rule.threshold,
        "window": rule.window,
        "message": verdict.message,
        "since": now.isoformat(),
        "url": url,
        "subject": f"[{word}] {rule.name}: {name}",
        "text": f"[{word}] {rule.name}: {name} in project {rule.project.name}. {verdict.message}. {url}",
    }


def _close_disabled(now: dt.datetime) -> int:
    """Alerts of rules that were switched off end without a word."""
    firing = Alert.objects.filter(rule__enabled=False, state=Alert.State.FIRING)
    return firing.update(state=Alert.State.OK, since=now)
