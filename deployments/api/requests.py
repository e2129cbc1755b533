"""Inference requests: direct ones wait for their answer, batch ones are queued, streaming ones answer in parts."""

import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

from django.http import StreamingHttpResponse
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, AsyncApiView, integer, rows
from deployments.api.parsers import JsonParser, TextParser
from deployments.api.serializers.running import (
    CancelledOutput,
    RequestCreatedOutput,
    RequestListOutput,
    RequestOutput,
    RequestQueuedOutput,
    RequestUpdate,
)
from deployments.models import DeploymentVersion
from deployments.models import Request as RequestRow
from deployments.services import request_batches, requests
from deployments.services.threads import in_thread

TIMEOUT = OpenApiParameter("timeout", int, description="seconds")
ANY_JSON = {"application/json": {}, "text/plain": {"type": "string"}}
IDS = {"application/json": {"type": "array", "items": {"type": "string", "format": "uuid"}}}


class EventStreamRenderer(BaseRenderer):
    """So that `Accept: text/event-stream` is acceptable; refusals are JSON all the same."""

    media_type = "text/event-stream"
    format = "events"

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else json.dumps(data).encode()


class OfOwner(ApiView):
    """A view of the requests of a version, or of all versions of a deployment."""

    permission = Permission.REQUEST_SEND

    def owner(self, permission: Permission | None = None) -> request_batches.Owner:
        return self.version(permission) if "version" in self.kwargs else self.deployment(permission)


def timeout_of(request: Request) -> int | None:
    return integer(request, "timeout", 0) or None


def moment(request: Request, name: str) -> dt.datetime | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise Invalid(**{name: f"'{text}' is no ISO 8601 date and time"})
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


class RequestsView(AsyncApiView, OfOwner):
    parser_classes = (JsonParser, TextParser)

    @extend_schema(
        tags=["requests"],
        parameters=[
            OpenApiParameter("status", description="several separated by commas"),
            OpenApiParameter("limit", int),
            OpenApiParameter("offset", int),
            OpenApiParameter("start_date", description="ISO 8601, inclusive"),
            OpenApiParameter("end_date", description="ISO 8601, exclusive"),
            OpenApiParameter("search_id"),
        ],
        responses=RequestListOutput(many=True),
    )
    async def get(self, request: Request, **names: str) -> Response:
        return await in_thread(self._list, request)

    def _list(self, request: Request) -> Response:
        found = request_batches.find(
            self.actor,
            self.owner(Permission.PROJECT_VIEW),
            status=[word for word in request.query_params.get("status", "").split(",") if word],
            start=moment(request, "start_date"),
            end=moment(request, "end_date"),
            search_id=request.query_params.get("search_id", ""),
        )
        offset = integer(request, "offset", 0)
        limit = integer(request, "limit", 50, least=1, most=500)
        return Response(rows(RequestListOutput, found[offset : offset + limit]))

    @extend_schema(
        tags=["requests"],
        parameters=[TIMEOUT],
        request=ANY_JSON,
        responses=RequestCreatedOutput,
        description="Sends the data to an instance, starting one if there is none, and waits for the answer. A "
        "failing user function is an answer with status failed.",
    )
    async def post(self, request: Request, **names: str) -> Response:
        version, data = await in_thread(self._read, request)
        row = await requests.direct_request(self.actor, version, data, timeout_of(request))
        return Response(created(row, version))

    def _read(self, request: Request) -> tuple[DeploymentVersion, Any]:
        return self.version(), request.data


class StreamView(AsyncApiView):
    permission = Permission.REQUEST_SEND
    parser_classes = (JsonParser, TextParser)
    renderer_classes = (EventStreamRenderer, JSONRenderer)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        if isinstance(response, Response):  # a refusal; what succeeds is a stream
            request.accepted_renderer = JSONRenderer()
            request.accepted_media_type = JSONRenderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)

    @extend_schema(
        tags=["requests"],
        parameters=[TIMEOUT],
        request=ANY_JSON,
        responses={(200, "text/event-stream"): {"type": "string"}},
        description="As a direct request; partial results come as `data:` lines, the whole answer as a last JSON line.",
    )
    async def post(self, request: Request, **names: str) -> StreamingHttpResponse:
        version, data = await in_thread(self._read, request)
        parts = requests.stream_request(self.actor, version, data, timeout_of(request))
        # The first part decides the HTTP status: what is refused is refused before the stream begins.
        first = await anext(parts)
        response = StreamingHttpResponse(_lines(version, first, parts), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        return response

    def _read(self, request: Request) -> tuple[DeploymentVersion, Any]:
        return self.version(), request.data


async def _lines(
    version: DeploymentVersion,
    first: requests.Part | RequestRow,
    rest: AsyncIterator[requests.Part | RequestRow],
) -> AsyncIterator[bytes]:
    yield _line(version, first)
    async for part in rest:
        yield _line(version, part)


def _line(version: DeploymentVersion, part: requests.Part | RequestRow) -> bytes:
    if isinstance(part, requests.Part):
        return "".join(f"data:{line}\n" for line in part.text.split("\n")).encode() + b"\n"
    # The public client reads the whole answer from a line of its own; event sources skip such a line.
    return JSONRenderer().render(created(part, version)) + b"\n"


def created(row: RequestRow, version: DeploymentVersion) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "deployment": version.deployment.name,
        "version": version.version,
        "status": row.status,
        "success": row.status == RequestRow.Status.COMPLETED,
        "result": row.result,
        "error_message": row.error_message or None,
        "timeout": row.timeout,
    }


