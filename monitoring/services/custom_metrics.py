"""Metrics that users define and fill, and the reading of all metrics as the public API names them."""

import datetime as dt
import math
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, connection, transaction

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import Project, User
from deployments.models import DeploymentVersion
from deployments.services.validation import Checker
from monitoring.metrics import query
from monitoring.metrics.cells import Scope
from monitoring.metrics.definitions import DEFAULTS, DEPLOYMENT_LABEL, VERSION_LABEL, Metric
from monitoring.models import CustomMetric, CustomPoint, CustomSeries

PREFIX = "custom."
MAX_METRICS = 500
MAX_SERIES = 10_000
MAX_LABELS = 20
MAX_POINTS = 1000
PERIODS = (60, 300, 900, 3600, 7200, 21600, 86400)
UNITS = (1, 60, 3600, 86400)
MOST_POINTS = 2000
MOST_DAYS = 92
# Series of the platform's own metrics have ids from here on, made of metric and version.
_OWN_SERIES = 1 << 52
_NAME = re.compile(r"^custom\.[A-Za-z0-9_.-]{1,57}$")


@dataclass(frozen=True, slots=True)
class Series:
    """One series as a search finds it; ``resolution`` in seconds."""

    id: int
    metric: str
    labels: dict[str, str]
    resolution: int = 60


@dataclass(frozen=True, slots=True)
class Point:
    start: dt.datetime
    end: dt.datetime
    value: float


def get_metric(
    actor: User, project: Project, name: str, permission: Permission = Permission.PROJECT_VIEW
) -> CustomMetric | Metric:
    access.require(actor, permission, project)
    if name in DEFAULTS:
        return DEFAULTS[name]
    row = CustomMetric.objects.filter(project=project, name=name).first()
    if row is None:
        raise NotFound("Metric", name)
    return row


@transaction.atomic
def create_metric(actor: User, project: Project, **fields: Any) -> CustomMetric:
    """A custom metric; raises Invalid by field, Conflict for a name that is taken."""
    access.require(actor, Permission.PROJECT_EDIT, project)
    check = Checker()
    check.unknown(fields, ("name", "description", "metric_type", "unit", "labels"))
    row = CustomMetric(project=project)
    row.metric_type = check.choice("metric_type", fields.get("metric_type"), CustomMetric.Kind.values)
    _set(check, row, {"name": fields.get("name"), **fields})
    check.done()
    if CustomMetric.objects.filter(project=project).count() >= MAX_METRICS:
        raise Conflict(f"Project '{project.name}' has {MAX_METRICS} custom metrics; delete one first")
    _save(row)
    audit.record(actor, "create", row, project=project, new={"name": row.name, "metric_type": row.metric_type})
    return row


@transaction.atomic
def update_metric(actor: User, project: Project, name: str, /, **fields: Any) -> CustomMetric:
    row = _own(get_metric(actor, project, name, Permission.PROJECT_EDIT))
    check = Checker()
    check.unknown(fields, ("name", "description", "unit", "labels"))
    old = {key: getattr(row, key) for key in fields if hasattr(row, key)}
    _set(check, row, fields)
    check.done()
    _save(row)
    audit.record(actor, "update", row, project=project, old=old, new={key: getattr(row, key) for key in old})
    return row


@transaction.atomic
def delete_metric(actor: User, project: Project, name: str) -> None:
    """Delete a custom metric with everything that was stored of it."""
    row = _own(get_metric(actor, project, name, Permission.PROJECT_EDIT))
    audit.record(actor, "delete", row, project=project, old={"name": row.name})
    row.delete()


