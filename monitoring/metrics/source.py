"""Where numbers over time come from: the platform's own samples, or a Prometheus when a setting names one."""

import datetime as dt
import uuid
from typing import Protocol

from django.conf import settings

from monitoring.metrics.cells import Cell, Coverage, Scope
from monitoring.metrics.prometheus import PrometheusSource
from monitoring.metrics.stored import StoredSource


class MetricSource(Protocol):
    """Raises `SourceUnavailable` or a database error when it does not answer."""

    def cells(
        self, scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime, step: int = 0
    ) -> tuple[int, list[Cell]]:
        """The step in seconds and the cells that hold anything, in order; ``step`` 0 lets the span choose."""

    def total(self, scope: Scope, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> Cell:
        """Everything of the span in one cell."""

    def coverage(self, version: uuid.UUID, start: dt.datetime, now: dt.datetime) -> Coverage:
        """How well the time from ``start`` to ``now`` is known of a version."""


def current() -> MetricSource:
    """The source of this installation."""
    if settings.PILOTHOUSE_PROMETHEUS_URL:
        return PrometheusSource.of_settings()
    return StoredSource()
