"""Sending what is to be delivered: each message is claimed by compare-and-set, tried, and tried again later."""

import datetime as dt
import hashlib
import hmac
import logging
import random
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from celery import current_app
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from monitoring.alerts import guard
from monitoring.models import Delivery

logger = logging.getLogger(__name__)

DELIVER = "monitoring.tasks.deliver"
MOST_ATTEMPTS = 8
FIRST_PAUSE = 10.0
LONGEST_PAUSE = 3600.0
# Whoever claimed a message and died is replaced after its time and this.
CLAIM = dt.timedelta(seconds=60)
KEPT = dt.timedelta(days=14)
MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook's message goes, and how."""

    url: str
    headers: list[dict[str, Any]]
    secret: str
    timeout: int
    retry: bool


def put(deliveries: Iterable[Delivery]) -> None:
    """Store messages, those that are there already not again, and send them after the transaction."""
    made = list(deliveries)
    Delivery.objects.bulk_create(made, ignore_conflicts=True)
    transaction.on_commit(lambda: hand_out([delivery.pk for delivery in made]))


def hand_out(ids: Iterable[uuid.UUID]) -> None:
    """Queue the sending; what gets lost here is found by `due`."""
    try:
        for key in ids:
            current_app.send_task(DELIVER, [str(key)], retry=False)
    except OperationalError as error:
        logger.warning("Deliveries wait for the broker: %s", error)


def due(now: dt.datetime) -> list[uuid.UUID]:
    """Messages whose time has come, the longest waiting first."""
    rows = Delivery.objects.filter(state=Delivery.State.PENDING, next_attempt_at__lte=now)
    return list(rows.order_by("next_attempt_at").values_list("pk", flat=True)[:MOST_AT_ONCE])


def deliver(delivery_id: uuid.UUID) -> None:
    """Try one message, if nobody else does."""
    row = Delivery.objects.select_related("webhook").filter(pk=delivery_id, state=Delivery.State.PENDING).first()
    now = timezone.now()
    if row is None or row.next_attempt_at > now:
        return
    target = _target(row)
    claimed = Delivery.objects.filter(
        pk=row.pk, state=Delivery.State.PENDING, attempts=row.attempts, next_attempt_at=row.next_attempt_at
    ).update(attempts=row.attempts + 1, next_attempt_at=now + CLAIM + dt.timedelta(seconds=2 * target.timeout))
    if not claimed:
        return
    row.attempts += 1
    problem = _mail(row) if row.email else _post(row, target)
    _finish(row, target, problem)


def pause(attempts: int) -> dt.timedelta:
    """How long to wait after so many attempts: three times longer each time, and never all at once."""
    seconds = min(FIRST_PAUSE * 3 ** (attempts - 1), LONGEST_PAUSE)
    return dt.timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311


def signature(secret: str, at: int, body: bytes) -> str:
    """``t=UNIX TIME,v1=HEX``: HMAC-SHA256 with the webhook's secret over the time, a dot and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def forget(now: dt.datetime) -> int:
    """Delete what was delivered or given up long ago; how many."""
    return Delivery.objects.exclude(state=Delivery.State.PENDING).filter(created_at__lt=now - KEPT).delete()[0]


def _target(row: Delivery) -> Target:
    if row.trial:
        return Target(**orjson.loads(row.trial))
    if row.webhook is None:
        return Target("", [], "", settings.EMAIL_TIMEOUT, True)
    hook = row.webhook
    # An alert that is not told is worse than one told late, whatever the webhook says of requests.
    retry = hook.retry or hook.event == hook.Event.ALERT
    return Target(hook.url, orjson.loads(hook.headers), hook.secret, hook.timeout, retry)


def _post(row: Delivery, target: Target) -> str:
    """Empty, or what went wrong."""
    body, at = orjson.dumps(row.payload), int(time.time())
    headers = {header["key"]: header["value"] for header in target.headers}
    headers |= {
        "Content-Type": "application/json",
        "User-Agent": "pilothouse",
        "X-Pilothouse-Event": str(row.payload.get("event", "")),
        "X-Pilothouse-Delivery": str(row.pk),
        "X-Pilothouse-Signature": signature(target.secret, at, body),
    }
    try:
        answer = guard.post(target.url, headers, body, target.timeout)
    except guard.Refused as error:
        return str(error)
    if answer.status < 400:
        return ""
    return f"The receiver answers {answer.status}: {answer.text[:200]}".strip()


def _mail(row: Delivery) -> str:
    if settings.EMAIL_BACKEND.endswith("smtp.EmailBackend") and not settings.EMAIL_HOST:
        return "There is no mail server; the platform team names one with PILOTHOUSE_SMTP_HOST"
    try:
        send_mail(row.payload["subject"], row.payload["text"], None, [row.email])
    except OSError as error:  # smtplib's errors among them
        return f"The mail server refused: {error}"
    return ""


def _finish(row: Delivery, target: Target, problem: str) -> None:
    now, claimed = timezone.now(), Delivery.objects.filter(pk=row.pk, attempts=row.attempts)
    if not problem:
        claimed.update(state=Delivery.State.DELIVERED, error_message="", finished_at=now)
    elif target.retry and row.attempts < MOST_ATTEMPTS:
        claimed.update(error_message=problem, next_attempt_at=now + pause(row.attempts))
    else:
        claimed.update(state=Delivery.State.FAILED, error_message=problem, finished_at=now)
        logger.info("Delivery %s was given up after %d attempts", row.pk, row.attempts)
