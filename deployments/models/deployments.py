"""Deployments, their versions and revisions, and the rollouts between them.

Columns of intent are written by `deployments.services`, columns of observation by the reconciler alone.
"""

import uuid

from django.core.validators import RegexValidator
from django.db import models

from accounts.models import Project, User, name_validator
from deployments.models.environments import Environment, EnvironmentBuild, InstanceType, InstanceTypeGroup
from deployments.models.fields import EncryptedTextField
from deployments.models.gpu import GpuPriority
from deployments.models.registry import ModelVersion

version_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9_.-]{0,38}[a-z0-9])?\Z",
    "Use lower-case letters, digits, hyphens, underscores and dots, at most 40, "
    "starting and ending with a letter or digit.",
    code="invalid_name",
)


class DataType(models.TextChoices):
    STRUCTURED = "structured"
    PLAIN = "plain"


class Deployment(models.Model):
    """A stable name and endpoint with an input and output schema."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="deployments")
    name = models.CharField(max_length=63, validators=[name_validator])
    description = models.TextField(blank=True)
    input_type = models.CharField(max_length=10, choices=DataType.choices, default=DataType.STRUCTURED)
    output_type = models.CharField(max_length=10, choices=DataType.choices, default=DataType.STRUCTURED)
    # [{"name": str, "data_type": "int" | "double" | "string" | "bool" | "array_..." | "dict" | "file"...}]
    input_fields = models.JSONField(default=list, blank=True)
    output_fields = models.JSONField(default=list, blank=True)
    supports_request_format = models.BooleanField(default=True)
    labels = models.JSONField(default=dict, blank=True)
    default_version = models.ForeignKey("DeploymentVersion", models.SET_NULL, null=True, blank=True, related_name="+")
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="deployment_name_unique")]

    def __str__(self) -> str:
        return self.name


class DeploymentVersion(models.Model):
    """How one variant of a deployment runs."""

    class ScalingStrategy(models.TextChoices):
        DEFAULT = "default"
        MODERATE = "moderate"

    class RetentionMode(models.TextChoices):
        NONE = "none"
        METADATA = "metadata"
        FULL = "full"

    class Phase(models.TextChoices):
        """What the reconciler last saw."""

        EMPTY = "empty", "No revision yet"
        QUEUED = "queued", "Queued"
        ENVIRONMENT = "environment", "Preparing the environment"
        SCHEDULING = "scheduling", "Waiting for a node"
        STARTING = "starting", "Starting"
        SERVING = "serving", "Serving"
        IDLE = "idle", "Idle at zero instances"
        DEGRADED = "degraded", "Serving, with trouble"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="versions")
    version = models.CharField(max_length=40, validators=[version_validator])
    description = models.TextField(blank=True)
    labels = models.JSONField(default=dict, blank=True)

    # Intent.
    # RESTRICT, not PROTECT: deleting a project takes both ends at once.
    environment = models.ForeignKey(Environment, models.RESTRICT, related_name="versions")
    environment_tag = models.CharField(max_length=63, blank=True)
    instance_type = models.ForeignKey(InstanceType, models.PROTECT, null=True, blank=True, related_name="+")
    instance_type_group = models.ForeignKey(
        InstanceTypeGroup, models.RESTRICT, null=True, blank=True, related_name="versions"
    )
    # Of its claims on GPUs; without one the platform's default level.
    gpu_priority = models.ForeignKey(GpuPriority, models.RESTRICT, null=True, blank=True, related_name="versions")
    minimum_instances = models.PositiveIntegerField(default=0)
    maximum_instances = models.PositiveIntegerField(default=5)
    maximum_idle_time = models.PositiveIntegerField(default=300, help_text="seconds")
    request_retention_time = models.PositiveIntegerField(default=604800, help_text="seconds")
    request_retention_mode = models.CharField(max_length=10, choices=RetentionMode.choices, default=RetentionMode.FULL)
    maximum_queue_size = models.PositiveIntegerField(default=100_000)
    restart_request_interruption = models.BooleanField(default=False)
    scaling_strategy = models.CharField(max_length=10, choices=ScalingStrategy.choices, default=ScalingStrategy.DEFAULT)
    instance_processes = models.PositiveIntegerField(default=1)
    ports = models.JSONField(default=list, blank=True)
    health_check = models.JSONField(null=True, blank=True)
    command = models.JSONField(null=True, blank=True)
    args = models.JSONField(null=True, blank=True)
    target_revision = models.ForeignKey("Revision", models.SET_NULL, null=True, blank=True, related_name="+")
    # Within [minimum, maximum]; moved by the autoscaler and by the first request to an idle version.
    desired_instances = models.PositiveIntegerField(default=0)
    # Grows with every change of intent, in the same transaction.
    generation = models.PositiveIntegerField(default=1)
    # Asks for new pods of the same revision (restart); copied into the pod template.
    restarted_at = models.DateTimeField(null=True, blank=True)
    last_request_at = models.DateTimeField(null=True, blank=True)

    # Observation.
    observed_generation = models.PositiveIntegerField(default=0)
    phase = models.CharField(max_length=12, choices=Phase.choices, default=Phase.EMPTY)
    # The revision that answers requests now; differs from the target during a rollout.
    active_revision = models.ForeignKey("Revision", models.SET_NULL, null=True, blank=True, related_name="+")
    ready_instances = models.PositiveIntegerField(default=0)
    reason_code = models.CharField(max_length=60, blank=True)
    reason_message = models.TextField(blank=True)
    reason_next = models.TextField(blank=True)
    observed_at = models.DateTimeField(null=True, blank=True)

    # The reconciler's lease: compare-and-set, short, never held across a wait.
    lease_owner = models.CharField(max_length=60, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["version"]
        constraints = [
            models.UniqueConstraint(fields=["deployment", "version"], name="deployment_version_unique"),
            models.CheckConstraint(
                condition=models.Q(minimum_instances__lte=models.F("maximum_instances")),
                name="minimum_within_maximum",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.deployment}/{self.version}"


class Revision(models.Model):
    """One immutable upload of a package, one registry model version, or one image, under a version."""

    class Kind(models.TextChoices):
        PACKAGE = "package"
        MODEL = "model"
        IMAGE = "image"

    class Status(models.TextChoices):
        """As in the public API's revision status."""

        QUEUED = "queued"
        BUILDING = "building"
        SUCCESS = "success"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(DeploymentVersion, models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.PACKAGE)
    file_name = models.CharField(max_length=255, blank=True)
    file = models.CharField(max_length=255, blank=True, editable=False, help_text="storage key")
    digest = models.CharField(max_length=64, blank=True, editable=False)
    size = models.BigIntegerField(default=0, editable=False, help_text="bytes")
    # [{"path": str, "size": int, "crc": int}] of a package: what a diff between revisions compares first.
    manifest = models.JSONField(default=list, blank=True)
    requirements = models.TextField(blank=True)
    # Declared in the package's ubiops.yaml; variables of the version, deployment and project override them.
    environment_variables = models.JSONField(default=dict, blank=True)
    has_request_method = models.BooleanField(default=True)
    has_requests_method = models.BooleanField(default=False)
    model_version = models.ForeignKey(ModelVersion, models.RESTRICT, null=True, blank=True, related_name="revisions")
    image = models.CharField(max_length=500, blank=True)
    environment_build = models.ForeignKey(
        EnvironmentBuild, models.SET_NULL, null=True, blank=True, related_name="revisions"
    )
    # Observation: of the build, and of the first time it became ready.
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    error_message = models.TextField(blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    creation_date = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["version", "number"], name="revision_number_unique")]

    def __str__(self) -> str:
        return f"{self.version} r{self.number}"


