"""Rows of what was seen and said: log lines, samples, alerts and their deliveries."""

from monitoring.models.alerts import Alert, AlertRule, Delivery, Webhook
from monitoring.models.logs import LogLine, LogRetention, LogSource
from monitoring.models.metrics import (
    WHOLE_VERSION,
    CustomMetric,
    CustomPoint,
    CustomSeries,
    InstanceCounters,
    MetricSample,
    VersionCounters,
)

__all__ = [
    "WHOLE_VERSION",
    "Alert",
    "AlertRule",
    "CustomMetric",
    "CustomPoint",
    "CustomSeries",
    "Delivery",
    "InstanceCounters",
    "LogLine",
    "LogRetention",
    "LogSource",
    "MetricSample",
    "VersionCounters",
    "Webhook",
]
