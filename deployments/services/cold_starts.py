"""How long instances took from their creation to being ready, over time."""

import datetime as dt
from dataclasses import dataclass

from django.db.models import Aggregate, Count, DurationField, ExpressionWrapper, F, FloatField
from django.db.models.functions import Extract, TruncDay
from django.utils import timezone

from deployments.models import DeploymentVersion

DAYS = 30


@dataclass(frozen=True)
class Day:
    """Cold starts of one day (UTC); percentiles in seconds."""

    day: dt.date
    count: int
    p50: float
    p95: float


class Percentile(Aggregate):
    """``percentile_cont`` of PostgreSQL."""

    function = "percentile_cont"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()

    def __init__(self, expression: object, share: float) -> None:
        super().__init__(expression, share=share)


def by_day(version: DeploymentVersion) -> list[Day]:
    """Days with cold starts, oldest first. An instance that was restarted was ready anew: it says nothing here."""
    since = timezone.now() - dt.timedelta(days=DAYS)
    took = Extract(ExpressionWrapper(F("ready_at") - F("time_created"), DurationField()), "epoch")
    rows = (
        version.instances.filter(ready_at__isnull=False, restarts=0, time_created__gte=since)
        .annotate(day=TruncDay("time_created", tzinfo=dt.UTC), took=took)
        .values("day")
        .annotate(count=Count("id"), p50=Percentile("took", 0.5), p95=Percentile("took", 0.95))
        .order_by("day")
    )
    return [Day(row["day"].date(), row["count"], row["p50"], row["p95"]) for row in rows]
