"""What instances there are whose log is kept, and how far each log was stored."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from deployments.models import DeploymentVersion, Revision
from monitoring.models import LogRetention, LogSource


@dataclass(frozen=True, slots=True)
class Position:
    """Time of the last stored line and how many lines of that time were stored."""

    time: int = 0
    count: int = 0


def find_or_create(
    instance_id: uuid.UUID, namespace: str, pod: str, version_id: str, revision_id: str
) -> LogSource | None:
    """The row of a pod by its labels; None when it belongs to no version of ours in that namespace."""
    found = LogSource.objects.filter(instance_id=instance_id).first()
    if found is not None:
        return found
    version = (
        DeploymentVersion.objects.filter(pk=_uuid(version_id), deployment__project__namespace=namespace)
        .select_related("deployment__project", "environment")
        .first()
    )
    if version is None:
        return None
    revision = Revision.objects.filter(pk=_uuid(revision_id), version=version).first()
    source, _ = LogSource.objects.get_or_create(
        instance_id=instance_id,
        defaults={
            "project": version.deployment.project,
            "pod_name": pod,
            "deployment_id": version.deployment_id,
            "deployment_name": version.deployment.name,
            "version_id": version.pk,
            "version_name": version.version,
            "revision_id": revision.pk if revision else None,
            "revision_number": revision.number if revision else 0,
            "environment_name": version.environment.name,
            "environment_tag": version.environment_tag,
        },
    )
    return source


def advance(moves: Mapping[int, tuple[Position, Position]]) -> set[int]:
    """Move positions from where they were left; the ids of those that somebody else has moved, or removed."""
    if not moves:
        return set()
    ids = list(moves)
    columns = [
        ids,
        [moves[key][0].time for key in ids],
        [moves[key][0].count for key in ids],
        [moves[key][1].time for key in ids],
        [moves[key][1].count for key in ids],
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE monitoring_logsource s SET position_time = v.time, position_count = v.count "
            "FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) "
            "AS v(id, old_time, old_count, time, count) "
            "WHERE s.id = v.id AND s.position_time = v.old_time AND s.position_count = v.old_count RETURNING s.id",
            columns,
        )
        moved = {key for (key,) in cursor.fetchall()}
    return set(ids) - moved


def remove_empty(now: dt.datetime) -> int:
    """Delete the rows of instances that ended before anything of theirs could still be kept; how many."""
    gone = 0
    days = dict(LogRetention.objects.values_list("project_id", "days"))
    ended = LogSource.objects.exclude(ended_at=None)
    for project, kept in days.items():
        gone += ended.filter(project_id=project, ended_at__lt=now - dt.timedelta(days=kept)).delete()[0]
    usual = now - dt.timedelta(days=settings.PILOTHOUSE_LOG_RETENTION_DAYS)
    return gone + ended.exclude(project_id__in=days).filter(ended_at__lt=usual).delete()[0]


def _uuid(text: str) -> uuid.UUID:
    """An id from a label; one that nothing has when the label is none."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.UUID(int=0)
