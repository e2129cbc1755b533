"""Celery tasks of monitoring: short and safe to repeat. What waits for others' servers runs beside batch requests."""

import logging
import uuid

from celery import shared_task
from django.utils import timezone

from monitoring import logstore
from monitoring.alerts import delivery, evaluation, request_events
from monitoring.logstore.base import StoreUnavailable
from monitoring.logstore.sources import remove_empty
from monitoring.metrics import samples, sampling

logger = logging.getLogger(__name__)


@shared_task(name="monitoring.tasks.collect_metrics", ignore_result=True)
def collect_metrics() -> None:
    """Read the numbers of everything that runs."""
    sampling.collect()


@shared_task(name="monitoring.tasks.roll_up_metrics", ignore_result=True)
def roll_up_metrics() -> None:
    """Sum up samples to minutes and hours, and forget old ones."""
    now = timezone.now()
    samples.roll_up(now)
    samples.forget(now)


@shared_task(name="monitoring.tasks.evaluate_alerts", ignore_result=True)
def evaluate_alerts() -> None:
    """Judge every alert rule."""
    evaluation.evaluate(timezone.now())


@shared_task(name="monitoring.tasks.announce_requests", ignore_result=True)
def announce_requests() -> None:
    """Tell webhooks of requests that began or ended."""
    request_events.announce(timezone.now())


@shared_task(name="monitoring.tasks.send_due", ignore_result=True)
def send_due() -> None:
    """Queue messages whose time has come: retries, and those whose first task was lost."""
    delivery.hand_out(delivery.due(timezone.now()))


@shared_task(name="monitoring.tasks.deliver", ignore_result=True)
def deliver(delivery_id: str) -> None:
    """Try one message."""
    delivery.deliver(uuid.UUID(delivery_id))


@shared_task(name="monitoring.tasks.expire", ignore_result=True)
def expire() -> None:
    """Remove log lines, sources and deliveries whose time is over."""
    now = timezone.now()
    try:
        logstore.current().expire(now)
    except StoreUnavailable as error:
        logger.warning("Old log lines stay: %s", error)
    remove_empty(now)
    delivery.forget(now)
