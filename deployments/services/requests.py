"""Inference calls: direct and streaming ones wait for their answer, batch ones are queued and kept.

What is kept of a request follows the version's retention mode: ``full`` keeps input and result, ``metadata`` neither,
``none`` keeps no row of a direct request (a queued one needs its row until it is done).
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Invalid, NotFound, ServiceError, TooLarge, Unavailable
from accounts.models import Project, User
from deployments.models import Deployment, DeploymentVersion, Request
from deployments.services import request_rows, routing, scaling
from deployments.services.load import METER
from deployments.services.schema import validate_input
from deployments.services.threads import in_thread

RUN = "deployments.tasks.requests.run_request"

DIRECT_SECONDS = 300
BATCH_SECONDS = 14_400
LONGEST_SECONDS = 172_800
MOST_AT_ONCE = 250

Mode = DeploymentVersion.RetentionMode
Status = Request.Status

__all__ = [
    "Part",
    "create_requests",
    "delete",
    "direct_request",
    "get",
    "stream_request",
    "validate_input",
]


@dataclass(frozen=True, slots=True)
class Part:
    """One partial result of a streaming request: the text of one server-sent event."""

    text: str


async def direct_request(actor: User, version: DeploymentVersion, data: Any, timeout: float | None = None) -> Request:  # noqa: ASYNC109 - seconds for the instance
    """Send ``data`` to a ready instance, waiting for one if need be, and give the finished request.

    A failing user function is an answer too: a request in status failed with its ``error_message``. If an instance
    dies over the request, another one gets it once more. Raises NotFound and Forbidden from the permission gate,
    Invalid for data against the schema, TooLarge, Unavailable without an instance (with the reason), Timeout.
    """
    seconds = checked_timeout(timeout, DIRECT_SECONDS)
    await in_thread(admit, actor, version)
    return await direct_admitted(actor, version, data, seconds)


async def direct_admitted(actor: User, version: DeploymentVersion, data: Any, seconds: float) -> Request:
    """As `direct_request`, for a version that `admit` has let the actor send to; it asks the database for nothing."""
    row, body = _begin(actor, version, data, seconds)
    METER.begin(version.id)
    try:
        reply = await routing.send(version.id, "/request", body, headers=headers_of(row), seconds=seconds)
        row.instance_id = reply.endpoint.instance_id
        finish(row, reply.status, reply.body)
    except ServiceError as error:
        _fail(row, error.message)
        await _keep(version, row)
        raise
    finally:
        METER.end(version.id)
    await _keep(version, row)
    return row


async def stream_request(
    actor: User,
    version: DeploymentVersion,
    data: Any,
    timeout: float | None = None,  # noqa: ASYNC109 - seconds for the instance
) -> AsyncIterator[Part | Request]:
    """As `direct_request`, giving each `Part` as it comes and the finished request last.

    Nothing is sent again once the first part has been given.
    """
    seconds = checked_timeout(timeout, DIRECT_SECONDS)
    await in_thread(admit, actor, version)
    row, body = _begin(actor, version, data, seconds)
    row.streaming = True
    METER.begin(version.id)
    try:
        headers = {**headers_of(row), "Accept": "text/event-stream"}
        async with routing.open_reply(version.id, "/request", body, headers, seconds) as (endpoint, response):
            row.instance_id = endpoint.instance_id
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                finish(row, response.status, await response.read())
            else:
                async for name, text in events(response.content.iter_any()):
                    if name == "result":
                        finish(row, 200, text.encode())
                    elif name == "error":
                        finish(row, 500, text.encode())
                    else:
                        yield Part(text)
        if row.status not in Request.TERMINAL:
            _fail(row, "The instance ended its answer before the result.")
    except ServiceError as error:
        _fail(row, error.message)
        await _keep(version, row)
        raise
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        _fail(row, "The instance went away while it answered.")
        await _keep(version, row)
        raise Unavailable(row.error_message, code="interrupted") from error
    except (GeneratorExit, asyncio.CancelledError):
        _fail(row, "The client went away before the answer was complete.")
        await _keep(version, row)
        raise
    finally:
        METER.end(version.id)
    await _keep(version, row)
    yield row


@transaction.atomic
def create_requests(
    actor: User, version: DeploymentVersion, items: Sequence[Any], timeout: float | None = None
) -> list[Request]:
    """Queue one request per item; they are run as instances become free and kept for the retention time.

    Raises as `direct_request`, and Conflict when the version's queue is full.
    """
    seconds = checked_timeout(timeout, BATCH_SECONDS)
    project = version.deployment.project
    access.require(actor, Permission.REQUEST_SEND, project)
    _require_ready(project, version)
    if not items or len(items) > MOST_AT_ONCE:
        raise Invalid(data=f"Give 1 to {MOST_AT_ONCE} items at once, not {len(items)}")
    bodies = []
    for item in items:
        validate_input(version.deployment, item)
        if request_rows.storable(item) != item:
            raise Invalid(
                data="A text holds the character U+0000, which a queued request cannot keep; send it directly"
            )
        bodies.append(_encode(item))
    waiting = Request.objects.filter(
        version=version, batch=True, status__in=[Status.PENDING, Status.PROCESSING]
    ).count()
    if waiting + len(items) > version.maximum_queue_size:
        raise Conflict(
            f"The queue of version '{version.version}' holds {waiting} of at most {version.maximum_queue_size} "
            "requests; wait, or raise maximum_queue_size",
            code="queue_full",
        )
    now = timezone.now()
    rows = Request.objects.bulk_create(
        [
            Request(
                version=version,
                batch=True,
                request_data=item,
                input_size=len(body),
                timeout=int(seconds),
                created_by=actor,
                expires_at=now + dt.timedelta(seconds=seconds + version.request_retention_time),
            )
            for item, body in zip(items, bodies, strict=True)
        ]
    )
    transaction.on_commit(lambda: dispatch([row.id for row in rows]))
    if version.desired_instances == 0:
        transaction.on_commit(lambda: scaling.wake_up(version.id))
    return rows


def dispatch(request_ids: Iterable[uuid.UUID]) -> None:
    """Hand queued requests to the workers. What the broker does not take now, the sweep hands over later."""
    try:
        for request_id in request_ids:
            current_app.send_task(RUN, [str(request_id)], retry=False)
    except OperationalError:
        return


def get(actor: User, owner: Deployment | DeploymentVersion, request_id: uuid.UUID | str) -> Request:
    """One request of a deployment or version. Raises NotFound, also for what is no UUID."""
    project = _project(owner)
    access.require(actor, Permission.PROJECT_VIEW, project)
    row = (
        _of(owner).filter(pk=_uuid(request_id)).select_related("version__deployment", "instance", "created_by").first()
    )
    if row is None:
        raise NotFound("Request", request_id)
    return row


@transaction.atomic
def delete(actor: User, owner: Deployment | DeploymentVersion, request_id: uuid.UUID | str) -> None:
    """Forget a request; one that waits is cancelled by it. Raises NotFound and Forbidden."""
    project = _project(owner)
    access.require(actor, Permission.PROJECT_EDIT, project)
    row = _of(owner).filter(pk=_uuid(request_id)).first()
    if row is None:
        raise NotFound("Request", request_id)
    audit.record(actor, "delete", row, project=project, old={"status": row.status})
    row.delete()


def checked_timeout(value: float | None, default: int) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= LONGEST_SECONDS:
        raise Invalid(timeout=f"Give seconds from 1 to {LONGEST_SECONDS}")
    return float(value)


def finish(row: Request, status: int, body: bytes) -> None:
    """Write an instance's answer into the row."""
    row.output_size = len(body)
    row.time_completed = timezone.now()
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if status == 200 and isinstance(answer, dict) and "result" in answer:
        row.status, row.result, row.error_message = Status.COMPLETED, answer["result"], ""
        return
    row.status = Status.FAILED
    row.error_message = error_text(status, answer)


