"""Will it fit? The facts for `planning.preflight`: quota, nodes, the usual start, prices."""

import datetime as dt
import statistics
from collections.abc import Sequence

from django.utils import timezone

from accounts import access
from accounts.access import Permission
from accounts.errors import Invalid
from accounts.models import Project, User
from deployments import cluster as clusters
from deployments.models import DeploymentVersion, GpuClaim, Instance, InstanceType, InstanceTypeGroup
from deployments.planning.preflight import Ceiling, Need, Slice, Verdict, judge
from deployments.services import quotas
from deployments.services.gpu.fleet import selects, tolerates
from kube.errors import ClusterUnreachable
from kube.observe import rooms
from kube.state import Room

MIB = 2**20
LOOKED_AT = 50
RECENT = dt.timedelta(days=14)
MAX_INSTANCES = 1000


def preflight(
    actor: User,
    project: Project,
    *,
    instance_type: str | None = None,
    group: str | None = None,
    instances: int = 1,
    version: DeploymentVersion | None = None,
) -> Verdict:
    """Whether so many instances of a type, or of the first type of a group that fits, would run now.

    ``version`` is left out of what the project uses: it is about to be changed. Raises Invalid by field.
    """
    access.require(actor, Permission.PROJECT_EDIT, project)
    if not 0 <= instances <= MAX_INSTANCES:
        raise Invalid(minimum_instances=f"Give a number from 0 to {MAX_INSTANCES}")
    # At zero instances the first request still needs one.
    wanted = max(1, instances)
    here = _rooms()
    used = quotas.usage(project, without=version)
    ceilings = [Ceiling(name, limit, getattr(used, name)) for name, limit in quotas.ceilings(project).items()]
    usual = _usual_start(project)
    verdicts = []
    for kind in _types(project, instance_type, group):
        verdict = judge(
            Need(kind.cpu, kind.memory, kind.accelerator),
            wanted,
            None if here is None else _slices(kind, here),
            ceilings,
            nodes=len(here or ()),
            away=sum(1 for room in here or () if _away(room)),
            start_seconds=usual,
            price=kind.credit_rate,
            waiting=_waiting(kind),
            instance_type=kind.name,
        )
        if verdict.fits:
            return verdict
        verdicts.append(verdict)
    return verdicts[0]


def _types(project: Project, name: str | None, group: str | None) -> list[InstanceType]:
    if group:
        row = InstanceTypeGroup.objects.filter(project=project, name=group).first()
        if row is None:
            raise Invalid(instance_type_group_name=f"There is no instance type group '{group}' in the project")
        types = [item.instance_type for item in row.items.select_related("instance_type").order_by("priority")]
        if not types:
            raise Invalid(instance_type_group_name=f"The instance type group '{group}' is empty")
        return types
    kind = InstanceType.objects.filter(name=name or "", enabled=True).first()
    if kind is None:
        raise Invalid(instance_type=f"There is no instance type '{name or ''}'")
    return [kind]


def _rooms() -> list[Room] | None:
    """None when the cluster cannot be asked, or does not tell of its nodes."""
    try:
        return rooms(clusters.current()) or None
    except ClusterUnreachable:
        return None


def _slices(kind: InstanceType, here: Sequence[Room]) -> list[Slice]:
    suitable = (room for room in here if selects(kind.node_selector, room.labels))
    return [
        Slice(room.node, _need(kind, room.free), _need(kind, room.allocatable))
        for room in suitable
        if tolerates(kind.tolerations, room.taints)
    ]


def _away(room: Room) -> bool:
    """Marked by the cluster itself as not ready, not reachable, or under pressure."""
    return any(taint.get("key", "").startswith("node.kubernetes.io/") for taint in room.taints)


def _need(kind: InstanceType, amounts: dict[str, float]) -> Need:
    devices = amounts.get(kind.accelerator_resource, 0) if kind.accelerator_resource else 0
    return Need(amounts.get("cpu", 0), amounts.get("memory", 0) / MIB, int(devices))


def _usual_start(project: Project) -> float | None:
    """The median of recent starts in seconds: the project's, or else everybody's."""
    recent = Instance.objects.filter(ready_at__isnull=False, restarts=0, time_created__gte=timezone.now() - RECENT)
    for rows in (recent.filter(version__deployment__project=project), recent):
        times = rows.order_by("-time_created").values_list("time_created", "ready_at")[:LOOKED_AT]
        took = [(ready - created).total_seconds() for created, ready in times if ready]
        if took:
            return statistics.median(took)
    return None


def _waiting(kind: InstanceType) -> int:
    if not kind.accelerator:
        return 0
    return GpuClaim.objects.filter(
        state=GpuClaim.State.WAITING, ended_at=None, instance_type__accelerator_resource=kind.accelerator_resource
    ).count()
