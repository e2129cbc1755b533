"""Webhooks of a project, and tests of them."""

import re
import secrets
import uuid
from typing import Any
from urllib.parse import urlsplit

import orjson
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, NotFound
from accounts.models import Project, User
from deployments.models import Deployment, DeploymentVersion, Request
from deployments.services.validation import Checker
from monitoring.alerts import delivery, guard
from monitoring.models import Delivery, Webhook

MAX_WEBHOOKS = 100
MAX_HEADERS = 50
MAX_HEADER = 4096
TIMEOUT = 10
LONGEST_TIMEOUT = 30
_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
# What the platform sets itself, or what would break the message's form.
_OWN_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})
_FIELDS = (
    "name", "url", "headers", "event", "description", "labels", "timeout", "enabled", "retry", "include_result",
)  # fmt: skip
_TEST_FIELDS = (
    "url", "event", "headers", "timeout", "retry", "include_result", "object_type", "object_name", "version",
)  # fmt: skip


def get_webhook(actor: User, project: Project, name: str, permission: Permission = Permission.PROJECT_VIEW) -> Webhook:
    access.require(actor, permission, project)
    row = Webhook.objects.select_related("deployment", "version", "project").filter(project=project, name=name).first()
    if row is None:
        raise NotFound("Webhook", name)
    return row


@transaction.atomic
def create_webhook(actor: User, project: Project, **fields: Any) -> Webhook:
    """A webhook from the fields of the public API's WebhookCreate. Raises Invalid by field, Conflict.

    For the event ``alert`` it belongs to the project and takes no object; rules name it.
    """
    access.require(actor, Permission.PROJECT_EDIT, project)
    check = Checker()
    check.unknown(fields, (*_FIELDS, "object_type", "object_name", "version"))
    hook = Webhook(project=project, secret=secrets.token_urlsafe(32))
    hook.name = check.name("name", fields.get("name"))
    values = _checked(check, {"url": None, "event": None, **fields}, [])
    hook.deployment, hook.version = _object(check, project, values.get("event", ""), fields)
    check.done()
    if Webhook.objects.filter(project=project).count() >= MAX_WEBHOOKS:
        raise Conflict(f"Project '{project.name}' has {MAX_WEBHOOKS} webhooks; delete one first")
    _set(hook, values)
    _save(hook)
    audit.record(actor, "create", hook, project=project, new=_told(hook))
    return hook


@transaction.atomic
def update_webhook(actor: User, hook: Webhook, **fields: Any) -> Webhook:
    """Change what is given. A protected header without a value keeps the one it has."""
    access.require(actor, Permission.PROJECT_EDIT, hook.project)
    hook = Webhook.objects.select_for_update(of=("self",)).select_related("project", "deployment").get(pk=hook.pk)
    check = Checker()
    check.unknown(fields, _FIELDS)
    old = _told(hook)
    values = _checked(check, fields, orjson.loads(hook.headers))
    if "name" in fields:
        values["name"] = check.name("name", fields["name"])
    if "event" in values and (values["event"] == Webhook.Event.ALERT) != (hook.event == Webhook.Event.ALERT):
        check.problem("event", "An alert webhook stays one, and others never become one; make a new webhook")
    check.done()
    if values.get("enabled") and not hook.enabled:
        hook.announced_until = timezone.now()  # what happened meanwhile is not told
    _set(hook, values)
    _save(hook)
    old, new = audit.between(old, _told(hook))
    audit.record(actor, "update", hook, project=hook.project, old=old, new=new)
    return hook


@transaction.atomic
def delete_webhook(actor: User, hook: Webhook) -> None:
    access.require(actor, Permission.PROJECT_EDIT, hook.project)
    audit.record(actor, "delete", hook, project=hook.project, old=_told(hook))
    hook.delete()


@transaction.atomic
def test_webhook(actor: User, project: Project, **fields: Any) -> Delivery:
    """Send an example to an address as the webhook with these fields would; the message tells what became of it."""
    access.require(actor, Permission.PROJECT_EDIT, project)
    check = Checker()
    check.unknown(
        fields,
        ("url", "event", "headers", "timeout", "retry", "include_result", "object_type", "object_name", "version"),
    )
    values = _checked(check, {"url": None, "event": None, **fields}, [])
    deployment, version = _object(check, project, values.get("event", ""), fields)
    check.done()
    trial = {
        "url": values["url"],
        "headers": values.get("headers", []),
        "secret": secrets.token_urlsafe(32),
        "timeout": values.get("timeout", TIMEOUT),
        "retry": values.get("retry", False),
    }
    key = uuid.uuid4()
    row = Delivery(
        id=key,
        project=project,
        occasion=f"test:{key}",
        trial=orjson.dumps(trial).decode(),
        payload=example(project, deployment, version, values["event"], bool(values.get("include_result"))),
        next_attempt_at=timezone.now(),
    )
    delivery.put([row])
    return row


def get_test(actor: User, project: Project, test_id: str) -> Delivery:
    access.require(actor, Permission.PROJECT_VIEW, project)
    try:
        row = Delivery.objects.filter(project=project, pk=uuid.UUID(test_id)).first()
    except ValueError:
        row = None
    # Encrypted texts cannot be compared in the database: an empty one is told apart here.
    if row is None or not row.trial:
        raise NotFound("Webhook test", test_id)
    return row


