"""What the log viewer asks for beside the live lines: instances, kept lines, the previous container, everything."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any

from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET

from accounts.errors import Invalid, NotFound, Unavailable
from accounts.models import Project
from deployments.models import DeploymentVersion, Instance
from deployments.services.threads import in_thread
from deployments.views.gate import Tenant, in_project
from deployments.views.status import of_instance
from deployments.views.versions import named
from kube.errors import ClusterUnreachable
from monitoring.entries import Entry
from monitoring.fanout import shown
from monitoring.logql import Query, parse
from monitoring.logstore.base import StoreUnavailable
from monitoring.logstore.reading import lines
from monitoring.models import LogSource
from monitoring.previous import previous_lines

INSTANCES_TOLD = 200
MOST_LINES = 5000
LONGEST_SINCE = 31 * 86400
_BILLION = 10**9


@in_project()
@require_GET
def instances(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> JsonResponse:
    """The version's instances, the latest first, those that are gone too."""
    found = named(request, tenant, deployment, version)
    rows = found.instances.select_related("revision").order_by("-time_created")[:INSTANCES_TOLD]
    told = [
        {
            "id": str(row.pk),
            "name": row.pod_name,
            "revision": row.revision.number if row.revision else 0,
            "state": "Gone" if row.deleted_at else of_instance(row).label,
            "gone": row.deleted_at is not None,
            "restarts": row.restarts,
        }
        for row in rows
    ]
    return JsonResponse({"instances": told})


@in_project()
@require_GET
def history(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> JsonResponse:
    """Kept and running instances' lines as one log: ``limit`` lines from ``from`` on, or the last before ``before``.

    ``since`` (seconds) leaves out what is older. ``more`` says that the limit cut the answer off.
    """
    found = named(request, tenant, deployment, version)
    begin, stop = _moment(request, "from"), _moment(request, "before")
    limit = _number(request, "limit", 500, MOST_LINES)
    entries = _lines(tenant.project, _all_of(found), begin, stop, limit)
    more = len(entries) == limit
    if since := _number(request, "since", 0, LONGEST_SINCE):
        oldest = int((timezone.now() - dt.timedelta(seconds=since)).timestamp() * _BILLION)
        entries = [entry for entry in entries if entry.timestamp >= oldest]
    return JsonResponse({"lines": _told(found, entries), "more": more})


@in_project()
@require_GET
def previous(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> JsonResponse:
    """What the container of an instance wrote before it was restarted."""
    found = named(request, tenant, deployment, version)
    try:
        key = uuid.UUID(request.GET.get("instance", ""))
    except ValueError:
        raise Invalid(instance="Give the id of an instance") from None
    row = found.instances.select_related("version__deployment__project", "revision").filter(pk=key).first()
    if row is None:
        raise NotFound("Instance", str(key))
    told = [shown(row.pod_name, row.revision.number if row.revision else 0, one.time, one.text)
            for one in previous_lines(row)]  # fmt: skip
    return JsonResponse({"lines": told})


class Download(StreamingHttpResponse):
    """Text written page by page as it is read, in a thread under ASGI."""

    def __init__(self, pages: Iterator[bytes], **kwargs: Any) -> None:
        self._pages = pages
        super().__init__(pages, **kwargs)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (page := await in_thread(next, self._pages, None)) is not None:
            yield page


@in_project()
@require_GET
def download(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponseBase:
    """Everything that is kept of the version's log as text: time, instance, line."""
    found = named(request, tenant, deployment, version)
    stop = int(timezone.now().timestamp() * _BILLION)
    pages = _pages(found, _moment(request, "from") or 0, stop)
    first = next(pages, b"")  # refusals come before the answer has begun
    return Download(
        chain([first], pages),
        content_type="text/plain; charset=utf-8",
        headers={
            "Content-Disposition": content_disposition_header(True, f"{deployment}-{version}.log") or "attachment",
            "Cache-Control": "no-store",
        },
    )


def _pages(version: DeploymentVersion, begin: int, stop: int) -> Iterator[bytes]:
    project, wanted = version.deployment.project, _all_of(version)
    while begin < stop:
        entries = _lines(project, wanted, begin, stop, MOST_LINES)
        if not entries:
            return
        last = entries[-1].timestamp
        begin = last + 1
        if len(entries) == MOST_LINES and entries[0].timestamp < last:
            # The page may end amid lines of one time: they come with the next one.
            entries, begin = [entry for entry in entries if entry.timestamp < last], last
        told = _told(version, entries)
        yield "".join(f"{line['time']} {line['instance']} {line['text']}\n" for line in told).encode()
        if len(told) < MOST_LINES and begin > last:
            return


def _all_of(version: DeploymentVersion) -> Query:
    # Names are plain words by their validators.
    return parse(f'{{deployment_name="{version.deployment.name}", deployment_version="{version.version}"}}')


def _lines(project: Project, wanted: Query, begin: int | None, stop: int | None, limit: int) -> list[Entry]:
    try:
        return lines(project, wanted, begin, stop, limit)
    except (ClusterUnreachable, StoreUnavailable) as error:
        raise Unavailable(f"The logs cannot be read: {error}", retry_after=10) from None


def _told(version: DeploymentVersion, entries: list[Entry]) -> list[dict[str, Any]]:
    """As the live lines are: by pod and number of the revision."""
    ids = {entry.labels["instance_id"] for entry in entries}
    pods: dict[str, tuple[str, int]] = {}
    for key, pod, number in LogSource.objects.filter(instance_id__in=ids).values_list(
        "instance_id", "pod_name", "revision_number"
    ):
        pods[str(key)] = (pod, number)
    if missing := ids - set(pods):
        rows = Instance.objects.filter(pk__in=missing, version=version).values_list(
            "pk", "pod_name", "revision__number"
        )
        pods |= {str(key): (pod, number or 0) for key, pod, number in rows}
    told = []
    for entry in entries:
        key = entry.labels["instance_id"]
        pod, revision = pods.get(key, (key, 0))
        told.append(shown(pod, revision, entry.timestamp, entry.text))
    return told


def _moment(request: HttpRequest, name: str) -> int | None:
    """Nanoseconds since 1970 from ISO 8601 with up to nine decimals; None when it is not given. Raises Invalid."""
    text = request.GET.get(name, "")
    if not text:
        return None
    whole, _, rest = text.removesuffix("Z").partition(".")
    try:
        moment = parse_datetime(f"{whole}Z")
    except ValueError:
        moment = None
    if moment is None or len(rest) > 9 or (rest and not (rest.isascii() and rest.isdigit())):
        raise Invalid(**{name: f"'{text[:60]}' is not a time such as 2026-01-31T12:00:00.000000000Z"})
    return int(moment.timestamp()) * _BILLION + int(rest.ljust(9, "0") or 0)


def _number(request: HttpRequest, name: str, usual: int, most: int) -> int:
    text = request.GET.get(name, "")
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= most):
        raise Invalid(**{name: f"Give a number from 1 to {most}"})
    return int(text)
