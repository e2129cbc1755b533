"""Reading lines as one log: what is kept, and what running instances wrote since, without a seam between the two."""

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import aiohttp
from django.db.models import F, Q

from accounts.models import Project
from deployments import background
from deployments import cluster as clusters
from deployments.models import DeploymentVersion, Instance
from kube.connect import Cluster
from kube.errors import ClusterUnreachable
from kube.logs import Cursor, Resume, read
from monitoring import logstore
from monitoring.containers import PACKAGE, SERVING, marked
from monitoring.entries import Entry, line_labels
from monitoring.logql import Query
from monitoring.logstore.base import LogStore, StoredLine, Window
from monitoring.models import LogSource

MOST_INSTANCES = 200
# Instances of the past are looked through as well, the latest ones first.
MOST_SOURCES = 2000
# A query that the store cannot answer by itself looks at no more lines than this.
MOST_SCANNED = 500_000
AT_ONCE = 16
_END = 2**63 - 1
# A line by its instance, time and ordinal.
Found = tuple[tuple[uuid.UUID, int, int], Entry]
# Labels that a line adds to those of its source.
_OF_LINES = frozenset({"deployment_request_id", "level", "process_id"})


class _Running(NamedTuple):
    """An instance that may write, and how far it is kept; ``first``: what brought its package is of interest too."""

    pod: str
    position: Cursor
    labels: dict[str, Any]
    first: bool


def lines(project: Project, wanted: Query, begin: int | None, stop: int | None, limit: int) -> list[Entry]:
    """Up to ``limit`` lines of instances that match, from ``begin`` on or else the last before ``stop``.

    Times in nanoseconds. While the cluster is away what is kept is all there is; raises ClusterUnreachable when
    nothing is, StoreUnavailable when the store does not answer.
    """
    # Positions are read before the kept lines: what is kept in between is found twice and told once, never missed.
    sources = _sources(project, wanted)
    running = _running(project, wanted, {source.instance_id: source for source in sources.values()})
    window = Window(
        begin or 0,
        _END if stop is None else stop,
        begin is not None,
        wanted.needles,
        wanted.pinned.get("deployment_request_id", ""),
    )
    found = {
        (sources[line.source].instance_id, line.time, line.ordinal): entry
        for line, entry in _kept(logstore.current(), sources, window, wanted, limit)
    }
    if running and (stop is None or any(stop > one.position.time for one in running.values())):
        live: list[Found] = []
        try:
            live = background.run(_read_all(clusters.current(), project.namespace, running, window.begin), timeout=60)
        except ClusterUnreachable:
            if not found:
                raise
        for key, entry in live:
            if window.begin <= key[1] < window.stop and wanted.selects(entry.labels) and wanted.matches(entry.text):
                found.setdefault(key, entry)
    ordered = [found[key] for key in sorted(found, key=lambda key: (key[1], str(key[0]), key[2]))]
    return ordered[:limit] if begin is not None else ordered[-limit:]


def labels_of(source: LogSource) -> dict[str, Any]:
    """Labels of a source's lines, named as the public API's log metadata."""
    return {
        "deployment_name": source.deployment_name,
        "deployment_version": source.version_name,
        "deployment_version_revision_id": str(source.revision_id or ""),
        "instance_id": str(source.instance_id),
        "environment_name": source.environment_name,
        "environment_tag": source.environment_tag,
        "system": False,
    }


def _sources(project: Project, wanted: Query) -> dict[int, LogSource]:
    """Under the names of today: what was renamed keeps its lines, and who took its old name does not get them."""
    versions = DeploymentVersion.objects.filter(deployment__project=project)
    names = {key: (name, version) for key, name, version in versions.values_list("id", "deployment__name", "version")}
    rows = LogSource.objects.filter(project=project).order_by(F("ended_at").desc(nulls_first=True), "-id")
    for place, (label, column) in enumerate(
        (("deployment_name", "deployment_name"), ("deployment_version", "version_name"))
    ):
        if (wanted_name := wanted.pinned.get(label)) is not None:
            here = [key for key, each in names.items() if each[place] == wanted_name]
            rows = rows.filter(Q(version_id__in=here) | (Q(**{column: wanted_name}) & ~Q(version_id__in=names)))
    chosen = (
        source for source in map(partial(_renamed, names), rows.iterator()) if _may_select(wanted, labels_of(source))
    )
    return {source.pk: source for source, _ in zip(chosen, range(MOST_SOURCES), strict=False)}


