"""Log lines of a project by query: kept ones, those just being written, and those of environment builds."""

import datetime as dt
from typing import Any

from accounts.errors import Invalid, Unavailable
from accounts.models import Project
from deployments.models import EnvironmentBuild, Revision
from kube.errors import ClusterUnreachable
from monitoring.entries import Entry
from monitoring.logql import Query, QueryError, parse
from monitoring.logstore.base import StoreUnavailable
from monitoring.logstore.reading import MOST_INSTANCES, lines

DEFAULT_LIMIT = 1000
LARGEST_LIMIT = 5000
_BILLION = 10**9


def query_logs(
    project: Project,
    query: str = "",
    start: dt.datetime | int | None = None,
    end: dt.datetime | int | None = None,
    limit: int | None = None,
) -> list[Entry]:
    """Lines of the project's instances and builds that match, in order of time.

    With ``start`` the first ``limit`` lines from it on, without it the last ``limit`` before ``end``; both are times
    or nanoseconds since 1970, ``end`` is exclusive. The caller has checked access to the project. Raises Invalid
    naming the argument, Unavailable without the store, or without the cluster when nothing is kept.
    """
    limit = DEFAULT_LIMIT if limit is None else limit
    if not 1 <= limit <= LARGEST_LIMIT:
        raise Invalid(limit=f"Give a number from 1 to {LARGEST_LIMIT}")
    try:
        wanted = parse(query)
    except QueryError as error:
        raise Invalid(query=f"{error}.") from None
    begin, stop = _nanoseconds(start), _nanoseconds(end)
    if begin is not None and stop is not None and stop <= begin:
        raise Invalid(end="The end must be after the start")
    found = _builds(project, wanted)
    try:
        found += lines(project, wanted, begin, stop, limit)
    except (ClusterUnreachable, StoreUnavailable) as error:
        raise Unavailable(
            f"The logs cannot be read: {error}",
            code="cluster_unreachable" if isinstance(error, ClusterUnreachable) else "store_unavailable",
            retry_after=10,
        ) from None
    kept = [
        entry
        for entry in found
        if (begin is None or entry.timestamp >= begin)
        and (stop is None or entry.timestamp < stop)
        and wanted.selects(entry.labels)
        and wanted.matches(entry.text)
    ]
    kept.sort(key=lambda entry: entry.timestamp)
    return kept[:limit] if begin is not None else kept[-limit:]


def _nanoseconds(value: dt.datetime | int | None) -> int | None:
    if value is None or isinstance(value, int):
        return value
    return int(value.timestamp()) * _BILLION + value.microsecond * 1000


def _builds(project: Project, wanted: Query) -> list[Entry]:
    """Lines of the builds of revisions. They carry no times of their own: all have the build's beginning."""
    found: dict[tuple[str, str], Entry] = {}
    revisions = Revision.objects.filter(
        version__deployment__project=project, environment_build__isnull=False
    ).select_related("version__deployment", "version__environment", "environment_build")
    for revision in revisions.order_by("-creation_date")[:MOST_INSTANCES]:
        version, build = revision.version, revision.environment_build
        assert build is not None
        labels = {
            "deployment_name": version.deployment.name,
            "deployment_version": version.version,
            "deployment_version_revision_id": str(revision.id),
            "environment_name": version.environment.name,
            "environment_tag": version.environment_tag,
            "environment_build_id": str(build.id),
            "system": True,
        }
        if build.log and wanted.selects(labels):
            for entry in _build_lines(build, labels):
                found.setdefault((str(build.id), f"{entry.timestamp}"), entry)
    return list(found.values())


def _build_lines(build: EnvironmentBuild, labels: dict[str, Any]) -> list[Entry]:
    base = _nanoseconds(build.started_at or build.created_at) or 0
    return [Entry(base + number, line, labels) for number, line in enumerate(build.log.splitlines())]
