"""Alert rules and their state, webhooks, and what is to be delivered."""

import uuid

from django.db import models

from accounts.models import Project, User, name_validator
from deployments.models import Deployment, DeploymentVersion
from deployments.models.fields import EncryptedTextField


class Webhook(models.Model):
    """An address that is called when something happens to a deployment's requests, or when an alert changes."""

    class Event(models.TextChoices):
        """The first four as in the public API; ``alert`` is for alert rules that name the webhook."""

        REQUEST_STARTED = "deployment_request_started"
        REQUEST_COMPLETED = "deployment_request_completed"
        REQUEST_FAILED = "deployment_request_failed"
        REQUEST_FINISHED = "deployment_request_finished"
        ALERT = "alert"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="webhooks")
    name = models.CharField(max_length=64, validators=[name_validator])
    description = models.CharField(max_length=400, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    # None: an alert webhook of the project.
    deployment = models.ForeignKey(Deployment, models.CASCADE, null=True, blank=True, related_name="webhooks")
    # None: every version of the deployment.
    version = models.ForeignKey(DeploymentVersion, models.CASCADE, null=True, blank=True, related_name="webhooks")
    event = models.CharField(max_length=40, choices=Event.choices)
    # The address may hold a secret too, as chat services' do.
    url = EncryptedTextField()
    # JSON: [{"key": str, "value": str, "protected": bool}]
    headers = EncryptedTextField(default="[]")
    # Signs what is sent, so that the receiver can tell it is ours.
    secret = EncryptedTextField()
    timeout = models.PositiveIntegerField(default=10, help_text="seconds")
    enabled = models.BooleanField(default=True)
    retry = models.BooleanField(default=False)
    include_result = models.BooleanField(default=False)
    # Requests that changed before this were looked at.
    announced_until = models.DateTimeField(null=True, blank=True, editable=False)
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="webhook_unique")]

    def __str__(self) -> str:
        return self.name


class AlertRule(models.Model):
    """When somebody wants to be told about the versions of a project."""

    class Kind(models.TextChoices):
        ERROR_RATE = "error_rate", "Share of requests that fail"
        LATENCY = "latency", "95th percentile of the request duration"
        NO_READY_INSTANCE = "no_ready_instance", "No instance is ready though some are wanted"
        RESTART_LOOP = "restart_loop", "Restarts of instances"
        QUEUE_AGE = "queue_age", "Age of the oldest waiting request"
        GPU_IDLE = "gpu_idle", "Accelerators are held without use"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="alert_rules")
    name = models.CharField(max_length=63, validators=[name_validator])
    kind = models.CharField(max_length=20, choices=Kind.choices)
    # None: all deployments of the project.
    deployment = models.ForeignKey(Deployment, models.CASCADE, null=True, blank=True, related_name="alert_rules")
    threshold = models.FloatField(default=0)
    window = models.PositiveIntegerField(default=300, help_text="seconds")
    enabled = models.BooleanField(default=True)
    webhooks = models.ManyToManyField(Webhook, blank=True, related_name="alert_rules")
    emails = models.JSONField(default=list, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="alert_rule_unique")]

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """A rule's state for one version; changed by compare-and-set, so that each change is told once."""

    class State(models.TextChoices):
        OK = "ok"
        FIRING = "firing"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    rule = models.ForeignKey(AlertRule, models.CASCADE, related_name="alerts")
    version = models.ForeignKey(DeploymentVersion, models.CASCADE, related_name="alerts")
    state = models.CharField(max_length=6, choices=State.choices, default=State.OK)
    changes = models.PositiveIntegerField(default=0)
    value = models.FloatField(default=0)
    message = models.TextField(blank=True)
    since = models.DateTimeField()

    class Meta:
        ordering = ["-since"]
        constraints = [models.UniqueConstraint(fields=["rule", "version"], name="alert_unique")]

    def __str__(self) -> str:
        return f"{self.rule} of {self.version}: {self.state}"


class Delivery(models.Model):
    """One message to one receiver, written in the transaction of what it tells of and sent afterwards."""

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="deliveries")
    webhook = models.ForeignKey(Webhook, models.CASCADE, null=True, blank=True, related_name="deliveries")
    email = models.CharField(max_length=254, blank=True)
    # A test of a webhook that does not exist yet: JSON of its url, headers, secret, timeout and retry.
    trial = EncryptedTextField(blank=True, default="")
    # Makes it one of its kind: the request and event, or the alert and its change.
    occasion = models.CharField(max_length=100)
    payload = models.JSONField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    error_message = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["webhook", "email", "occasion"], nulls_distinct=False, name="delivery_unique"
            )
        ]
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=models.Q(state="pending"), name="delivery_due"),
            models.Index(fields=["project", "-created_at"], name="delivery_project"),
        ]

    def __str__(self) -> str:
        return f"{self.occasion}: {self.state}"