def _renamed(names: Mapping[uuid.UUID, tuple[str, str]], source: LogSource) -> LogSource:
    source.deployment_name, source.version_name = names.get(
        source.version_id, (source.deployment_name, source.version_name)
    )
    return source


def _running(project: Project, wanted: Query, known: dict[uuid.UUID, LogSource]) -> dict[uuid.UUID, _Running]:
    """Pod, position and labels of instances that may have written more than is kept."""
    instances = Instance.objects.filter(version__deployment__project=project, deleted_at=None).select_related(
        "version__deployment", "version__environment"
    )
    running = {}
    for instance in instances.order_by("-time_created"):
        version, source = instance.version, known.get(instance.id)
        labels = {
            "deployment_name": version.deployment.name,
            "deployment_version": version.version,
            "deployment_version_revision_id": str(instance.revision_id or ""),
            "instance_id": str(instance.id),
            "environment_name": version.environment.name,
            "environment_tag": version.environment_tag,
            "system": False,
        }
        if not _may_select(wanted, labels) or (source is not None and source.ended_at is not None):
            continue
        position = Cursor(source.position_time, source.position_count) if source is not None else Cursor()
        first = not position.time or instance.started_at is None
        running[instance.id] = _Running(instance.pod_name, position, labels, first)
        if len(running) == MOST_INSTANCES:
            break
    return running


class _Open(dict[str, Any]):
    """Labels of a source, which its lines may add to: asking for one of those is remembered."""

    asked = False

    def get(self, key: str, default: Any = None) -> Any:
        if key in _OF_LINES:
            self.asked = True
        return super().get(key, default)


def _may_select(wanted: Query, labels: dict[str, Any]) -> bool:
    # Tests on labels that only a line has are made when lines are there.
    probe = _Open(labels)
    return wanted.selects(probe) or probe.asked


def _kept(
    store: LogStore, sources: dict[int, LogSource], window: Window, wanted: Query, limit: int
) -> Iterator[tuple[StoredLine, Entry]]:
    labels = {key: labels_of(source) for key, source in sources.items()}
    taken = 0
    for scanned, line in enumerate(store.read(sources, window)):
        if taken == limit or scanned == MOST_SCANNED:
            return
        if not wanted.matches(line.text):
            continue
        entry = Entry(line.time, line.text, {**labels[line.source], **line_labels(line.text)})
        if wanted.selects(entry.labels):
            taken += 1
            yield line, entry


async def _read_all(
    cluster: Cluster,
    namespace: str,
    running: dict[uuid.UUID, _Running],
    begin: int,
) -> list[Found]:
    ssl = cluster.ssl_context()
    gate = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.TCPConnector(ssl=ssl if ssl is not None else True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(key: uuid.UUID) -> list[Found]:
            pod, position, labels, first = running[key]
            # From the position's second on, so that lines of one time get the ordinals that the collector gives them.
            since = max(position.time, begin) // 10**9 * 10**9
            async with gate:
                # What brought the package came first: of an instance of which nothing is kept yet, or whose server
                # has not begun.
                early = await read(session, cluster, namespace, pod, PACKAGE, since=since) if first else []
                raw = await read(session, cluster, namespace, pod, SERVING, since=since)
            resume, found = Resume(position), []
            for line in [*(marked(line, PACKAGE) for line in early), *raw]:
                if resume.fresh(line):
                    entry = Entry(line.time, line.text, {**labels, **line_labels(line.text)})
                    found.append(((key, line.time, position.count - 1), entry))
            return found

        parts = await asyncio.gather(*(one(key) for key in running))
    return [entry for part in parts for entry in part]
