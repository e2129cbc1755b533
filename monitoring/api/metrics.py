"""Metrics and time series as the public client asks for them."""

import datetime as dt
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, integer, parse, rows
from monitoring.api.serializers import (
    MetricInput,
    MetricOutput,
    MetricUpdate,
    StoredOutput,
    TimeSeriesDataOutput,
    TimeSeriesInput,
    TimeSeriesSearchOutput,
)
from monitoring.api.times import date
from monitoring.metrics.definitions import DEFAULTS, LABELS, Metric
from monitoring.models import CustomMetric
from monitoring.services import custom_metrics

LABELS_PARAMETER = OpenApiParameter("labels", description="label:value, several separated by commas")


class MetricsView(ApiView):
    @extend_schema(
        operation_id="metrics_list",
        tags=["metrics"],
        parameters=[OpenApiParameter("custom", bool, description="true: only custom ones; false: only others")],
        responses=MetricOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        project, custom = self.project(), _flag(request, "custom")
        found: list[dict[str, Any]] = []
        if custom is not True:
            found += [_told(metric) for metric in DEFAULTS.values()]
        if custom is not False:
            found += [_told(metric) for metric in CustomMetric.objects.filter(project=project)]
        return Response(rows(MetricOutput, found))

    @extend_schema(operation_id="metrics_create", tags=["metrics"], request=MetricInput, responses={201: MetricOutput})
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        made = custom_metrics.create_metric(self.actor, project, **parse(MetricInput, request))
        return Response(MetricOutput(_told(made)).data, status=status.HTTP_201_CREATED)


class MetricView(ApiView):
    @extend_schema(operation_id="metrics_get", tags=["metrics"], responses=MetricOutput)
    def get(self, request: Request, project_name: str, metric_name: str) -> Response:
        return Response(MetricOutput(_told(custom_metrics.get_metric(self.actor, self.project(), metric_name))).data)

    @extend_schema(operation_id="metrics_update", tags=["metrics"], request=MetricUpdate, responses=MetricOutput)
    def patch(self, request: Request, project_name: str, metric_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        changed = custom_metrics.update_metric(self.actor, project, metric_name, **parse(MetricUpdate, request))
        return Response(MetricOutput(_told(changed)).data)

    @extend_schema(operation_id="metrics_delete", tags=["metrics"], responses={204: None})
    def delete(self, request: Request, project_name: str, metric_name: str) -> Response:
        custom_metrics.delete_metric(self.actor, self.project(Permission.PROJECT_EDIT), metric_name)
        return Response(status=status.HTTP_204_NO_CONTENT)


class _Filling(ApiView):
    add = False

    def fill(self, request: Request) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        body = parse(TimeSeriesInput, request)
        points = [(point["date"], point["value"]) for point in body["data"]]
        stored = custom_metrics.add_points(
            self.actor, project, body["metric"], body.get("labels"), points, add=self.add
        )
        return Response({"metric": body["metric"], "stored": stored}, status=status.HTTP_201_CREATED)


class TimeSeriesDataView(_Filling):
    @extend_schema(
        operation_id="time_series_data_list",
        tags=["metrics"],
        parameters=[
            OpenApiParameter("metric", required=True),
            OpenApiParameter("start_date", description="ISO 8601; a day before the end without it"),
            OpenApiParameter("end_date", description="ISO 8601; now without it"),
            OpenApiParameter("aggregation_period", int, description="seconds: 60, 300, 900, 3600, 7200, 21600, 86400"),
            OpenApiParameter("unit_period", int, description="of a delta's rates: per 1, 60, 3600 or 86400 seconds"),
            LABELS_PARAMETER,
        ],
        responses=TimeSeriesDataOutput,
    )
    def get(self, request: Request, project_name: str) -> Response:
        project, now = self.project(), timezone.now()
        name = request.query_params.get("metric", "")
        if not name:
            raise Invalid(metric="This parameter is required")
        end = date(request, "end_date") or now
        start = date(request, "start_date") or end - dt.timedelta(days=1)
        labels = _labels(request)
        metric, period, points = custom_metrics.read(
            self.actor, project, name, labels, start, end, now,
            period=integer(request, "aggregation_period", 0) or None,
            unit_period=integer(request, "unit_period", 0) or None,
        )  # fmt: skip
        return Response(
            TimeSeriesDataOutput(
                {
                    "metric": metric.name,
                    "metric_type": metric.metric_type,
                    "unit": metric.unit,
                    "start_date": start,
                    "end_date": end,
                    "aggregation_period": period,
                    "labels": labels,
                    "data_points": [{"start_date": p.start, "end_date": p.end, "value": p.value} for p in points],
                }
            ).data
        )

    @extend_schema(
        operation_id="time_series_data_create",
        tags=["metrics"],
        request=TimeSeriesInput,
        responses={201: StoredOutput},
        description="Values by minute; they take the place of what a minute has.",
    )
    def post(self, request: Request, project_name: str) -> Response:
        return self.fill(request)


class TimeSeriesAggregateView(_Filling):
    add = True

    @extend_schema(
        operation_id="time_series_data_aggregate",
        tags=["metrics"],
        request=TimeSeriesInput,
        responses={201: StoredOutput},
        description="Values by minute, put to what a minute has: deltas add up, gauges are averaged.",
    )
    def post(self, request: Request, project_name: str) -> Response:
        return self.fill(request)


class TimeSeriesSearchView(ApiView):
    @extend_schema(
        operation_id="time_series_search",
        tags=["metrics"],
        parameters=[
            OpenApiParameter("metric"),
            LABELS_PARAMETER,
            OpenApiParameter("custom", bool),
            OpenApiParameter("exact_match", bool, description="the labels are all that a series has"),
            OpenApiParameter("limit", int, description="500 without it"),
            OpenApiParameter("offset", int),
        ],
        responses=TimeSeriesSearchOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = custom_metrics.search(
            self.actor,
            self.project(),
            request.query_params.get("metric", ""),
            _labels(request),
            _flag(request, "custom"),
            bool(_flag(request, "exact_match")),
        )
        limit, offset = integer(request, "limit", 500, least=1, most=10_000), integer(request, "offset", 0)
        return Response(rows(TimeSeriesSearchOutput, found[offset : offset + limit]))


class TimeSeriesView(ApiView):
    @extend_schema(operation_id="time_series_delete", tags=["metrics"], responses={204: None})
    def delete(self, request: Request, project_name: str, time_series_id: str) -> Response:
        custom_metrics.delete_series(self.actor, self.project(Permission.PROJECT_EDIT), time_series_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _told(metric: CustomMetric | Metric) -> dict[str, Any]:
    custom = isinstance(metric, CustomMetric)
    return {
        "id": metric.id,
        "name": metric.name,
        "description": metric.description,
        "creation_date": metric.creation_date if isinstance(metric, CustomMetric) else None,
        "last_updated": metric.last_updated if isinstance(metric, CustomMetric) else None,
        "custom": custom,
        "metric_type": metric.metric_type,
        "unit": metric.unit,
        "labels": metric.labels if isinstance(metric, CustomMetric) else list(LABELS),
    }


def _labels(request: Request) -> dict[str, str]:
    found = {}
    for pair in request.query_params.get("labels", "").split(","):
        if not pair:
            continue
        key, separator, value = pair.partition(":")
        if not separator:
            raise Invalid(labels=f"'{pair[:80]}' is not of the form label:value")
        found[key] = value
    return found


def _flag(request: Request, name: str) -> bool | None:
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    if text.lower() not in ("true", "false", "1", "0"):
        raise Invalid(**{name: f"'{text[:20]}' is neither true nor false"})
    return text.lower() in ("true", "1")