@transaction.atomic
def add_points(
    actor: User, project: Project, name: str, labels: Any, points: list[tuple[dt.datetime, float]], *, add: bool
) -> int:
    """Store values by minute; how many minutes. ``add`` puts them to what is there, otherwise they take its place.

    Within one call the values of a minute go together: deltas are summed, gauges averaged.
    """
    row = get_metric(actor, project, name, Permission.PROJECT_EDIT)
    if not isinstance(row, CustomMetric):
        raise Invalid(metric=f"'{name}' is filled by the platform; create a metric whose name begins with {PREFIX}")
    check = Checker()
    labels = _labels(check, labels or {}, row)
    if not 1 <= len(points) <= MAX_POINTS:
        check.problem("data", f"{len(points)} points; give 1 to {MAX_POINTS}")
    cells: dict[dt.datetime, tuple[float, int]] = {}
    for at, value in points:
        if not math.isfinite(value):
            check.problem("data", f"{value} is no finite number")
        minute = at.astimezone(dt.UTC).replace(second=0, microsecond=0)
        total, count = cells.get(minute, (0.0, 0))
        cells[minute] = (total + value, count + 1)
    check.done()
    series = CustomSeries.objects.filter(metric=row, labels=labels).first()
    if series is None:
        if CustomSeries.objects.filter(metric__project=project).count() >= MAX_SERIES:
            raise Conflict(f"Project '{project.name}' has {MAX_SERIES} series of custom metrics; delete some first")
        series, _ = CustomSeries.objects.get_or_create(metric=row, labels=labels)
    change = "total = p.total + excluded.total, count = p.count + excluded.count"
    change = change if add else "total = excluded.total, count = excluded.count"
    minutes = sorted(cells)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO monitoring_custompoint AS p (series_id, at, total, count) "  # noqa: S608
            "SELECT %s, * FROM unnest(%s::timestamptz[], %s::double precision[], %s::integer[]) "
            f"ON CONFLICT (series_id, at) DO UPDATE SET {change}",
            [series.pk, minutes, [cells[m][0] for m in minutes], [cells[m][1] for m in minutes]],
        )
    return len(minutes)


def search(
    actor: User, project: Project, metric: str, labels: dict[str, str], custom: bool | None, exact: bool
) -> list[Series]:
    """Series whose labels contain, or with ``exact`` are, the given ones."""
    access.require(actor, Permission.PROJECT_VIEW, project)
    found: list[Series] = []
    if custom is not False:
        rows = CustomSeries.objects.filter(metric__project=project).select_related("metric")
        rows = rows.filter(labels=labels) if exact else rows.filter(labels__contains=labels)
        if metric:
            rows = rows.filter(metric__name=metric)
        found += [Series(row.pk, row.metric.name, row.labels) for row in rows]
    if custom is not True:
        versions = DeploymentVersion.objects.filter(deployment__project=project).order_by("creation_date")
        for version in versions:
            own = {DEPLOYMENT_LABEL: str(version.deployment_id), VERSION_LABEL: str(version.pk)}
            if own != labels if exact else not labels.items() <= own.items():
                continue
            found += [
                Series(_series_id(one.id, version.pk), name, own)
                for name, one in DEFAULTS.items()
                if not metric or name == metric
            ]
    return found


@transaction.atomic
def delete_series(actor: User, project: Project, series_id: str) -> None:
    access.require(actor, Permission.PROJECT_EDIT, project)
    number = int(series_id) if series_id.isdecimal() and len(series_id) < 19 else 0
    if number >= _OWN_SERIES and any(item.id == number for item in search(actor, project, "", {}, False, False)):
        raise Forbidden("Series of the platform's own metrics cannot be deleted")
    row = CustomSeries.objects.filter(metric__project=project, pk=number).select_related("metric").first()
    if row is None:
        raise NotFound("Time series", series_id)
    audit.record(actor, "delete", row, project=project, old={"metric": row.metric.name, "labels": row.labels})
    row.delete()


def read(
    actor: User,
    project: Project,
    name: str,
    labels: dict[str, str],
    start: dt.datetime,
    end: dt.datetime,
    now: dt.datetime,
    *,
    period: int | None = None,
    unit_period: int | None = None,
) -> tuple[CustomMetric | Metric, int, list[Point]]:
    """The metric, the period in seconds and its points: rates for a delta, averages for a gauge. Raises Invalid."""
    metric = get_metric(actor, project, name)
    if end <= start:
        raise Invalid(end_date="The end must be after the start")
    span = (end - start).total_seconds()
    if span > MOST_DAYS * 86400:
        raise Invalid(start_date=f"Ask for at most {MOST_DAYS} days at once")
    if period is not None and period not in PERIODS:
        raise Invalid(aggregation_period=f"Use one of {', '.join(map(str, PERIODS))} seconds")
    if unit_period is not None and unit_period not in UNITS:
        raise Invalid(unit_period=f"Use one of {', '.join(map(str, UNITS))} seconds")
    period = period or next((p for p in PERIODS if span / p <= MOST_POINTS), PERIODS[-1])
    if span / period > 10 * MOST_POINTS:
        raise Invalid(aggregation_period=f"That would be over {10 * MOST_POINTS} points; use a longer period")
    unit = unit_period or 1
    if isinstance(metric, CustomMetric):
        return metric, period, _custom_points(metric, labels, start, end, period, unit)
    step, cells = query.cells(_scope(project, labels), start, end, now, step=period)
    factor = unit if metric.metric_type == CustomMetric.Kind.DELTA else 1
    points = []
    for cell in cells:
        value = cell.values()[metric.value]
        if value is not None:
            begin = dt.datetime.fromtimestamp(cell.at, dt.UTC)
            points.append(Point(begin, begin + dt.timedelta(seconds=step), value * factor))
    return metric, step, points


