"""Moving the number of instances: by the autoscaler, and by the first request to an idle version.

The decision itself is pure: `deployments.planning.autoscale`.
"""

import datetime as dt
import logging
import uuid
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Max, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.errors import Conflict, Invalid, NotFound
from deployments import valkey
from deployments.models import DeploymentVersion, Request, Rollout
from deployments.planning.autoscale import Decision, Limits, Load, decide
from deployments.services import intent, load, quotas

logger = logging.getLogger(__name__)


def set_desired(version_id: uuid.UUID, desired: int, *, expected: int) -> bool:
    """Change the wanted number of instances if it still is ``expected``; False when it is not or a quota forbids it."""
    with transaction.atomic():
        version = DeploymentVersion.objects.select_related("deployment__project").filter(pk=version_id).first()
        if version is None:
            return False
        try:
            version = intent.lock(version)
            if version.desired_instances != expected or version.target_revision_id is None:
                return False
            if version.deployment.project.suspended and desired > 0:
                return False
            if desired > expected:
                quotas.check(version, desired)
            intent.change(version, desired_instances=desired)
        except (Invalid, Conflict, NotFound) as error:
            logger.info("Version %s stays at %d instances: %s", version_id, expected, error)
            return False
    return True


def wake_up(version_id: uuid.UUID) -> bool:
    """Ask for one instance of an idle version; True if it was idle and now is asked to start.

    The request behind it counts from now on: a pass of the autoscaler that does not know of its load yet would send
    the instance away again.
    """
    DeploymentVersion.objects.filter(pk=version_id).update(last_request_at=timezone.now())
    return set_desired(version_id, 1, expected=0)


def autoscale(now: dt.datetime) -> int:
    """One pass over all versions that run or have work queued; how many were changed."""
    queued = {
        row["version"]: row["count"]
        for row in Request.objects.filter(batch=True, status__in=[Request.Status.PENDING, Request.Status.PROCESSING])
        .values("version")
        .annotate(count=Count("id"))
    }
    failed = Q(rollouts__state=Rollout.State.FAILED, rollouts__generation=F("generation"))
    unsettled = set(
        DeploymentVersion.objects.filter(
            Q(rollouts__state=Rollout.State.IN_PROGRESS) | failed, desired_instances__gt=0
        ).values_list("pk", flat=True)
    )
    versions = list(
        DeploymentVersion.objects.filter(
            Q(desired_instances__gt=0) | Q(pk__in=list(queued)), target_revision__isnull=False
        )
        .exclude(deployment__project__suspended=True)
        .annotate(rolled_at=Max(Coalesce("rollouts__finished_at", "rollouts__queued_at")))
    )
    keys = [version.pk for version in versions]
    busy, low = load.read(keys), _low_since(keys)
    changed = 0
    for version in versions:
        work = busy[version.pk]
        last = _last_request(version, work, version.rolled_at)
        # Queued requests that run already are counted where they run.
        waiting = max(queued.get(version.pk, 0) - work.running, 0)
        seen = Load(work.running, waiting, version.ready_instances, last, low.get(version.pk))
        made = decide(version.desired_instances, _limits(version, version.pk in unsettled), seen, now)
        _remember(version.pk, made, seen.low_since)
        if made.desired != version.desired_instances:
            changed += set_desired(version.pk, made.desired, expected=version.desired_instances)
    return changed


def _limits(version: DeploymentVersion, unsettled: bool) -> Limits:
    return Limits(
        minimum=version.minimum_instances,
        maximum=max(version.maximum_instances, 1),
        idle=dt.timedelta(seconds=version.maximum_idle_time),
        concurrency=version.instance_processes,
        moderate=version.scaling_strategy == DeploymentVersion.ScalingStrategy.MODERATE,
        unsettled=unsettled,
    )


def _last_request(version: DeploymentVersion, work: load.Busy, rolled_at: dt.datetime | None) -> dt.datetime:
    """The latest request, or change of what runs: an instance that has just started is not idle yet."""
    seen = dt.datetime.fromtimestamp(work.last, dt.UTC) if work.last else None
    saved = version.last_request_at
    if seen is not None and (saved is None or seen - saved > dt.timedelta(seconds=10)):
        DeploymentVersion.objects.filter(pk=version.pk).update(last_request_at=seen)
    times = [version.creation_date, saved, seen, rolled_at]
    return max(time for time in times if time is not None)


def _low_key(version_id: uuid.UUID) -> str:
    return f"pilothouse:low:{version_id}"


def _low_since(version_ids: list[uuid.UUID]) -> dict[uuid.UUID, dt.datetime]:
    if not version_ids:
        return {}
    values: Any = valkey.client().mget([_low_key(key) for key in version_ids])
    return {
        key: dt.datetime.fromtimestamp(float(value), dt.UTC)
        for key, value in zip(version_ids, values, strict=True)
        if value
    }


def _remember(version_id: uuid.UUID, made: Decision, before: dt.datetime | None) -> None:
    if made.low_since == before:
        return
    if made.low_since is None:
        valkey.client().delete(_low_key(version_id))
    else:
        valkey.client().set(_low_key(version_id), made.low_since.timestamp(), ex=600)