class BatchView(ApiView):
    permission = Permission.REQUEST_SEND
    parser_classes = (JsonParser, TextParser)

    @extend_schema(
        tags=["requests"],
        parameters=[TIMEOUT],
        request=ANY_JSON,
        responses={201: RequestQueuedOutput(many=True)},
        description="Queues one request, or one for each item of a list; ask for the results later.",
    )
    def post(self, request: Request, **names: str) -> Response:
        version = self.version()
        items = request.data if isinstance(request.data, list) else [request.data]
        queued = requests.create_requests(self.actor, version, items, timeout_of(request))
        for row in queued:
            row.version = version
        return Response(rows(RequestQueuedOutput, queued), status=status.HTTP_201_CREATED)


class RequestView(OfOwner):
    @extend_schema(
        tags=["requests"],
        parameters=[OpenApiParameter("metadata_only", bool)],
        responses=RequestOutput,
    )
    def get(self, request: Request, request_id: str, **names: str) -> Response:
        row = requests.get(self.actor, self.owner(Permission.PROJECT_VIEW), request_id)
        bare = request.query_params.get("metadata_only", "").lower() == "true"
        return Response((RequestListOutput if bare else RequestOutput)(row).data)

    @extend_schema(
        tags=["requests"],
        request=RequestUpdate,
        responses=RequestListOutput,
        description="Cancels a waiting request: `status` cancelled is the one change there is.",
    )
    def patch(self, request: Request, request_id: str, **names: str) -> Response:
        owner = self.owner(Permission.PROJECT_EDIT)
        if request.data != {"status": RequestRow.Status.CANCELLED.value}:
            raise Invalid(status="The one change there is: {'status': 'cancelled'}")
        request_batches.cancel_one(self.actor, owner, request_id)
        return Response(RequestListOutput(requests.get(self.actor, owner, request_id)).data)

    @extend_schema(tags=["requests"], responses={204: None})
    def delete(self, request: Request, request_id: str, **names: str) -> Response:
        requests.delete(self.actor, self.owner(Permission.PROJECT_EDIT), request_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CollectView(OfOwner):
    @extend_schema(tags=["requests"], request=IDS, responses=RequestOutput(many=True))
    def post(self, request: Request, **names: str) -> Response:
        owner = self.owner(Permission.PROJECT_VIEW)
        return Response(rows(RequestOutput, request_batches.collect(self.actor, owner, request.data)))


class DeleteView(OfOwner):
    @extend_schema(tags=["requests"], request=IDS, responses={204: None})
    def post(self, request: Request, **names: str) -> Response:
        request_batches.delete(self.actor, self.owner(Permission.PROJECT_EDIT), request.data)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CancelView(OfOwner):
    @extend_schema(
        tags=["requests"],
        parameters=[OpenApiParameter("status", description="pending: all that wait; then the body is left empty")],
        request=IDS,
        responses=CancelledOutput,
    )
    def post(self, request: Request, **names: str) -> Response:
        owner = self.owner(Permission.PROJECT_EDIT)
        wanted = request.query_params.get("status")
        if wanted not in (None, "", RequestRow.Status.PENDING.value):
            raise Invalid(status=f"'{wanted}' requests cannot be cancelled; use pending")
        if wanted:
            return Response({"cancelled": request_batches.cancel_all(self.actor, owner)})
        return Response({"cancelled": request_batches.cancel(self.actor, owner, request.data)})


# The public client's name of each method, after the scope's prefix.
_OPERATIONS: dict[type[ApiView], dict[str, str]] = {
    RequestsView: {"get": "requests_list", "post": "requests_create"},
    RequestView: {"get": "requests_get", "patch": "requests_update", "delete": "requests_delete"},
    BatchView: {"post": "requests_create"},
    StreamView: {"post": "requests_stream"},
    CollectView: {"post": "requests_batch_get"},
    DeleteView: {"post": "requests_batch_delete"},
    CancelView: {"post": "requests_batch_cancel"},
}


def named(prefix: str) -> dict[str, type[ApiView]]:
    """The views by class name, their operations named for one scope: deployment or deployment_version."""
    return {
        view.__name__: extend_schema_view(
            **{
                method: extend_schema(operation_id=f"{'batch_' if view is BatchView else ''}{prefix}_{name}")
                for method, name in operations.items()
            }
        )(type(f"{prefix.title().replace('_', '')}{view.__name__}", (view,), {}))
        for view, operations in _OPERATIONS.items()
    }