def _custom_points(
    metric: CustomMetric, labels: dict[str, str], start: dt.datetime, end: dt.datetime, period: int, unit: int
) -> list[Point]:
    rows: Iterable[tuple[dt.datetime, float, int]] = CustomPoint.objects.filter(
        series__metric=metric, series__labels__contains=labels, at__gte=start, at__lt=end
    ).values_list("at", "total", "count")
    cells: dict[int, tuple[float, int]] = {}
    for at, total, count in rows:
        cell = int(at.timestamp() // period * period)
        before = cells.get(cell, (0.0, 0))
        cells[cell] = (before[0] + total, before[1] + count)
    delta = metric.metric_type == CustomMetric.Kind.DELTA
    found = []
    for cell in sorted(cells):
        total, count = cells[cell]
        begin = dt.datetime.fromtimestamp(cell, dt.UTC)
        value = total / period * unit if delta else total / count
        found.append(Point(begin, begin + dt.timedelta(seconds=period), value))
    return found


def _scope(project: Project, labels: dict[str, str]) -> Scope:
    """The versions that labels name; all of the project without any."""
    rows = DeploymentVersion.objects.filter(deployment__project=project)
    for key, value in labels.items():
        column = {VERSION_LABEL: "pk", DEPLOYMENT_LABEL: "deployment_id"}.get(key)
        if column is None:
            raise Invalid(labels=f"Unknown label '{key}'; use {VERSION_LABEL} or {DEPLOYMENT_LABEL}")
        try:
            rows = rows.filter(**{column: uuid.UUID(value)})
        except ValueError:
            raise Invalid(labels=f"'{value}' is no id") from None
    return Scope(tuple(rows.values_list("pk", flat=True)))


def _series_id(metric: int, version: uuid.UUID) -> int:
    return _OWN_SERIES + (metric << 44) + (version.int & ((1 << 44) - 1))


def _own(row: CustomMetric | Metric) -> CustomMetric:
    if not isinstance(row, CustomMetric):
        raise Forbidden(f"'{row.name}' is the platform's own metric and stays as it is")
    return row


def _set(check: Checker, row: CustomMetric, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        match name:
            case "name":
                if not isinstance(value, str) or not _NAME.match(value):
                    check.problem(name, f"Use '{PREFIX}' and letters, digits, '.', '_' or '-', at most 64 characters")
                else:
                    row.name = value
            case "description":
                row.description = check.text(name, value or "", longest=400)
            case "unit":
                row.unit = check.text(name, value or "", longest=32)
            case "labels":
                row.labels = _label_names(check, value or [])


def _label_names(check: Checker, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and 0 < len(item) <= 100 for item in value):
        check.problem("labels", 'Give a list of names, for example ["deployment_version_id"]')
        return []
    if len(value) > MAX_LABELS:
        check.problem("labels", f"{len(value)} labels; at most {MAX_LABELS} are allowed")
    return list(dict.fromkeys(value))


def _labels(check: Checker, value: Any, metric: CustomMetric) -> dict[str, str]:
    labels = check.labels("labels", value)
    if unknown := sorted(set(labels) - set(metric.labels)):
        known = ", ".join(metric.labels) or "none"
        check.problem("labels", f"Metric '{metric.name}' has no label {', '.join(unknown)[:200]}; it has: {known}")
    return labels


def _save(row: CustomMetric) -> None:
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        raise Conflict(f"There is already a metric '{row.name}' in the project") from None
