"""Alert rules of a project, and tests of them."""

import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import Project, User
from deployments.services.validation import Checker
from monitoring.alerts import delivery
from monitoring.alerts.conditions import DEFAULTS
from monitoring.alerts.evaluation import messages
from monitoring.models import AlertRule, Delivery, Webhook

MAX_RULES = 100
MAX_EMAILS = 20
SHORTEST_WINDOW, LONGEST_WINDOW = 30, 86400
FIELDS = ("name", "kind", "deployment", "threshold", "window", "enabled", "webhooks", "emails")


def get_rule(actor: User, project: Project, name: str, permission: Permission = Permission.PROJECT_VIEW) -> AlertRule:
    access.require(actor, permission, project)
    rows = AlertRule.objects.select_related("deployment", "project").prefetch_related("webhooks")
    row = rows.filter(project=project, name=name).first()
    if row is None:
        raise NotFound("Alert rule", name)
    return row


@transaction.atomic
def create_rule(actor: User, project: Project, **fields: Any) -> AlertRule:
    """A rule; threshold and window have usual values by kind. Raises Invalid by field, Conflict.

    ``deployment`` is a name (None: all of the project), ``webhooks`` names of alert webhooks, ``emails`` addresses.
    """
    access.require(actor, Permission.PROJECT_EDIT, project)
    check = Checker()
    check.unknown(fields, FIELDS)
    kind = check.choice("kind", fields.get("kind"), AlertRule.Kind.values)
    threshold, window = DEFAULTS[kind]
    given = {"name": None, "threshold": threshold, "window": window, **fields}
    rule = AlertRule(project=project, kind=kind, created_by=actor)
    values, hooks = _checked(check, project, kind, given)
    check.done()
    if AlertRule.objects.filter(project=project).count() >= MAX_RULES:
        raise Conflict(f"Project '{project.name}' has {MAX_RULES} alert rules; delete one first")
    _save(rule, values, hooks)
    audit.record(actor, "create", rule, project=project, new=_told(rule))
    return rule


@transaction.atomic
def update_rule(actor: User, rule: AlertRule, **fields: Any) -> AlertRule:
    """Change what is given; the kind stays, since the threshold's meaning hangs on it."""
    access.require(actor, Permission.PROJECT_EDIT, rule.project)
    rule = AlertRule.objects.select_for_update(of=("self",)).select_related("project", "deployment").get(pk=rule.pk)
    check = Checker()
    check.unknown(fields, FIELDS)
    if fields.get("kind", rule.kind) != rule.kind:
        check.problem("kind", "The kind of a rule stays; make a new rule")
    old = _told(rule)
    values, hooks = _checked(check, rule.project, rule.kind, fields)
    check.done()
    _save(rule, values, hooks)
    old, new = audit.between(old, _told(rule))
    audit.record(actor, "update", rule, project=rule.project, old=old, new=new)
    return rule


@transaction.atomic
def delete_rule(actor: User, rule: AlertRule) -> None:
    access.require(actor, Permission.PROJECT_EDIT, rule.project)
    audit.record(actor, "delete", rule, project=rule.project, old=_told(rule))
    rule.delete()


@transaction.atomic
def test_rule(actor: User, rule: AlertRule) -> list[Delivery]:
    """Send a message that says it is a test to every receiver; what became of each is told by the messages."""
    access.require(actor, Permission.PROJECT_EDIT, rule.project)
    now, name = timezone.now(), rule.project.name
    content = {
        "event": "alert",
        "test": True,
        "state": "firing",
        "rule": rule.name,
        "kind": rule.kind,
        "project": name,
        "threshold": rule.threshold,
        "window": rule.window,
        "message": "This is a test of the rule",
        "subject": f"[TEST] {rule.name}",
        "text": f"[TEST] {rule.name}: this is a test of an alert rule in project {name}.",
    }
    made = messages(rule, content, f"test:{uuid.uuid4()}", now)
    if not made:
        raise Invalid(webhooks="The rule has no receiver; name a webhook or an e-mail address")
    delivery.put(made)
    audit.record(actor, "test", rule, project=rule.project)
    return made


def _checked(
    check: Checker, project: Project, kind: str, fields: dict[str, Any]
) -> tuple[dict[str, Any], list[Webhook] | None]:
    values: dict[str, Any] = {}
    hooks: list[Webhook] | None = None
    for name, value in fields.items():
        match name:
            case "name":
                values[name] = check.name(name, value)
            case "threshold":
                most = 1.0 if kind in (AlertRule.Kind.ERROR_RATE, AlertRule.Kind.GPU_IDLE) else 1e9
                values[name] = check.number(name, value, least=0, most=most)
            case "window":
                values[name] = check.integer(name, value, least=SHORTEST_WINDOW, most=LONGEST_WINDOW)
            case "enabled":
                values[name] = check.flag(name, value)
            case "emails":
                values[name] = _emails(check, value)
            case "webhooks":
                hooks = _webhooks(check, project, value)
            case "deployment":
                values[name] = project.deployments.filter(name=value).first() if value else None
                if value and values[name] is None:
                    check.problem(name, f"There is no deployment '{value}' in the project")
    return values, hooks


def _emails(check: Checker, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_EMAILS:
        check.problem("emails", f"Give a list of at most {MAX_EMAILS} addresses")
        return []
    for address in value:
        try:
            validate_email(address)
        except ValidationError:
            check.problem("emails", f"{str(address)[:80]!r} is no e-mail address")
    return list(dict.fromkeys(map(str, value)))


def _webhooks(check: Checker, project: Project, value: Any) -> list[Webhook]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        check.problem("webhooks", "Give a list of names of webhooks with the event 'alert'")
        return []
    rows = Webhook.objects.filter(project=project, name__in=value, event=Webhook.Event.ALERT)
    found = {hook.name: hook for hook in rows}
    if missing := [name for name in value if name not in found]:
        check.problem("webhooks", f"There is no webhook with the event 'alert' named {', '.join(missing)[:200]}")
    return list(found.values())


def _save(rule: AlertRule, values: dict[str, Any], hooks: list[Webhook] | None) -> None:
    for name, value in values.items():
        setattr(rule, name, value)
    try:
        with transaction.atomic():
            rule.save()
    except IntegrityError:
        raise Conflict(f"There is already an alert rule '{rule.name}' in the project") from None
    if hooks is not None:
        rule.webhooks.set(hooks)


def _told(rule: AlertRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "kind": rule.kind,
        "deployment": rule.deployment.name if rule.deployment else None,
        "threshold": rule.threshold,
        "window": rule.window,
        "enabled": rule.enabled,
        "webhooks": sorted(rule.webhooks.values_list("name", flat=True)),
        "emails": rule.emails,
    }
