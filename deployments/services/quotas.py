"""Ceilings of a project over what its versions may run at once."""

import dataclasses

from accounts.errors import Invalid
from accounts.models import Project
from deployments.models import DeploymentVersion, InstanceType, InstanceTypeGroup


@dataclasses.dataclass(frozen=True)
class Size:
    """CPU in cores, memory in MiB, accelerators in devices."""

    cpu: float = 0
    memory: int = 0
    accelerators: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.cpu + other.cpu, self.memory + other.memory, self.accelerators + other.accelerators)

    def __mul__(self, times: int) -> "Size":
        return Size(self.cpu * times, self.memory * times, self.accelerators * times)


_UNITS = {"cpu": "CPU cores", "memory": "MiB of memory", "accelerators": "accelerators"}


def size_of(instance_type: InstanceType | None, group: InstanceTypeGroup | None = None) -> Size:
    """One instance; of a group the largest it may become."""
    if instance_type is not None:
        return Size(instance_type.cpu, instance_type.memory, instance_type.accelerator)
    types = [item.instance_type for item in group.items.select_related("instance_type")] if group is not None else []
    return Size(
        max((kind.cpu for kind in types), default=0),
        max((kind.memory for kind in types), default=0),
        max((kind.accelerator for kind in types), default=0),
    )


def ceilings(project: Project) -> dict[str, float]:
    """The quotas that are set, by resource."""
    limits = {"cpu": project.quota_cpu, "memory": project.quota_memory, "accelerators": project.quota_accelerators}
    return {name: limit for name, limit in limits.items() if limit is not None}


def usage(project: Project, *, without: DeploymentVersion | None = None) -> Size:
    """What the wanted instances of the project's versions take, leaving one version out if asked."""
    versions = DeploymentVersion.objects.filter(
        deployment__project=project, target_revision__isnull=False, desired_instances__gt=0
    ).select_related("instance_type", "instance_type_group")
    if without is not None:
        versions = versions.exclude(pk=without.pk)
    total = Size()
    for version in versions:
        total += size_of(version.instance_type, version.instance_type_group) * version.desired_instances
    return total


def check(
    version: DeploymentVersion,
    instances: int,
    *,
    field: str = "minimum_instances",
    instance_type: InstanceType | None = None,
    group: InstanceTypeGroup | None = None,
) -> None:
    """Raises Invalid with the numbers if growing to ``instances`` would pass a ceiling of the version's project.

    Shrinking is never refused, even above a ceiling that was lowered below what runs. Call with the project locked
    (`intent.lock`), so that two changes cannot both take the last of it.
    """
    project = version.deployment.project
    limits = ceilings(project)
    if not limits or instances == 0:
        return
    if instance_type is None and group is None:
        instance_type, group = version.instance_type, version.instance_type_group
    used = usage(project, without=version)
    wanted = size_of(instance_type, group) * instances
    now = size_of(version.instance_type, version.instance_type_group) * version.desired_instances
    for name, limit in limits.items():
        have, ask = getattr(used, name), getattr(wanted, name)
        if ask > getattr(now, name) and have + ask > limit:
            raise Invalid(
                **{
                    field: f"{instances} instance(s) need {ask:g} {_UNITS[name]}; project '{project.name}' "
                    f"uses {have:g} of its quota of {limit:g}, {max(0, limit - have):g} left. Choose fewer or "
                    "smaller instances, stop others, or ask the platform team for more"
                }
            )


def room(version: DeploymentVersion, wanted: int) -> int:
    """The number of instances, at most ``wanted``, that the quotas of the version's project leave it."""
    limits = ceilings(version.deployment.project)
    if not limits:
        return wanted
    used, one = (
        usage(version.deployment.project, without=version),
        size_of(version.instance_type, version.instance_type_group),
    )
    for name, limit in limits.items():
        if getattr(one, name):
            wanted = min(wanted, int(max(0, limit - getattr(used, name)) // getattr(one, name)))
    return wanted
