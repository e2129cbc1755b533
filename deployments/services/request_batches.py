"""Several requests at once: finding, collecting, cancelling and deleting them."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import User
from deployments.models import Deployment, DeploymentVersion, Request

Owner = Deployment | DeploymentVersion

MOST_AT_ONCE = 250
OPEN = (Request.Status.PENDING, Request.Status.PROCESSING)


def find(
    actor: User,
    owner: Owner,
    *,
    status: Sequence[str] = (),
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    search_id: str = "",
) -> QuerySet[Request]:
    """The requests of a deployment or version, newest first, without their inputs and results."""
    access.require(actor, Permission.PROJECT_VIEW, _project(owner))
    rows = _of(owner).select_related("version__deployment").defer("request_data", "result")
    if unknown := set(status) - set(Request.Status.values):
        raise Invalid(status=f"Unknown: {', '.join(sorted(unknown))}; use {', '.join(Request.Status.values)}")
    if status:
        rows = rows.filter(status__in=status)
    if start is not None:
        rows = rows.filter(time_created__gte=start)
    if end is not None:
        rows = rows.filter(time_created__lt=end)
    if search_id:
        rows = rows.filter(pk__in=[key for key in _keys([search_id]) if key])
    return rows


def collect(actor: User, owner: Owner, ids: Any) -> list[Request]:
    """The requests of these ids, in their order. Raises NotFound naming the first that is not there."""
    access.require(actor, Permission.PROJECT_VIEW, _project(owner))
    keys = _checked(ids)
    found = {row.pk: row for row in _of(owner).filter(pk__in=keys).select_related("version__deployment")}
    for key in keys:
        if key not in found:
            raise NotFound("Request", key)
    return [found[key] for key in keys]


@transaction.atomic
def cancel(actor: User, owner: Owner, ids: Any) -> int:
    """Cancels waiting batch requests; how many. One that an instance works on already goes on."""
    project = _project(owner)
    access.require(actor, Permission.PROJECT_EDIT, project)
    keys = [row.pk for row in collect(actor, owner, ids)]
    cancelled = _cancel(_of(owner).filter(pk__in=keys))
    audit.record(actor, "cancel", owner, project=project, new={"requests": cancelled})
    return cancelled


@transaction.atomic
def cancel_all(actor: User, owner: Owner) -> int:
    """Cancels all that wait."""
    project = _project(owner)
    access.require(actor, Permission.PROJECT_EDIT, project)
    cancelled = _cancel(_of(owner))
    audit.record(actor, "cancel", owner, project=project, new={"requests": cancelled})
    return cancelled


@transaction.atomic
def cancel_one(actor: User, owner: Owner, request_id: uuid.UUID | str) -> None:
    """Raises Conflict when the request waits no more."""
    if not cancel(actor, owner, [str(request_id)]):
        raise Conflict(f"Request '{request_id}' does not wait any more and cannot be cancelled")


@transaction.atomic
def delete(actor: User, owner: Owner, ids: Any) -> int:
    """Forgets requests; those that wait are cancelled by it. Raises NotFound and deletes none if one is missing."""
    project = _project(owner)
    access.require(actor, Permission.PROJECT_EDIT, project)
    keys = [row.pk for row in collect(actor, owner, ids)]
    deleted, _ = _of(owner).filter(pk__in=keys).delete()
    audit.record(actor, "delete", owner, project=project, old={"requests": len(keys)})
    return deleted


def _cancel(rows: QuerySet[Request]) -> int:
    return rows.filter(status=Request.Status.PENDING, batch=True).update(
        status=Request.Status.CANCELLED, time_completed=timezone.now(), error_message="Cancelled."
    )


def _project(owner: Owner) -> Any:
    return owner.project if isinstance(owner, Deployment) else owner.deployment.project


def _of(owner: Owner) -> QuerySet[Request]:
    if isinstance(owner, Deployment):
        return Request.objects.filter(version__deployment=owner)
    return Request.objects.filter(version=owner)


def _checked(ids: Any) -> list[uuid.UUID]:
    if not isinstance(ids, list) or not 0 < len(ids) <= MOST_AT_ONCE:
        raise Invalid(data=f"Give a list of 1 to {MOST_AT_ONCE} request ids")
    keys = _keys(ids)
    for given, key in zip(ids, keys, strict=True):
        if key is None:
            raise NotFound("Request", given)
    return [key for key in keys if key is not None]


def _keys(ids: Sequence[Any]) -> list[uuid.UUID | None]:
    def key(value: Any) -> uuid.UUID | None:
        try:
            return uuid.UUID(str(value))
        except ValueError:
            return None

    return [key(value) for value in ids]