def error_text(status: int, answer: Any) -> str:
    """What an instance's error says to a person: the exception's type and message, never the whole traceback."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        kind, message = str(error.get("type") or "Error"), str(error.get("message") or "")
        return f"{kind}: {message}".rstrip(": ")[:10_000].replace("\0", "\ufffd")
    return f"The instance answered with HTTP {status} and no result."


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, str]]:
    """(event name, data) of a stream of server-sent events; the name of an unnamed one is ``message``.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    rest, name, lines = b"", "message", list[str]()
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for raw in whole:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line:
                if lines:
                    yield name, "\n".join(lines)
                name, lines = "message", []
            elif line.startswith("data:"):
                lines.append(line[5:].removeprefix(" "))
            elif line.startswith("event:"):
                name = line[6:].strip()


def _begin(actor: User, version: DeploymentVersion, data: Any, seconds: float) -> tuple[Request, bytes]:
    validate_input(version.deployment, data)
    body = _encode(data)
    now = timezone.now()
    row = Request(
        version_id=version.id,
        status=Status.PROCESSING,
        request_data=data,
        input_size=len(body),
        timeout=int(seconds),
        attempts=1,
        created_by_id=actor.id,
        time_created=now,
        time_started=now,
        expires_at=now + dt.timedelta(seconds=version.request_retention_time),
    )
    return row, body


