"""Numbers over time: samples of instances and versions, rolled up, and the metrics that users define."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models

from accounts.models import Project

# In place of an instance: a sample of the version as a whole.
WHOLE_VERSION = uuid.UUID(int=0)


class MetricSample(models.Model):
    """What happened at an instance, or to a version as a whole, in ``resolution`` seconds from ``at`` on.

    Counts are of that span; averages are sums over ``samples`` readings, so that samples add up: an average is the sum
    divided by ``samples``.
    """

    RAW, MINUTE, HOUR = 10, 60, 3600

    id = models.BigAutoField(primary_key=True)
    resolution = models.PositiveSmallIntegerField()
    at = models.DateTimeField()
    project = models.ForeignKey(Project, models.CASCADE, related_name="+")
    deployment_id = models.UUIDField()
    version_id = models.UUIDField()
    instance_id = models.UUIDField(default=WHOLE_VERSION)
    samples = models.PositiveIntegerField(default=1)
    # Counts, of instances.
    requests = models.FloatField(default=0)
    errors = models.FloatField(default=0)
    duration = models.FloatField(default=0, help_text="seconds, summed over the requests")
    # Requests by duration, not cumulative: at most the bound of the same place, the last beyond all bounds.
    buckets = ArrayField(models.FloatField(), default=list)
    restarts = models.FloatField(default=0)
    cold_starts = models.FloatField(default=0)
    cold_start_seconds = models.FloatField(default=0, help_text="from creation to ready, summed")
    # Cold starts by duration, as ``buckets``; empty where there was none.
    cold_start_buckets = ArrayField(models.FloatField(), default=list)
    # Sums over samples, of instances.
    in_flight = models.FloatField(default=0)
    cpu = models.FloatField(default=0, help_text="cores")
    memory = models.FloatField(default=0, help_text="bytes")
    memory_peak = models.FloatField(default=0, help_text="bytes, the highest reading")
    gpu_devices = models.FloatField(default=0, help_text="GPUs whose use was measured")
    gpu_busy = models.FloatField(default=0, help_text="of these GPUs, how many were at work: two at 50% are one")
    gpu_memory = models.FloatField(default=0, help_text="bytes, of these GPUs")
    # Sums over samples, of versions.
    instances = models.FloatField(default=0, help_text="ready ones")
    accelerators = models.FloatField(default=0, help_text="held by its instances")
    queue = models.FloatField(default=0, help_text="batch requests that wait")
    queue_age = models.FloatField(default=0, help_text="seconds, of the oldest waiting request; the highest reading")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["resolution", "version_id", "instance_id", "at"], name="sample_unique")
        ]
        indexes = [models.Index(fields=["resolution", "at"], name="sample_resolution_at")]

    def __str__(self) -> str:
        return f"{self.version_id} {self.at} {self.resolution} s"


class InstanceCounters(models.Model):
    """The counters of an instance as last read, from which the next reading is subtracted."""

    instance_id = models.UUIDField(primary_key=True)
    read_at = models.DateTimeField()
    process_start = models.FloatField(default=0, help_text="Unix time at which what counts began; 0 is not known")
    requests = models.FloatField(default=0)
    errors = models.FloatField(default=0)
    duration = models.FloatField(default=0)
    buckets = ArrayField(models.FloatField(), default=list)
    restarts = models.PositiveIntegerField(default=0)
    counted_start = models.BooleanField(default=False, help_text="its cold start was counted")

    def __str__(self) -> str:
        return str(self.instance_id)


class VersionCounters(models.Model):
    """What has happened to a version since it was made; only ever grows."""

    version_id = models.UUIDField(primary_key=True)
    cold_starts = models.FloatField(default=0)
    cold_start_seconds = models.FloatField(default=0)
    cold_start_buckets = ArrayField(models.FloatField(), default=list)

    def __str__(self) -> str:
        return str(self.version_id)


class CustomMetric(models.Model):
    """A metric that users define and fill, as in the public API; its name starts with ``custom.``."""

    class Kind(models.TextChoices):
        DELTA = "delta"
        GAUGE = "gauge"

    id = models.BigAutoField(primary_key=True)
    project = models.ForeignKey(Project, models.CASCADE, related_name="custom_metrics")
    name = models.CharField(max_length=64)
    description = models.CharField(max_length=400, blank=True)
    metric_type = models.CharField(max_length=5, choices=Kind.choices)
    unit = models.CharField(max_length=32, blank=True)
    labels = models.JSONField(default=list, blank=True)
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="custom_metric_unique")]

    def __str__(self) -> str:
        return self.name


class CustomSeries(models.Model):
    """The points of a custom metric that carry the same labels."""

    id = models.BigAutoField(primary_key=True)
    metric = models.ForeignKey(CustomMetric, models.CASCADE, related_name="series")
    labels = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["metric", "labels"], name="custom_series_unique")]

    def __str__(self) -> str:
        return f"{self.metric} {self.labels}"


class CustomPoint(models.Model):
    """One value, in a cell of a minute."""

    id = models.BigAutoField(primary_key=True)
    series = models.ForeignKey(CustomSeries, models.CASCADE, related_name="points")
    at = models.DateTimeField()
    # A gauge's value is the sum divided by the count; a delta's the sum.
    total = models.FloatField()
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["series", "at"], name="custom_point_unique")]

    def __str__(self) -> str:
        return f"{self.series} {self.at}: {self.total}"
