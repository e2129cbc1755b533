"""Telling webhooks of requests that began or ended: found in the database, so that no request waits for it."""

import datetime as dt
import logging
from collections.abc import Iterator
from typing import Any

import orjson
from django.db.models import Q

from deployments.models import Request
from monitoring.alerts import delivery
from monitoring.models import Delivery, Webhook

logger = logging.getLogger(__name__)

PAGE = 500
MOST_AT_ONCE = 10_000
# Rows appear a moment after the time that is written in them.
OVERLAP = dt.timedelta(seconds=10)
# After an outage, what is older is not told any more.
OLDEST = dt.timedelta(hours=1)
LARGEST_RESULT = 16 * 1024

Event = Webhook.Event
Status = Request.Status
STATUSES: dict[str, tuple[str, ...]] = {
    Event.REQUEST_COMPLETED: (Status.COMPLETED,),
    Event.REQUEST_FAILED: (Status.FAILED,),
    Event.REQUEST_FINISHED: Request.TERMINAL,
}


def announce(now: dt.datetime) -> int:
    """One pass over the webhooks of requests; how many messages were made."""
    made = 0
    hooks = Webhook.objects.filter(enabled=True).exclude(event=Event.ALERT)
    for hook in hooks.select_related("project", "deployment", "version"):
        made += _of(hook, now)
    return made


def _of(hook: Webhook, now: dt.datetime) -> int:
    since = max(hook.announced_until or hook.creation_date, now - OLDEST)
    # Never what was before the webhook.
    begin = max(since - OVERLAP, hook.creation_date)
    made, until = 0, now
    for rows in _pages(hook, begin):
        known = set(
            Delivery.objects.filter(webhook=hook, occasion__in=[_occasion(hook, row) for row in rows]).values_list(
                "occasion", flat=True
            )
        )
        fresh = [row for row in rows if _occasion(hook, row) not in known]
        delivery.put(
            Delivery(
                project_id=hook.project_id,
                webhook=hook,
                occasion=_occasion(hook, row),
                payload=payload(hook, row),
                next_attempt_at=now,
            )
            for row in fresh
        )
        made += len(fresh)
        if made >= MOST_AT_ONCE:
            until = _moment(hook, rows[-1])
            break
    Webhook.objects.filter(pk=hook.pk).update(announced_until=until)
    return made


def _pages(hook: Webhook, begin: dt.datetime) -> Iterator[list[Request]]:
    field = "time_started" if hook.event == Event.REQUEST_STARTED else "time_completed"
    rows = Request.objects.select_related("version__deployment__project").order_by(field, "id")
    if hook.version_id is not None:
        rows = rows.filter(version=hook.version_id)
    else:
        rows = rows.filter(version__deployment=hook.deployment_id)
    if hook.event in STATUSES:
        rows = rows.filter(status__in=STATUSES[hook.event])
    rows = rows.filter(**{f"{field}__gte": begin})
    last: Request | None = None
    while True:
        page = rows
        if last is not None:
            at = getattr(last, field)
            page = rows.filter(Q(**{f"{field}__gt": at}) | Q(**{field: at, "id__gt": last.pk}))
        found = list(page[:PAGE])
        if found:
            yield found
        if len(found) < PAGE:
            return
        last = found[-1]


def _moment(hook: Webhook, row: Request) -> dt.datetime:
    found = row.time_started if hook.event == Event.REQUEST_STARTED else row.time_completed
    assert found is not None
    return found


def _occasion(hook: Webhook, row: Request) -> str:
    return f"{hook.event}:{row.pk}"


def payload(hook: Webhook, row: Request) -> dict[str, Any]:
    """As the public API's webhooks send it."""
    version = row.version
    deployment = version.deployment
    what = hook.event.removeprefix("deployment_request_")
    content: dict[str, Any] = {
        "event": hook.event,
        "deployment_id": str(deployment.pk),
        "deployment_name": deployment.name,
        "deployment_version_id": str(version.pk),
        "deployment_version_name": version.version,
        "request_id": str(row.pk),
        "status": Status.PROCESSING if what == "started" else row.status,
        "text": f"Deployment request {row.pk} {what} for deployment {deployment.name} {version.version} "
        f"in project {deployment.project.name}",
    }
    if hook.include_result and row.result is not None and len(orjson.dumps(row.result)) <= LARGEST_RESULT:
        content["result"] = row.result
    if row.error_message and what != "started":
        content["error_message"] = row.error_message[:LARGEST_RESULT]
    return content
