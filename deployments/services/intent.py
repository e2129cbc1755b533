"""Changing what should run: the lock, the generation, the rollout and the wake-up call that go with it.

Shared by the other services; nothing else writes `generation`, `target_revision` or a rollout's beginning.
"""

import logging
import uuid
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from kombu.exceptions import OperationalError

from accounts.errors import Conflict, NotFound
from accounts.models import Project, User
from deployments import triggers
from deployments.models import DeploymentVersion, Revision, Rollout
from deployments.services import quotas
from deployments.services.gpu import demand

logger = logging.getLogger(__name__)

COLLECT_GARBAGE = "deployments.tasks.collect_garbage"


def lock_project(project: Project) -> Project:
    """The project's row, locked until the transaction ends. Always taken before a version's, so none deadlock."""
    row = Project.objects.select_for_update(no_key=True).filter(pk=project.pk).first()
    if row is None:
        raise NotFound("Project", project.name)
    return row


def lock(version: DeploymentVersion) -> DeploymentVersion:
    """A fresh copy of the version whose row is locked until the transaction ends. Raises NotFound if it is gone."""
    project = lock_project(version.deployment.project)
    row = (
        DeploymentVersion.objects.select_for_update(of=("self",), no_key=True)
        .select_related(
            "deployment", "environment", "instance_type", "instance_type_group", "target_revision", "active_revision"
        )
        .filter(pk=version.pk)
        .first()
    )
    if row is None:
        raise NotFound("Version", version.version)
    row.deployment.project = project
    return row


def require_active(project: Project) -> None:
    if project.suspended:
        reason = f": {project.suspended_reason}" if project.suspended_reason else ""
        raise Conflict(f"Project '{project.name}' is suspended{reason}. Resume it first", code="project_suspended")


def change(version: DeploymentVersion, /, **columns: Any) -> None:
    """Saves columns of intent on a locked version, bumps its generation and wakes the reconciler."""
    updated = DeploymentVersion.objects.filter(pk=version.pk, generation=version.generation).update(
        generation=F("generation") + 1, last_updated=timezone.now(), **columns
    )
    if updated != 1:
        raise Conflict(f"Version '{version.version}' was changed by somebody else just now; look again and repeat")
    version.generation += 1
    for name, value in columns.items():
        setattr(version, name, value)
    reconcile_later(version.pk)
    if demand.may_need(version):
        schedule_gpus_later()


def roll_out(
    version: DeploymentVersion,
    actor: User,
    cause: Rollout.Cause,
    /,
    *,
    revision: Revision | None = None,
    **columns: Any,
) -> Rollout | None:
    """Saves ``columns`` and begins the passage of a locked version to ``revision`` (its target unless given).

    A rollout in progress is superseded. None when there is nothing to pass to: the version has no revision, or it
    is idle at zero instances and the change is not to its revision, so that the next start simply takes it.
    Otherwise at least one instance is wanted, so that what is rolled out is proven. Raises Invalid for the quota.
    """
    in_progress = version.rollouts.filter(state=Rollout.State.IN_PROGRESS)
    target = revision or version.target_revision
    if target is None or (revision is None and version.desired_instances == 0 and not in_progress.exists()):
        change(version, **columns)
        return None
    require_active(version.deployment.project)
    desired = columns.pop("desired_instances", version.desired_instances)
    minimum = columns.get("minimum_instances", version.minimum_instances)
    desired = max(desired, minimum, 1)
    quotas.check(
        version,
        desired,
        field="instances",
        instance_type=columns.get("instance_type", version.instance_type),
        group=columns.get("instance_type_group", version.instance_type_group),
    )
    change(version, target_revision=target, desired_instances=desired, **columns)
    in_progress.update(
        state=Rollout.State.SUPERSEDED,
        finished_at=timezone.now(),
        reason_code="superseded",
        reason_message="A newer rollout took over.",
    )
    return Rollout.objects.create(
        version=version,
        generation=version.generation,
        cause=cause,
        from_revision=version.active_revision,
        to_revision=target,
        created_by=actor,
    )


def reconcile_later(version_id: uuid.UUID) -> None:
    """Wakes the reconciler for a version once the transaction has committed."""
    transaction.on_commit(lambda: triggers.wake(version_id))


def schedule_gpus_later() -> None:
    """Has the claims on GPUs looked at anew once the transaction has committed."""
    transaction.on_commit(lambda: triggers.schedule_gpus() and None)


def collect_garbage_later() -> None:
    """Has what deleted rows owned in the cluster removed, once the transaction has committed."""
    transaction.on_commit(_collect_garbage)


def _collect_garbage() -> None:
    try:
        current_app.send_task(COLLECT_GARBAGE, retry=False)
    except OperationalError as error:
        # The change is committed; the periodic collection finds it when the broker is back.
        logger.warning("Could not queue %s, left to the schedule: %s", COLLECT_GARBAGE, error)
