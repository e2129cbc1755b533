"""Log lines of a project by query, read from its running instances and its environment builds."""

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from accounts.errors import Invalid, Unavailable
from accounts.models import Project
from deployments import background
from deployments import cluster as clusters
from deployments.models import EnvironmentBuild, Instance, Revision
from kube.connect import Cluster
from kube.errors import ClusterUnreachable
from kube.logs import read
from monitoring.logql import Query, QueryError, parse

DEFAULT_LIMIT = 1000
LARGEST_LIMIT = 5000
MOST_INSTANCES = 200
AT_ONCE = 16
CONTAINER = "serving"
_BILLION = 10**9


@dataclass(frozen=True, slots=True)
class Entry:
    """One line; ``timestamp`` in nanoseconds since 1970, ``labels`` named as the public API's log metadata."""

    timestamp: int
    text: str
    labels: dict[str, Any]


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
    naming the argument, Unavailable without the cluster.
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
    sources = _instances(project, wanted)
    if sources:
        try:
            found += background.run(_read_all(clusters.current(), sources, begin or 0), timeout=60)
        except ClusterUnreachable as error:
            raise Unavailable(f"The logs cannot be read: {error}", code="cluster_unreachable", retry_after=10) from None
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


@dataclass(frozen=True, slots=True)
class _Source:
    namespace: str
    pod: str
    labels: dict[str, Any]


def _instances(project: Project, wanted: Query) -> list[_Source]:
    instances = Instance.objects.filter(version__deployment__project=project, deleted_at=None).select_related(
        "version__deployment", "version__environment"
    )
    sources = []
    for instance in instances.order_by("-time_created"):
        version = instance.version
        labels = {
            "deployment_name": version.deployment.name,
            "deployment_version": version.version,
            "deployment_version_revision_id": str(instance.revision_id or ""),
            "instance_id": str(instance.id),
            "environment_name": version.environment.name,
            "environment_tag": version.environment_tag,
            "system": False,
        }
        # Tests on labels that only a line has (its request, its level) are made when lines are there.
        if _may_select(wanted, labels):
            sources.append(_Source(project.namespace, instance.pod_name, labels))
    return sources[:MOST_INSTANCES]


class _Open(dict[str, Any]):
    """Labels of a source, which its lines may add to: asking for one of those is remembered."""

    asked = False

    def get(self, key: str, default: Any = None) -> Any:
        if key in _OF_LINES:
            self.asked = True
        return super().get(key, default)


_OF_LINES = frozenset({"deployment_request_id", "level", "process_id"})


def _may_select(wanted: Query, labels: dict[str, Any]) -> bool:
    probe = _Open(labels)
    return wanted.selects(probe) or probe.asked


async def _read_all(cluster: Cluster, sources: list[_Source], since: int) -> list[Entry]:
    ssl = cluster.ssl_context()
    gate = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.TCPConnector(ssl=ssl if ssl is not None else True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(source: _Source) -> list[Entry]:
            async with gate:
                lines = await read(session, cluster, source.namespace, source.pod, CONTAINER, since=since)
            return [Entry(line.time, line.text, {**source.labels, **line_labels(line.text)}) for line in lines]

        parts = await asyncio.gather(*(one(source) for source in sources))
    return [entry for part in parts for entry in part]


def line_labels(text: str) -> dict[str, Any]:
    """What a line written as JSON says of itself: its request and its level."""
    if not text.startswith("{"):
        return {}
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    labels: dict[str, Any] = {}
    if isinstance(line.get("request_id"), str):
        labels["deployment_request_id"] = line["request_id"]
    if isinstance(line.get("level"), str):
        labels["level"] = line["level"]
    if isinstance(line.get("process_id"), int):
        labels["process_id"] = line["process_id"]
    return labels


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
