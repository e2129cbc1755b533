"""The observed side: from what the cluster holds to rows. The only writer of columns of observation."""

import datetime as dt
import uuid
from typing import Any

from django.db import transaction

from deployments.models import DeploymentVersion, EnvironmentBuild, Instance, InstanceEvent, Revision, Rollout
from deployments.planning.progress import Progress
from kube.explain import Reason, explain_pod
from kube.state import Event, Pod

NO_REASON = {"reason_code": "", "reason_message": "", "reason_next": ""}


def reason_columns(reason: Reason | None) -> dict[str, str]:
    if reason is None:
        return dict(NO_REASON)
    return {"reason_code": reason.code, "reason_message": reason.message, "reason_next": reason.next}


def save_instances(version: DeploymentVersion, pods: tuple[Pod, ...], now: dt.datetime) -> bool:
    """Rows for the version's pods; those that are gone are kept with ``deleted_at``. Tells whether any changed."""
    known = {instance.id: instance for instance in version.instances.filter(deleted_at=None)}
    revisions = set(version.revisions.values_list("id", flat=True))
    changed = False
    for pod in pods:
        key = uuid.UUID(pod.uid)
        columns = _instance_columns(pod, revisions, now)
        have = known.pop(key, None)
        if have is None:
            instance, _ = Instance.objects.update_or_create(
                id=key, defaults={**columns, "version": version, "time_created": pod.created, "deleted_at": None}
            )
            changed = True
        else:
            instance = have
            if have.ready_at is not None:
                columns["ready_at"] = have.ready_at  # when it was ready first
            if any(getattr(have, name) != value for name, value in columns.items()):
                Instance.objects.filter(pk=key).update(**columns, time_updated=now)
                changed = True
        changed = _save_events(instance, pod.events) or changed
    for gone in known.values():
        status = gone.status if gone.status == Instance.Status.FAILED else Instance.Status.STOPPED
        Instance.objects.filter(pk=gone.pk).update(deleted_at=now, ready=False, status=status, time_updated=now)
        changed = True
    return changed


def _instance_columns(pod: Pod, revisions: set[uuid.UUID], now: dt.datetime) -> dict[str, Any]:
    reason = None if pod.deleting else explain_pod(pod, now)
    serving = pod.serving
    revision = uuid.UUID(pod.revision_id) if pod.revision_id else None
    return {
        "revision_id": revision if revision in revisions else None,
        "pod_name": pod.name,
        "node": pod.node,
        "address": pod.address,
        "status": _status(pod, reason),
        # A pod that is being stopped finishes what it has and gets nothing new.
        "ready": pod.ready and not pod.deleting,
        "restarts": pod.restarts,
        "scheduled_at": pod.scheduled_at,
        "package_at": pod.package_at,
        "started_at": serving.running_since if serving else None,
        "ready_at": pod.ready_at,
        **reason_columns(reason),
    }


def _status(pod: Pod, reason: Reason | None) -> str:
    if pod.deleting:
        return Instance.Status.STOPPING
    if pod.ready:
        return Instance.Status.RUNNING
    if pod.phase == "Failed" or (reason is not None and reason.hopeless):
        return Instance.Status.FAILED
    if pod.finished:
        return Instance.Status.STOPPED
    return Instance.Status.INITIALISING if pod.node else Instance.Status.PENDING


def _save_events(instance: Instance, events: tuple[Event, ...]) -> bool:
    if not events:
        return False
    known = {(row.reason, row.description): row for row in instance.events.all()}
    folded: dict[tuple[str, str], Event] = {}
    for event in events:
        folded[(event.reason, event.message)] = event  # the latest of equal ones
    changed = False
    for key, event in folded.items():
        first = event.first or instance.time_created
        last = event.last or first
        row = known.get(key)
        if row is None:
            InstanceEvent.objects.create(
                instance=instance,
                kind=event.kind[:10],
                reason=event.reason[:128],
                description=event.message,
                count=event.count,
                time_created=first,
                time_last_seen=last,
            )
            changed = True
        elif row.time_last_seen < last or row.count < event.count:
            InstanceEvent.objects.filter(pk=row.pk).update(count=event.count, time_last_seen=last)
            changed = True
    return changed


def save_steps(rollout: Rollout, progress: Progress, deadline: dt.timedelta, now: dt.datetime) -> bool:
    """First times of the steps of a rollout under way, its deadline and its reason."""
    columns: dict[str, Any] = {}
    before = rollout.queued_at
    for name in ("environment_at", "scheduled_at", "starting_at", "ready_at", "serving_at"):
        saved, reached = getattr(rollout, name), getattr(progress.steps, name)
        if saved is None and reached is not None:
            # The cluster's times are whole seconds of other clocks; a step never comes before the one before it.
            saved = columns[name] = max(reached, before)
        before = saved or before
    if progress.steps.environment_at is not None and rollout.deadline_at is None:
        columns["deadline_at"] = now + deadline
    for name, value in reason_columns(progress.reason).items():
        if getattr(rollout, name) != value:
            columns[name] = value
    if not columns:
        return False
    for name, value in columns.items():
        setattr(rollout, name, value)
    return bool(Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.IN_PROGRESS).update(**columns))


@transaction.atomic
def complete(rollout: Rollout, now: dt.datetime) -> None:
    """The rollout's revision answers all requests from now on."""
    if not Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.IN_PROGRESS).update(
        state=Rollout.State.COMPLETE, finished_at=now, serving_at=rollout.serving_at or now, **NO_REASON
    ):
        return
    rollout.state = Rollout.State.COMPLETE
    activate(rollout.version, rollout.to_revision)


def activate(version: DeploymentVersion, revision: Revision) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(active_revision=revision)
    version.active_revision = revision
    Revision.objects.filter(pk=revision.pk).update(status=Revision.Status.SUCCESS, error_message="")


@transaction.atomic
def fail(rollout: Rollout, reason: Reason, now: dt.datetime) -> None:
    """The rollout is given up. What answered before goes on answering."""
    if not Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.IN_PROGRESS).update(
        state=Rollout.State.FAILED, finished_at=now, **reason_columns(reason)
    ):
        return
    rollout.state = Rollout.State.FAILED
    for name, value in reason_columns(reason).items():
        setattr(rollout, name, value)
    # A revision that once worked is not blamed for settings or a cluster that stop it now.
    Revision.objects.filter(pk=rollout.to_revision_id).exclude(status=Revision.Status.SUCCESS).update(
        status=Revision.Status.FAILED, error_message=reason.message
    )


def save_version(version: DeploymentVersion, owner: str, columns: dict[str, Any], now: dt.datetime) -> bool:
    """Saves what was observed if the lease still is ours; tells whether anything but the time changed."""
    changed = any(getattr(version, name) != value for name, value in columns.items())
    DeploymentVersion.objects.filter(pk=version.pk, lease_owner=owner).update(**columns, observed_at=now)
    for name, value in columns.items():
        setattr(version, name, value)
    return changed


def mark_building(build: EnvironmentBuild) -> None:
    """Revisions that wait for a build which has started."""
    Revision.objects.filter(environment_build=build, status=Revision.Status.QUEUED).update(
        status=Revision.Status.BUILDING
    )
