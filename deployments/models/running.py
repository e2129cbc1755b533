"""What runs and what was asked: instances with their events, and requests."""

import uuid

from django.db import models
from django.utils import timezone

from accounts.models import User
from deployments.models.deployments import DeploymentVersion, Revision


class Instance(models.Model):
    """One pod, as last observed; kept for a while after it is gone (``deleted_at``)."""

    class Status(models.TextChoices):
        """As in the public API's instance status."""

        PENDING = "pending"
        INITIALISING = "initialising"
        RUNNING = "running"
        STOPPING = "stopping"
        STOPPED = "stopped"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, editable=False, help_text="uid of the pod")
    version = models.ForeignKey(DeploymentVersion, models.CASCADE, related_name="instances")
    revision = models.ForeignKey(Revision, models.CASCADE, null=True, related_name="instances")
    pod_name = models.CharField(max_length=253)
    node = models.CharField(max_length=253, blank=True)
    address = models.CharField(max_length=60, blank=True, help_text="IP of the pod")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    ready = models.BooleanField(default=False)
    restarts = models.PositiveIntegerField(default=0)
    reason_code = models.CharField(max_length=60, blank=True)
    reason_message = models.TextField(blank=True)
    reason_next = models.TextField(blank=True)
    time_created = models.DateTimeField()
    scheduled_at = models.DateTimeField(null=True, blank=True)
    package_at = models.DateTimeField(null=True, blank=True, help_text="when its package was there")
    started_at = models.DateTimeField(null=True, blank=True)
    loading_at = models.DateTimeField(null=True, blank=True, help_text="when its server began to load the model")
    ready_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    # Measured by the collector of numbers.
    memory_peak = models.BigIntegerField(default=0, help_text="bytes, the highest reading")
    gpu_busy_at = models.DateTimeField(null=True, blank=True, help_text="when its GPUs were last seen at work")
    time_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-time_created"]
        indexes = [models.Index(fields=["version", "deleted_at"], name="instance_version_deleted")]

    def __str__(self) -> str:
        return self.pod_name


class InstanceEvent(models.Model):
    """A Kubernetes event about an instance, folded by (reason, message)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    instance = models.ForeignKey(Instance, models.CASCADE, related_name="events")
    kind = models.CharField(max_length=10, help_text="Normal or Warning")
    reason = models.CharField(max_length=128)
    description = models.TextField()
    count = models.PositiveIntegerField(default=1)
    time_created = models.DateTimeField()
    time_last_seen = models.DateTimeField()

    class Meta:
        ordering = ["-time_last_seen"]

    def __str__(self) -> str:
        return f"{self.reason}: {self.description}"


class Request(models.Model):
    """One inference call."""

    class Status(models.TextChoices):
        PENDING = "pending"
        PROCESSING = "processing"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

    TERMINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(DeploymentVersion, models.CASCADE, related_name="requests")
    batch = models.BooleanField(default=False)
    streaming = models.BooleanField(default=False)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    request_data = models.JSONField(null=True)
    result = models.JSONField(null=True)
    error_message = models.TextField(blank=True)
    input_size = models.BigIntegerField(default=0)
    output_size = models.BigIntegerField(default=0)
    timeout = models.PositiveIntegerField(default=300, help_text="seconds")
    attempts = models.PositiveIntegerField(default=0)
    instance = models.ForeignKey(Instance, models.SET_NULL, null=True, blank=True, related_name="requests")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    # When it was asked, not when its row was written: rows of direct requests are written at their end.
    time_created = models.DateTimeField(default=timezone.now)
    time_started = models.DateTimeField(null=True, blank=True)
    time_completed = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-time_created"]
        indexes = [
            models.Index(fields=["version", "-time_created"], name="request_version_created"),
            models.Index(
                fields=["version", "time_created"],
                condition=models.Q(status__in=["pending", "processing"]),
                name="request_open",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)
