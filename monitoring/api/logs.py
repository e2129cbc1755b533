"""Logs over REST."""

import datetime as dt

from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, integer, parse, rows
from deployments.api.serializers.running import LogOutput
from monitoring.api.serializers import LogRetentionFields
from monitoring.logs import DEFAULT_LIMIT, LARGEST_LIMIT, query_logs
from monitoring.services.retention import log_retention, set_log_retention


class LogsView(ApiView):
    @extend_schema(
        operation_id="logs_list",
        tags=["logs"],
        parameters=[
            OpenApiParameter("query", description='LogQL: {deployment_name="ranker"} |= "error" | level="warning"'),
            OpenApiParameter("start", description="ISO 8601 or nanoseconds since 1970, inclusive"),
            OpenApiParameter("end", description="ISO 8601 or nanoseconds since 1970, exclusive"),
            OpenApiParameter("limit", int),
        ],
        responses=LogOutput(many=True),
        description="Lines of the project's instances and builds. With `start` the first ones from there on, without "
        "it the last ones.",
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = query_logs(
            self.project(),
            request.query_params.get("query", ""),
            moment(request, "start"),
            moment(request, "end"),
            integer(request, "limit", DEFAULT_LIMIT, least=1, most=LARGEST_LIMIT),
        )
        return Response(
            rows(
                LogOutput,
                [
                    {
                        "timestamp": entry.timestamp,
                        "timestamp_str": _text(entry.timestamp),
                        "log": entry.text,
                        "metadata": {name: value for name, value in entry.labels.items() if value != ""},
                    }
                    for entry in found
                ],
            )
        )


class LogRetentionView(ApiView):
    @extend_schema(operation_id="log_retention_get", tags=["logs"], responses=LogRetentionFields)
    def get(self, request: Request, project_name: str) -> Response:
        return Response({"days": log_retention(self.actor, self.project())})

    @extend_schema(
        operation_id="log_retention_update",
        tags=["logs"],
        request=LogRetentionFields,
        responses=LogRetentionFields,
        description="How many days the project's log lines are kept.",
    )
    def patch(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_ADMIN)
        body = parse(LogRetentionFields, request)
        return Response({"days": set_log_retention(self.actor, project, body["days"])})


def moment(request: Request, name: str) -> dt.datetime | int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    if text.isdecimal():
        return int(text)
    try:
        found = parse_datetime(text.replace(" ", "+"))  # a plus that was not escaped
    except ValueError:
        found = None
    if found is None:
        raise Invalid(**{name: f"'{text}' is neither an ISO 8601 date and time nor nanoseconds since 1970"})
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _text(nanoseconds: int) -> str:
    """ISO 8601 in UTC with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
