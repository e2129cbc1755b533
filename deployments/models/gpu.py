"""GPUs: what there is (kept by the watcher), the policy (set by the platform team), and the claims on them.

Amounts of quota are whole devices. Columns of observation are written by the watcher and the pass alone.
"""

import uuid

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from accounts.models import Project, name_validator
from deployments.models.environments import InstanceType


class GpuNode(models.Model):
    """A node that offers devices, as last seen. The same name in two clusters is two nodes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    cluster = models.CharField(max_length=200)
    name = models.CharField(max_length=253)
    cpu_milli = models.BigIntegerField(help_text="allocatable, thousandths of a core")
    memory_mib = models.BigIntegerField(help_text="allocatable, MiB")
    labels = models.JSONField(default=dict)
    taints = models.JSONField(default=list)
    # What pods that no claim stands for take here, as the last pass saw it.
    foreign_cpu_milli = models.BigIntegerField(default=0)
    foreign_memory_mib = models.BigIntegerField(default=0)
    ready = models.BooleanField(default=True)
    schedulable = models.BooleanField(default=True)
    simulated = models.BooleanField(default=False)
    seen_at = models.DateTimeField()
    # Set once the cluster does not know it any more; it comes back under the same row.
    gone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "GPU node"
        ordering = ["cluster", "name"]
        constraints = [models.UniqueConstraint(fields=["cluster", "name"], name="gpu_node_unique")]

    def __str__(self) -> str:
        return self.name


class GpuPool(models.Model):
    """The devices of one kind on a node: whole GPUs, MIG slices of one profile, or shared replicas."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    node = models.ForeignKey(GpuNode, models.CASCADE, related_name="pools")
    # Kubernetes extended resource, for example nvidia.com/gpu or nvidia.com/mig-1g.5gb.
    resource = models.CharField(max_length=120)
    product = models.CharField(max_length=200)
    memory_mib = models.PositiveIntegerField(default=0, help_text="MiB of one device; 0 when unknown")
    capacity = models.PositiveIntegerField(help_text="devices")
    # Fewer than the capacity when the device plugin took some for unhealthy.
    allocatable = models.PositiveIntegerField(help_text="healthy devices")
    # Devices held by pods that no claim stands for, as the last pass saw it.
    foreign = models.PositiveIntegerField(default=0)
    # How many pods share one GPU by time-slicing or MPS; each replica counts as a device.
    replicas = models.PositiveIntegerField(default=1)

    class Meta:
        ordering = ["node", "resource"]
        constraints = [models.UniqueConstraint(fields=["node", "resource"], name="gpu_pool_unique")]

    def __str__(self) -> str:
        return f"{self.node}: {self.capacity} x {self.product}"


class GpuFlavor(models.Model):
    """A kind of GPU on offer: devices of a resource, by product and node labels, at a price."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    resource = models.CharField(max_length=120, default="nvidia.com/gpu")
    products = models.JSONField(default=list, blank=True, help_text="product labels; empty for any")
    node_selector = models.JSONField(default=dict, blank=True)
    price = models.FloatField(default=0, validators=[MinValueValidator(0)], help_text="credits an hour and device")

    class Meta:
        verbose_name = "GPU flavor"
        ordering = ["price", "name"]

    def __str__(self) -> str:
        return self.name


class GpuCohort(models.Model):
    """Projects, and cohorts of them, that lend each other what they do not use."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    parent = models.ForeignKey("self", models.RESTRICT, null=True, blank=True, related_name="children")
    weight = models.FloatField(default=1, validators=[MinValueValidator(0)])

    class Meta:
        verbose_name = "GPU cohort"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class GpuTenant(models.Model):
    """A project's place among the others."""

    project = models.OneToOneField(Project, models.CASCADE, primary_key=True, related_name="gpu_tenant")
    cohort = models.ForeignKey(GpuCohort, models.RESTRICT, null=True, blank=True, related_name="tenants")
    weight = models.FloatField(default=1, validators=[MinValueValidator(0)])
    # Observation: use that fades, thousandths of devices x seconds.
    past_use = models.FloatField(default=0, editable=False)

    class Meta:
        verbose_name = "GPU tenant"
        ordering = ["project"]

    def __str__(self) -> str:
        return str(self.project)