class Rollout(models.Model):
    """The passage of a version to a revision or spec. At most one per version is in progress."""

    class Cause(models.TextChoices):
        UPLOAD = "upload", "New revision"
        ROLLBACK = "rollback", "Rollback"
        SETTINGS = "settings", "Settings changed"
        VARIABLES = "variables", "Environment variables changed"
        RESTART = "restart", "Restart"
        REBUILD = "rebuild", "Rebuild"

    class State(models.TextChoices):
        IN_PROGRESS = "in_progress", "In progress"
        COMPLETE = "complete", "Complete"
        FAILED = "failed", "Failed"
        SUPERSEDED = "superseded", "Superseded by a newer rollout"

    class Strategy(models.TextChoices):
        """How instances with GPUs pass over; chosen by the GPU pass before the rollout starts."""

        SURGE = "surge", "One instance more for the time of the rollout"
        IN_PLACE = "in_place", "Handed over in place, one instance at a time"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(DeploymentVersion, models.CASCADE, related_name="rollouts")
    generation = models.PositiveIntegerField()
    cause = models.CharField(max_length=10, choices=Cause.choices)
    from_revision = models.ForeignKey(Revision, models.SET_NULL, null=True, blank=True, related_name="+")
    to_revision = models.ForeignKey(Revision, models.CASCADE, related_name="rollouts")
    state = models.CharField(max_length=12, choices=State.choices, default=State.IN_PROGRESS)
    strategy = models.CharField(max_length=10, choices=Strategy.choices, blank=True)
    # Seconds without the instance that is handed over, as announced before it starts.
    expected_gap = models.PositiveIntegerField(null=True, blank=True)
    # Observation: when each step was first seen reached.
    queued_at = models.DateTimeField(auto_now_add=True)
    environment_at = models.DateTimeField(null=True, blank=True)
    scheduled_at = models.DateTimeField(null=True, blank=True)
    starting_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    serving_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    reason_code = models.CharField(max_length=60, blank=True)
    reason_message = models.TextField(blank=True)
    reason_next = models.TextField(blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")

    class Meta:
        ordering = ["-queued_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["version"], condition=models.Q(state="in_progress"), name="one_rollout_in_progress"
            )
        ]

    def __str__(self) -> str:
        return f"{self.version} to r{self.to_revision.number}: {self.state}"


class EnvironmentVariable(models.Model):
    """Of a project, a deployment or a version; the nearest wins. Values of secrets are write-only."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="environment_variables")
    deployment = models.ForeignKey(
        Deployment, models.CASCADE, null=True, blank=True, related_name="environment_variables"
    )
    version = models.ForeignKey(
        DeploymentVersion, models.CASCADE, null=True, blank=True, related_name="environment_variables"
    )
    name = models.CharField(max_length=200)
    value = EncryptedTextField(blank=True)
    secret = models.BooleanField(default=False)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "deployment", "version", "name"],
                nulls_distinct=False,
                name="environment_variable_unique",
            ),
            models.CheckConstraint(
                condition=models.Q(deployment=None) | models.Q(version=None), name="variable_has_one_scope"
            ),
        ]

    def __str__(self) -> str:
        return self.name
