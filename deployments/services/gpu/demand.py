"""What versions ask for, and what they were given: the link between a version and its claims."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.db.models import Q

from deployments.models import DeploymentVersion, EnvironmentBuild, GpuClaim, GpuFlavor, InstanceType, Rollout

State = GpuClaim.State


@dataclass(frozen=True, slots=True)
class Choice:
    """One instance type that a version accepts, once it has waited ``after`` seconds."""

    kind: InstanceType
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Holding:
    """What a governed version holds now. ``reason`` columns say why it has less than it wants."""

    instances: int
    # [cluster, node] of each instance; the surge of a rollout and those that are moving included.
    nodes: tuple[tuple[str, str], ...] = ()
    instance_type: InstanceType | None = None
    # Instances more, for as long as some are on their way to another node.
    moving: int = 0
    # Of one instance; None where nothing is held.
    devices: int | None = None
    # [cluster, node] of instances of a size before, for as long as the version passes over.
    kept: tuple[tuple[str, str], ...] = ()
    # What runs is of a size that the version does not want any more; the new one waits, and why is told.
    outgrown: bool = False
    code: str = ""
    message: str = ""
    next: str = ""
    hopeless: bool = False

    @property
    def nothing_of_size(self) -> bool:
        """Whether it holds no place of the size that is wanted."""
        return self.outgrown or not self.instances


def may_need(version: DeploymentVersion) -> bool:
    """Whether a change of the version may concern GPUs; cheap, and true too often rather than too seldom."""
    kind = version.instance_type
    return version.instance_type_group_id is not None or (kind is not None and kind.accelerator > 0)


def choices(version: DeploymentVersion) -> list[Choice]:
    """The instance types of a version in order, each with the wait before it is tried."""
    if version.instance_type is not None:
        return [Choice(version.instance_type)]
    if version.instance_type_group is None:
        return []
    found, waited = [], 0.0
    for item in version.instance_type_group.items.all():
        found.append(Choice(item.instance_type, waited))
        waited += item.schedule_timeout or 0
    return found


def governed(version: DeploymentVersion, resources: Iterable[str]) -> bool:
    """Whether the GPU pass decides over the version: it asks for devices of which there is a flavor.

    Without a flavor nothing is governed, and the cluster's own scheduler alone decides.
    """
    known = set(resources)
    return any(choice.kind.accelerator and choice.kind.accelerator_resource in known for choice in choices(version))


def holding(version: DeploymentVersion) -> Holding | None:
    """What the version holds; None when the GPU pass does not decide over it."""
    if not may_need(version):
        return None
    resources = set(GpuFlavor.objects.values_list("resource", flat=True))
    if not resources or not governed(version, resources):
        return None
    claims = list(
        GpuClaim.objects.filter(version=version, ended_at=None).select_related("instance_type").order_by("part")
    )
    placed = [claim for claim in claims if claim.state == State.PLACED]
    current = [claim for claim in placed if claim.part >= 0]
    outgrown = [claim for claim in placed if claim.is_outgrown]
    holders = current or outgrown
    short = next((claim for claim in claims if claim.part >= 0 and claim.state != State.PLACED), None)
    there = [claim for claim in placed if not (current and claim.is_outgrown)]
    held = Holding(
        instances=sum(claim.instances for claim in holders),
        nodes=_places(there),
        instance_type=next((claim.instance_type for claim in holders), None),
        moving=sum(claim.is_move for claim in placed),
        devices=next((claim.devices for claim in holders), None),
        kept=_places(outgrown) if current else (),
        outgrown=bool(outgrown) and not current,
    )
    if short is None and (current or not version.desired_instances):
        return held
    if not placed and _runs_without(version):
        held = replace(held, instances=version.desired_instances, outgrown=True)
    return replace(
        held,
        code=(short and short.reason_code) or "gpu_queued",
        message=(short and short.reason_message) or "Waits for the next look at the GPU queue.",
        next=short.reason_next if short and short.reason_message else "Nothing to do: a few seconds.",
        hopeless=short is not None and short.state == State.REFUSED and short.part == 0,
    )


def _runs_without(version: DeploymentVersion) -> bool:
    """Whether the version, so far without devices, answers as it is while its first claim waits."""
    if not version.ready_instances:
        return False
    undecided = version.rollouts.filter(state=Rollout.State.IN_PROGRESS, strategy="")
    return undecided.exists() and not version.gpu_claims.filter(first_placed_at__isnull=False).exists()


def _places(claims: Iterable[GpuClaim]) -> tuple[tuple[str, str], ...]:
    return tuple((cluster, node) for claim in claims for cluster, node in claim.nodes)


def concerned() -> list[DeploymentVersion]:
    """Versions that ask for accelerators now, or hold some, with all that is needed to judge them."""
    kinds = Q(instance_type__accelerator__gt=0) | Q(instance_type_group__items__instance_type__accelerator__gt=0)
    built = Q(target_revision__environment_build=None) | Q(
        target_revision__environment_build__state=EnvironmentBuild.State.SUCCESS
    )
    # Devices are not held while an environment is built, unless something answers meanwhile.
    return list(
        DeploymentVersion.objects.filter(
            kinds,
            built | Q(active_revision__isnull=False),
            target_revision__isnull=False,
            desired_instances__gt=0,
            deployment__project__suspended=False,
        )
        .select_related("deployment__project", "instance_type", "instance_type_group", "gpu_priority")
        .prefetch_related("instance_type_group__items__instance_type")
        .distinct()
    )