class GpuQuota(models.Model):
    """Devices of a flavor that a project or a cohort has; empty limits are no limit."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    flavor = models.ForeignKey(GpuFlavor, models.CASCADE, related_name="quotas")
    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True, related_name="gpu_quotas")
    cohort = models.ForeignKey(GpuCohort, models.CASCADE, null=True, blank=True, related_name="quotas")
    nominal = models.PositiveIntegerField(default=0)
    borrowing_limit = models.PositiveIntegerField(null=True, blank=True)
    lending_limit = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        verbose_name = "GPU quota"
        ordering = ["flavor", "project", "cohort"]
        constraints = [
            models.UniqueConstraint(
                fields=["flavor", "project", "cohort"], nulls_distinct=False, name="gpu_quota_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(project=None, cohort__isnull=False) | models.Q(project__isnull=False, cohort=None),
                name="gpu_quota_has_one_owner",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project or self.cohort}: {self.nominal} x {self.flavor}"


class GpuPriority(models.Model):
    """A level that versions may run at; higher values go first and may displace lower ones of the same project."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    value = models.IntegerField(unique=True)
    default = models.BooleanField(default=False, help_text="for versions that name none")
    # Who may use it; everybody while none is listed.
    projects = models.ManyToManyField(Project, blank=True, related_name="gpu_priorities")

    class Meta:
        verbose_name = "GPU priority"
        verbose_name_plural = "GPU priorities"
        ordering = ["-value"]
        constraints = [
            models.UniqueConstraint(fields=["default"], condition=models.Q(default=True), name="one_default_priority")
        ]

    def __str__(self) -> str:
        return self.name


class GpuPolicy(models.Model):
    """The rules of the pass; one row. Seconds unless said otherwise."""

    class FairSharing(models.TextChoices):
        """When a project that borrows may displace another that borrows more; values are the planner's."""

        OFF = "off", "Never"
        FINAL_SHARE = "final-share", "When it then has no larger share than it leaves"
        INITIAL_SHARE = "initial-share", "When it then has a smaller share than the other had"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    idle_minutes = models.PositiveIntegerField(
        null=True, blank=True, help_text="without a request before devices are taken back; empty for never"
    )
    minimum_run_seconds = models.PositiveIntegerField(default=300, help_text="before a claim may be displaced")
    hold_after_seconds = models.PositiveIntegerField(
        default=3600, help_text="of waiting before what frees up is kept for a claim"
    )
    preempt_within_project = models.BooleanField(default=True)
    reclaim = models.BooleanField(default=True, help_text="projects get lent quota back by displacing borrowers")
    fair_sharing = models.CharField(
        max_length=20,
        choices=FairSharing.choices,
        default=FairSharing.OFF,
        help_text="between projects that borrow: whether the one with less displaces the one with more",
    )
    half_life_hours = models.FloatField(default=24, help_text="after which past use counts half")
    usage_weight = models.FloatField(default=0.1, validators=[MinValueValidator(0)])
    # Observation: up to when use is accounted for, and how the last pass went.
    accounted_at = models.DateTimeField(null=True, blank=True, editable=False)
    passed_at = models.DateTimeField(null=True, blank=True, editable=False)
    pass_ms = models.PositiveIntegerField(default=0, editable=False)
    pass_note = models.TextField(blank=True, editable=False)

    class Meta:
        verbose_name = "GPU policy"
        verbose_name_plural = "GPU policies"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_gpu_policy")]

    def __str__(self) -> str:
        return "GPU policy"


