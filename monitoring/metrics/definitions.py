"""The metrics that every deployment has, by the names of the public API."""

from dataclasses import dataclass

VERSION_LABEL, DEPLOYMENT_LABEL = "deployment_version_id", "deployment_id"
LABELS = (VERSION_LABEL, DEPLOYMENT_LABEL)


@dataclass(frozen=True, slots=True)
class Metric:
    """``value`` names one of `monitoring.metrics.query.NAMES`; a delta's are rates a second."""

    id: int
    name: str
    description: str
    metric_type: str
    unit: str
    value: str


_ALL = (
    ("requests", "Number of requests made to the object", "delta", "requests", "requests"),
    ("failed_requests", "Number of failed requests made to the object", "delta", "requests", "errors"),
    ("request_duration", "Average time in seconds for a request to complete", "gauge", "seconds", "mean"),
    ("request_duration_p95", "Time within which 95% of requests complete", "gauge", "seconds", "p95"),
    ("instances", "Average number of active deployment instances", "gauge", "instances", "instances"),
    ("express_queue_size", "Average number of requests that wait or run in instances", "gauge", "items", "in_flight"),
    ("batch_queue_size", "Average number of queued batch requests", "gauge", "items", "queue"),
    ("batch_queue_time", "Time that the oldest queued batch request waits", "gauge", "seconds", "queue_age"),
    ("memory_utilization", "Peak memory used by an instance", "gauge", "bytes", "memory_peak"),
    ("cpu_utilization", "Average number of cores used by all instances", "gauge", "cores", "cpu"),
    ("instance_start_time", "Average time until an instance is ready", "gauge", "seconds", "cold_start_seconds"),
    ("instance_start_time_p95", "Time within which 95% of instances are ready", "gauge", "seconds", "cold_start_p95"),
    ("gpu_utilization", "Share of the held GPUs that is at work", "gauge", "share", "gpu_use"),
    ("gpu_memory_utilization", "Memory of GPUs that all instances use", "gauge", "bytes", "gpu_memory"),
)  # fmt: skip
DEFAULTS = {
    f"deployments.{name}": Metric(number, f"deployments.{name}", description, kind, unit, value)
    for number, (name, description, kind, unit, value) in enumerate(_ALL, 1)
}
