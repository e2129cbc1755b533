"""What versions ask for, and what they were given: the link between a version and its claims."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q

from deployments.models import DeploymentVersion, EnvironmentBuild, GpuClaim, GpuFlavor, InstanceType

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
    code: str = ""
    message: str = ""
    next: str = ""
    hopeless: bool = False


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
    nodes = tuple((cluster, node) for claim in placed for cluster, node in claim.nodes)
    held = sum(claim.instances for claim in placed if claim.part >= 0)
    moving = sum(claim.is_move for claim in placed)
    kind = next((claim.instance_type for claim in placed), None)
    short = next((claim for claim in claims if claim.part >= 0 and claim.state != State.PLACED), None)
    if short is None:
        if claims or not version.desired_instances:
            return Holding(held, nodes, kind, moving)
        return Holding(
            0, (), None, 0, "gpu_queued", "Waits for the next look at the GPU queue.", "Nothing to do: a few seconds."
        )
    return Holding(
        held,
        nodes,
        kind,
        moving,
        short.reason_code or "gpu_queued",
        short.reason_message or "Waits for the next look at the GPU queue.",
        short.reason_next,
        hopeless=short.state == State.REFUSED and short.part == 0,
    )


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
