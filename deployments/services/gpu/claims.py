"""Claims as versions want them now: made, trimmed and ended; nothing here decides who gets what."""

import datetime as dt
import math
import uuid
from dataclasses import dataclass, field

from deployments.models import DeploymentVersion, GpuClaim, GpuPriority, InstanceType, Rollout
from deployments.services.gpu.demand import Choice
from deployments.services.gpu.demand import choices as choices_of
from deployments.services.gpu.fleet import Place, Supply

State = GpuClaim.State

# What the pass may change on a claim; compared with what was read to find what to save.
COLUMNS = (
    "part",
    "instances",
    "devices",
    "cpu_milli",
    "memory_mib",
    "instance_type_id",
    "flavors",
    "priority",
    "label",
    "state",
    "flavor",
    "nodes",
    "reserved",
    "displaced_for",
    "moves_from",
    "evictions",
    "reason_code",
    "reason_message",
    "reason_next",
    "reason_at",
    "position",
    "ahead",
    "ahead_claims",
    "expected_wait",
    "placed_at",
    "first_placed_at",
    "ended_at",
)
NOTHING: dict[str, object] = {
    "reason_code": "",
    "reason_message": "",
    "reason_next": "",
    "position": None,
    "ahead": 0,
    "ahead_claims": [],
    "expected_wait": None,
}


def columns(claim: GpuClaim) -> dict[str, object]:
    return {name: _copy(getattr(claim, name)) for name in COLUMNS}


def _copy(value: object) -> object:
    return [list(item) if isinstance(item, list) else item for item in value] if isinstance(value, list) else value


@dataclass(slots=True)
class Wish:
    """What one version wants: so many instances of one of its types."""

    version: DeploymentVersion
    instances: int
    choices: list[Choice]
    priority: int
    rolling: Rollout | None = None

    @property
    def least(self) -> int:
        """Instances that are placed together or not at all."""
        return min(max(self.version.minimum_instances, 1), self.instances)


@dataclass(slots=True)
class Levels:
    """Priority levels, and who may use those that are not open to all."""

    default: int = 0
    allowed: dict[uuid.UUID, set[uuid.UUID]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> "Levels":
        rows = list(GpuPriority.objects.prefetch_related("projects"))
        default = next((row.value for row in rows if row.default), 0)
        return cls(default, {row.pk: {project.pk for project in row.projects.all()} for row in rows})

    def value(self, version: DeploymentVersion) -> int:
        """The level's value; the default's for a project that may not use the level any more."""
        level = version.gpu_priority
        if level is None:
            return self.default
        allowed = self.allowed.get(level.pk, set())
        return self.default if allowed and version.deployment.project_id not in allowed else level.value


def set_kind(claim: GpuClaim, kind: InstanceType, supply: Supply) -> None:
    """Let the claim ask for instances of that type."""
    claim.instance_type = kind
    claim.devices = kind.accelerator
    claim.cpu_milli = math.ceil(kind.cpu * 1000 - 1e-6)
    claim.memory_mib = kind.memory
    claim.flavors = supply.flavors_for(kind) if kind.accelerator else []


def new(wish: Wish, part: int, instances: int, kind: InstanceType, supply: Supply, now: dt.datetime) -> GpuClaim:
    version = wish.version
    claim = GpuClaim(
        project=version.deployment.project,
        version=version,
        label=label_of(version),
        part=part,
        instances=instances,
        priority=wish.priority,
        created_at=now,
    )
    set_kind(claim, kind, supply)
    return claim


def label_of(version: DeploymentVersion) -> str:
    return f"{version.deployment.name}/{version.version}"[:120]


def end(claim: GpuClaim, now: dt.datetime) -> None:
    for name, value in NOTHING.items():
        setattr(claim, name, value)
    claim.state, claim.ended_at, claim.reserved, claim.nodes = State.ENDED, now, None, []


def trim(wish: Wish, live: list[GpuClaim], now: dt.datetime) -> None:
    """Give back what ``live`` holds beyond the wish, from the last on."""
    over = sum(claim.instances for claim in live) - wish.instances
    for claim in reversed(live):
        if over <= 0:
            return
        if claim.instances <= over:
            over -= claim.instances
            end(claim, now)
        else:
            claim.instances -= over
            claim.nodes = claim.nodes[: claim.instances]
            over = 0


def lose(claim: GpuClaim, places: list[Place], why: str, now: dt.datetime) -> None:
    """Take away places that are gone: the rest stays, and what is missing is asked for anew."""
    for place in places:
        if list(place) in claim.nodes:
            claim.nodes.remove(list(place))
    if claim.nodes:
        claim.instances = len(claim.nodes)
        return
    claim.state, claim.flavor, claim.placed_at = State.WAITING, "", None
    claim.reason_code, claim.reason_message, claim.reason_at = "place_lost", f"{why} A new place is looked for.", now
    claim.reason_next = "Nothing to do."


def wishes(versions: list[DeploymentVersion], resources: set[str], levels: Levels) -> dict[uuid.UUID, Wish]:
    """Wishes of versions over which the GPU pass decides; ``resources`` are those with a flavor."""
    rolling = {
        row.version_id: row
        for row in Rollout.objects.filter(
            version__in=[version.pk for version in versions], state=Rollout.State.IN_PROGRESS
        )
    }
    found = {}
    for version in versions:
        choices = [choice for choice in choices_of(version) if _usable(choice.kind, resources)]
        if not any(choice.kind.accelerator for choice in choices):
            continue
        found[version.pk] = Wish(
            version, version.desired_instances, choices, levels.value(version), rolling.get(version.pk)
        )
    return found


def _usable(kind: InstanceType, resources: set[str]) -> bool:
    return kind.accelerator == 0 or kind.accelerator_resource in resources