def example(
    project: Project, deployment: Deployment | None, version: DeploymentVersion | None, event: str, result: bool
) -> dict[str, Any]:
    """A message as it would be, marked as a test."""
    if deployment is None:
        return {
            "event": event, "test": True, "state": "firing", "rule": "example", "kind": "error_rate",
            "project": project.name, "message": "This is a test of the webhook",
            "text": f"[TEST] This is a test of an alert webhook of project {project.name}. {settings.PILOTHOUSE_URL}",
        }  # fmt: skip
    version = version or deployment.default_version
    request = str(uuid.uuid4())
    status = {
        Webhook.Event.REQUEST_STARTED: Request.Status.PROCESSING,
        Webhook.Event.REQUEST_FAILED: Request.Status.FAILED,
    }.get(Webhook.Event(event), Request.Status.COMPLETED)
    content = {
        "event": event,
        "test": True,
        "deployment_id": str(deployment.pk),
        "deployment_name": deployment.name,
        "deployment_version_id": str(version.pk) if version else None,
        "deployment_version_name": version.version if version else None,
        "request_id": request,
        "status": status.value,
        "text": f"[TEST] Deployment request {request} {event.removeprefix('deployment_request_')} for deployment "
        f"{deployment.name} in project {project.name}",
    }
    if result and status == Request.Status.COMPLETED:
        content["result"] = {"example": True}
    return content


def _checked(check: Checker, fields: dict[str, Any], old_headers: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        match name:
            case "url":
                values[name] = _url(check, value)
            case "event":
                values[name] = check.choice(name, value, Webhook.Event.values)
            case "headers":
                values[name] = _headers(check, value or [], old_headers)
            case "description":
                values[name] = check.text(name, value or "", longest=400)
            case "labels":
                values[name] = check.labels(name, value or {})
            case "timeout":
                values[name] = check.integer(name, TIMEOUT if value is None else value, least=1, most=LONGEST_TIMEOUT)
            case "enabled" | "retry" | "include_result":
                values[name] = check.flag(name, (name == "enabled") if value is None else value)
    return values


def _url(check: Checker, value: Any) -> str:
    if not isinstance(value, str) or not value:
        check.problem("url", "This field is required")
        return ""
    try:
        guard.check_url(value)
    except guard.Refused as error:
        check.problem("url", str(error))
    return value


def _headers(check: Checker, value: Any, old: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        check.problem("headers", 'Give a list, for example [{"key": "X-Team", "value": "search", "protected": false}]')
        return []
    if len(value) > MAX_HEADERS:
        check.problem("headers", f"{len(value)} headers; at most {MAX_HEADERS} are allowed")
    kept = {item["key"].lower(): item["value"] for item in old if item["protected"]}
    found: list[dict[str, Any]] = []
    for item in value:
        key, text, protected = item.get("key"), item.get("value"), item.get("protected", False)
        if not isinstance(key, str) or not _HEADER_NAME.match(key):
            check.problem("headers", f"{str(key)[:80]!r} is no name of a header")
            continue
        if key.lower() in _OWN_HEADERS or key.lower().startswith("x-pilothouse-"):
            check.problem("headers", f"The platform sets the header '{key}' itself")
        if protected and not text:
            text = kept.get(key.lower())
        if not isinstance(text, str) or not text or len(text) > MAX_HEADER or not text.isprintable():
            # Never the value: it may be a secret.
            check.problem("headers", f"Header '{key}': give a printable value of at most {MAX_HEADER} characters")
            continue
        if not text.isascii():
            check.problem("headers", f"Header '{key}': only ASCII characters are allowed")
        found.append({"key": key, "value": text, "protected": bool(protected)})
    return found


def _object(
    check: Checker, project: Project, event: str, fields: dict[str, Any]
) -> tuple[Deployment | None, DeploymentVersion | None]:
    if event == Webhook.Event.ALERT:
        if fields.get("object_name"):
            check.problem("object_name", "A webhook of alerts has no object; alert rules choose it")
        return None, None
    check.choice("object_type", fields.get("object_type"), ["deployment"])
    deployment = project.deployments.filter(name=fields.get("object_name") or "").first()
    if deployment is None:
        check.problem("object_name", f"There is no deployment '{fields.get('object_name') or ''}' in the project")
        return None, None
    if not fields.get("version"):
        return deployment, None
    version = deployment.versions.filter(version=fields["version"]).first()
    if version is None:
        check.problem("version", f"Deployment '{deployment.name}' has no version '{fields['version']}'")
    return deployment, version


def _set(hook: Webhook, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(hook, name, orjson.dumps(value).decode() if name == "headers" else value)


def _save(hook: Webhook) -> None:
    try:
        with transaction.atomic():
            hook.save()
    except IntegrityError:
        raise Conflict(f"There is already a webhook '{hook.name}' in the project") from None


def _told(hook: Webhook) -> dict[str, Any]:
    """For the audit trail: which headers, not what they say, and of the address only the host."""
    return {
        "name": hook.name,
        "event": hook.event,
        "host": urlsplit(hook.url).hostname or "",
        "headers": [header["key"] for header in orjson.loads(hook.headers)],
        "description": hook.description,
        "labels": hook.labels,
        "timeout": hook.timeout,
        "enabled": hook.enabled,
        "retry": hook.retry,
        "include_result": hook.include_result,
    }