def admit(actor: User, version: DeploymentVersion) -> None:
    """Whether the actor may send requests to the version, and it has something to answer them.

    Raises NotFound, Forbidden, Conflict for a suspended project, Unavailable without a revision.
    """
    project = version.deployment.project
    access.require(actor, Permission.REQUEST_SEND, project)
    _require_ready(project, version)


def _require_ready(project: Project, version: DeploymentVersion) -> None:
    if project.suspended:
        raise Conflict(f"Project '{project.name}' is suspended. Resume it first", code="project_suspended")
    if version.target_revision_id is None:
        raise Unavailable(
            f"Version '{version.version}' has nothing deployed yet. Upload a revision first", code="empty"
        )


def _encode(data: Any) -> bytes:
    try:
        body = orjson.dumps(data)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Invalid(data=f"This is not JSON: {error}") from None
    if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise TooLarge(f"data: {len(body)} bytes are more than the allowed {settings.DATA_UPLOAD_MAX_MEMORY_SIZE}")
    return body


def headers_of(row: Request) -> dict[str, str]:
    """What an instance is told of a request beside its data; user code finds it in its context."""
    headers = {
        "Content-Type": "application/json",
        "X-Request-Id": str(row.id),
        "X-Pilothouse-Request-Mode": "batch" if row.batch else "express",
    }
    if row.created_by_id is not None:
        headers["X-Pilothouse-User-Id"] = str(row.created_by_id)
    return headers


def _fail(row: Request, message: str) -> None:
    row.status, row.error_message, row.time_completed = Status.FAILED, message, timezone.now()


async def _keep(version: DeploymentVersion, row: Request) -> None:
    """Store what the retention mode wants, leaving the row that the caller gets whole."""
    if version.request_retention_mode == Mode.NONE:
        return
    if version.request_retention_mode == Mode.FULL:
        await request_rows.save(row)
        return
    bare = Request(**{field.attname: getattr(row, field.attname) for field in Request._meta.concrete_fields})
    bare.request_data = bare.result = None
    await request_rows.save(bare)


def _project(owner: Deployment | DeploymentVersion) -> Project:
    return owner.project if isinstance(owner, Deployment) else owner.deployment.project


def _of(owner: Deployment | DeploymentVersion) -> Any:
    if isinstance(owner, Deployment):
        return Request.objects.filter(version__deployment=owner)
    return Request.objects.filter(version=owner)


def _uuid(value: uuid.UUID | str) -> uuid.UUID | None:
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))
    except ValueError:
        return None
