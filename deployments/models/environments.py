"""What code runs in: base runtimes, named environments, builds; and what it runs on: instance types."""

import uuid
from typing import Any

from django.db import models
from django.utils import timezone

from accounts.models import Project, name_validator
from kube import specs


class Environment(models.Model):
    """A base environment (no project; made by the platform team) or one of a project on top of a base."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True, related_name="environments")
    name = models.CharField(max_length=63)
    display_name = models.CharField(max_length=100, blank=True)
    description = models.TextField(blank=True)
    base = models.ForeignKey("self", models.RESTRICT, null=True, blank=True, related_name="children")
    # Key of PILOTHOUSE_RUNTIME_IMAGES, for example python3.11; "image" runs a container image as it is.
    runtime = models.CharField(max_length=40)
    requirements = models.TextField(blank=True, help_text="requirements.txt")
    labels = models.JSONField(default=dict, blank=True)
    gpu_required = models.BooleanField(default=False)
    deprecated = models.BooleanField(default=False)
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], nulls_distinct=False, name="environment_name_unique")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def language(self) -> str:
        return "r" if self.runtime.startswith("r") else "python"


class EnvironmentTag(models.Model):
    """A name that points at one state of a base environment, as in the public API's `environment_tag`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    environment = models.ForeignKey(Environment, models.CASCADE, related_name="tags")
    name = models.CharField(max_length=63)
    creation_date = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["environment", "name"], name="environment_tag_unique")]

    def __str__(self) -> str:
        return f"{self.environment}:{self.name}"


class EnvironmentBuild(models.Model):
    """One content hash of runtime and requirements, and the state of its one build.

    One without anything of a user's is in the tree ``shared`` of the volume and is every project's; any other is in its
    project's own tree, whose name is the project's id, and nobody else's.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        BUILDING = "building"
        SUCCESS = "success"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hash = models.CharField(max_length=64, unique=True)
    runtime = models.CharField(max_length=40)
    requirements = models.TextField(blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    # The project whose namespace and quota the running build uses.
    project = models.ForeignKey(Project, models.SET_NULL, null=True, related_name="+")
    attempt = models.PositiveIntegerField(default=1)
    reason_code = models.CharField(max_length=60, blank=True)
    error_message = models.TextField(blank=True)
    log = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    # When a version asked for it, or was last seen to need it.
    last_used_at = models.DateTimeField(default=timezone.now)
    # Its folder on the volume, "TREE/HASH"; the hash with a number while an older folder of that name is still to be
    # removed. Those of before there were trees are at the root: they are used, but not built there any more.
    directory = models.CharField(max_length=140, unique=True)

    def __str__(self) -> str:
        return self.hash[:12]

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.directory = self.directory or f"{specs.SHARED}/{self.hash}"
        super().save(*args, **kwargs)

    @property
    def tree(self) -> str:
        return specs.tree_of(self.directory)

    @property
    def folder(self) -> str:
        return specs.folder_of(self.directory)


class DiscardedEnvironment(models.Model):
    """A folder on the volume that no build has any more, or the tree of a project that is gone; still to be removed."""

    directory = models.CharField(max_length=140, unique=True)
    discarded_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.directory

    @property
    def tree(self) -> str:
        return specs.tree_of(self.directory)


class InstanceType(models.Model):
    """A size of instance, made by the platform team."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    display_name = models.CharField(max_length=100, blank=True)
    cpu = models.FloatField("CPU", help_text="cores")
    memory = models.PositiveIntegerField(help_text="MiB")
    storage = models.PositiveIntegerField(default=10240, help_text="MiB of ephemeral storage")
    accelerator = models.PositiveIntegerField(default=0, help_text="devices")
    # Kubernetes extended resource of the devices, for example nvidia.com/gpu.
    accelerator_resource = models.CharField(max_length=100, blank=True)
    node_selector = models.JSONField(default=dict, blank=True)
    tolerations = models.JSONField(default=list, blank=True)
    credit_rate = models.FloatField(default=0, help_text="credits an hour")
    dedicated_node = models.BooleanField(default=False)
    enabled = models.BooleanField(default=True)
    time_created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["accelerator", "memory", "name"]

    def __str__(self) -> str:
        return self.name


class InstanceTypeGroup(models.Model):
    """Instance types in order of preference."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="instance_type_groups")
    name = models.CharField(max_length=63)
    time_created = models.DateTimeField(auto_now_add=True)
    time_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="instance_type_group_unique")]

    def __str__(self) -> str:
        return self.name


class InstanceTypeGroupItem(models.Model):
    group = models.ForeignKey(InstanceTypeGroup, models.CASCADE, related_name="items")
    instance_type = models.ForeignKey(InstanceType, models.PROTECT, related_name="+")
    priority = models.PositiveIntegerField(default=0)
    schedule_timeout = models.PositiveIntegerField(null=True, blank=True, help_text="seconds")

    class Meta:
        ordering = ["priority"]
        constraints = [models.UniqueConstraint(fields=["group", "instance_type"], name="group_instance_type_unique")]

    def __str__(self) -> str:
        return f"{self.group}: {self.instance_type}"