class GpuClaim(models.Model):
    """A wish of a version for devices: its first instances together (part 0), each further one by itself.

    A surge (part -1) is one instance more for the time of a rollout; a move (parts from -2 down) is the place that one
    instance is moving to; what a version holds in an outgrown size (parts from -1000 down) it keeps until there is a
    place for the new one. Ended claims are kept as history.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        PLACED = "placed", "Placed"
        EVICTED = "evicted", "Displaced, waiting again"
        RELEASED = "released", "Taken back while idle"
        REFUSED = "refused", "Can never be placed"
        ENDED = "ended", "Ended"

    SURGE = -1
    MOVE = -2
    OUTGROWN = -1000

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="gpu_claims")
    version = models.ForeignKey("DeploymentVersion", models.SET_NULL, null=True, blank=True, related_name="gpu_claims")
    label = models.CharField(max_length=120)
    part = models.IntegerField(default=0)
    instances = models.PositiveIntegerField(default=1)
    devices = models.PositiveIntegerField(help_text="of one instance")
    cpu_milli = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    instance_type = models.ForeignKey(InstanceType, models.SET_NULL, null=True, related_name="+")
    flavors = models.JSONField(default=list, help_text="names that it accepts, in order")
    priority = models.IntegerField(default=0)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    # What it holds: the flavor and [[cluster, node], ...], one entry an instance. Kept while a displaced one ends.
    flavor = models.CharField(max_length=63, blank=True)
    nodes = models.JSONField(default=list)
    # A place made for it by displacing others: {"flavor": name, "nodes": [[cluster, node], ...]}.
    reserved = models.JSONField(null=True, blank=True)
    displaced_for = models.UUIDField(null=True, blank=True)
    # Of a move: the place that is given up once the instance at the new one is ready.
    moves_from = models.JSONField(null=True, blank=True, help_text="[cluster, node]")
    evictions = models.PositiveIntegerField(default=0)
    reason_code = models.CharField(max_length=60, blank=True)
    reason_message = models.TextField(blank=True)
    reason_next = models.TextField(blank=True)
    reason_at = models.DateTimeField(null=True, blank=True)
    position = models.PositiveIntegerField(null=True, blank=True)
    ahead = models.PositiveIntegerField(default=0, help_text="devices asked for by those before it")
    # Ids of the nearest claims before it; names are told to those who may see them.
    ahead_claims = models.JSONField(default=list)
    expected_wait = models.FloatField(null=True, blank=True, help_text="seconds")
    created_at = models.DateTimeField(default=timezone.now)
    placed_at = models.DateTimeField(null=True, blank=True)
    first_placed_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "GPU claim"
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["version", "part"],
                condition=models.Q(ended_at=None, version__isnull=False),
                name="gpu_claim_open_part_unique",
            )
        ]
        indexes = [
            models.Index(fields=["state"], condition=models.Q(ended_at=None), name="gpu_claim_open"),
            models.Index(fields=["created_at"], name="gpu_claim_created"),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def is_move(self) -> bool:
        return self.OUTGROWN < self.part <= self.MOVE

    @property
    def is_outgrown(self) -> bool:
        return self.part <= self.OUTGROWN

    @property
    def flavor_wanted(self) -> str:
        """The flavor that it holds, else the first that it accepts."""
        return self.flavor or (self.flavors[0] if self.flavors else "")

    @property
    def demand(self) -> int:
        """Devices in all."""
        return self.devices * self.instances


class GpuClaimEvent(models.Model):
    """What happened to a claim: it was placed, waits for another reason than before, was displaced, or ended."""

    id = models.BigAutoField(primary_key=True)
    claim = models.ForeignKey(GpuClaim, models.CASCADE, related_name="events")
    version = models.ForeignKey("DeploymentVersion", models.CASCADE, null=True, related_name="gpu_events")
    state = models.CharField(max_length=10, choices=GpuClaim.State.choices)
    code = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["version", "-created_at"], name="gpu_event_version")]

    def __str__(self) -> str:
        return f"{self.claim}: {self.state}"


class GpuUse(models.Model):
    """Device seconds of a project, by flavor and day (UTC)."""

    id = models.BigAutoField(primary_key=True)
    project = models.ForeignKey(Project, models.CASCADE, related_name="gpu_use")
    flavor = models.CharField(max_length=63)
    day = models.DateField()
    seconds = models.FloatField(default=0)
    cost = models.FloatField(default=0, help_text="credits, at the price of the time")

    class Meta:
        ordering = ["-day"]
        constraints = [models.UniqueConstraint(fields=["project", "flavor", "day"], name="gpu_use_unique")]

    def __str__(self) -> str:
        return f"{self.project} {self.day}: {self.flavor}"
