"""Running queued requests, one task each, and finding those whose worker or message was lost."""

import datetime as dt
import logging
import threading
import uuid

import orjson
import redis
from celery import current_app, shared_task
from django.db.models import F
from django.utils import timezone

from accounts.errors import ServiceError, Timeout
from deployments import background, valkey
from deployments.models import DeploymentVersion, Request
from deployments.services import request_rows, routing
from deployments.services import requests as service
from deployments.services.load import METER

logger = logging.getLogger(__name__)

Status = Request.Status

# How long one task waits for a ready instance before it makes room for other versions' requests.
PATIENCE_SECONDS = 5
ATTEMPTS = 3
HEARTBEAT_SECONDS = 20
BATCH = 500


def _alive_key(request_id: uuid.UUID) -> str:
    return f"pilothouse:running:{request_id}"


@shared_task(name=service.RUN, bind=True, ignore_result=True, max_retries=None)
def run_request(self, request_id: str) -> None:
    """Run one queued request. Repeats and deleted rows are clean ends; without an instance it comes again later."""
    row = Request.objects.select_related("version").filter(pk=request_id, status=Status.PENDING, batch=True).first()
    if row is None:
        return
    if timezone.now() > row.time_created + dt.timedelta(seconds=row.timeout):
        _finish(row, Status.PENDING, f"No instance was free within {row.timeout} seconds.")
        return
    now = timezone.now()
    if not Request.objects.filter(pk=row.pk, status=Status.PENDING).update(
        status=Status.PROCESSING, time_started=now, attempts=F("attempts") + 1
    ):
        return
    row.status, row.time_started, row.attempts = Status.PROCESSING, now, row.attempts + 1
    if not _run(row):
        raise self.retry(countdown=min(2 ** min(self.request.retries, 4), 15))


def _run(row: Request) -> bool:
    """Whether the request is done with; False when no instance was there and it waits again."""
    body = orjson.dumps(row.request_data)
    left = (row.time_created + dt.timedelta(seconds=row.timeout) - timezone.now()).total_seconds()
    METER.begin(row.version_id)
    try:
        with _heartbeat(row.pk):
            work = routing.send(
                row.version_id,
                "/request",
                body,
                headers=service.headers_of(row),
                seconds=left,
                patience=PATIENCE_SECONDS,
            )
            reply = background.run(work)
    except Timeout as error:
        _finish(row, Status.PROCESSING, error.message)
        return True
    except ServiceError as error:
        if error.code == "interrupted" and row.attempts >= ATTEMPTS:
            _finish(row, Status.PROCESSING, error.message)
            return True
        back = {"attempts": row.attempts - 1} if error.code != "interrupted" else {}
        Request.objects.filter(pk=row.pk, status=Status.PROCESSING).update(
            status=Status.PENDING, time_started=None, **back
        )
        return False
    finally:
        METER.end(row.version_id)
    service.finish(row, reply.status, reply.body)
    _save(row, Status.PROCESSING, reply.endpoint.instance_id)
    return True


def _finish(row: Request, old: str, message: str) -> None:
    row.status, row.error_message, row.time_completed = Status.FAILED, message, timezone.now()
    _save(row, old, None)


def _save(row: Request, old: str, instance_id: uuid.UUID | None) -> None:
    version = row.version
    full = version.request_retention_mode == DeploymentVersion.RetentionMode.FULL
    columns = {
        "status": row.status,
        "error_message": row.error_message,
        "output_size": row.output_size,
        "time_completed": row.time_completed,
        "expires_at": timezone.now() + dt.timedelta(seconds=version.request_retention_time),
        "result": request_rows.storable(row.result),
    }
    if not full:
        columns["request_data"] = None
    if version.request_retention_mode == DeploymentVersion.RetentionMode.METADATA:
        columns["result"] = None
    instance = version.instances.filter(pk=instance_id).first() if instance_id else None
    # Only who took it may end it: after a lost heartbeat somebody else may have.
    Request.objects.filter(pk=row.pk, status=old).update(instance=instance, **columns)


class _heartbeat:  # noqa: N801 - used as a function
    """Says in Valkey that this process works on a request, for as long as the block lasts."""

    def __init__(self, request_id: uuid.UUID) -> None:
        self.key = _alive_key(request_id)
        self.over = threading.Event()

    def __enter__(self) -> None:
        self._beat()
        threading.Thread(target=self._run, name="request-heartbeat", daemon=True).start()

    def _run(self) -> None:
        while not self.over.wait(HEARTBEAT_SECONDS / 4):
            self._beat()

    def _beat(self) -> None:
        try:
            valkey.client().set(self.key, "1", ex=HEARTBEAT_SECONDS)
        except redis.RedisError as error:
            logger.info("Heartbeat of a request is late: %s", error)

    def __exit__(self, *_: object) -> None:
        self.over.set()


def recover(now: dt.datetime) -> int:
    """Queue again what lost its worker (no heartbeat, twice in a row) or its message; how many."""
    client = valkey.client()
    lost = 0
    before = now - dt.timedelta(seconds=HEARTBEAT_SECONDS)
    running = Request.objects.filter(batch=True, status=Status.PROCESSING, time_started__lt=before)
    for row in running.only("id", "attempts", "status", "version_id").order_by("time_started")[:BATCH]:
        if client.exists(_alive_key(row.pk)):
            continue
        if client.set(f"pilothouse:missed:{row.pk}", "1", nx=True, ex=120):
            continue  # Valkey itself may have restarted: believe it at the second look
        if row.attempts >= ATTEMPTS:
            Request.objects.filter(pk=row.pk, status=Status.PROCESSING).update(
                status=Status.FAILED,
                error_message=f"The request was interrupted {ATTEMPTS} times.",
                time_completed=now,
            )
        else:
            lost += Request.objects.filter(pk=row.pk, status=Status.PROCESSING).update(
                status=Status.PENDING, time_started=None
            )
    waiting = Request.objects.filter(batch=True, status=Status.PENDING, time_created__lt=before)
    for key in waiting.order_by("time_created").values_list("id", flat=True)[:BATCH]:
        # A message that is still there does no harm: only one task takes the row.
        if client.set(f"pilothouse:sent:{key}", "1", nx=True, ex=60):
            current_app.send_task(service.RUN, [str(key)], retry=False)
            lost += 1
    return lost
