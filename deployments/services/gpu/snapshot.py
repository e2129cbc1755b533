"""Rows to the planner's snapshot: used by the pass, and by pages that ask what would happen."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Avg, F

from deployments.models import GpuClaim, GpuFlavor, GpuPool, InstanceType
from deployments.scheduling.claims import Claim, Grant, Running, Snapshot
from deployments.scheduling.fleet import Placement
from deployments.scheduling.shapes import Shape
from deployments.scheduling.workload import Workload
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu.fleet import Place, Supply

State = GpuClaim.State
HISTORY = dt.timedelta(days=7)
MAX_HISTORY = 5000


@dataclass(slots=True)
class World:
    """Everything that a pass looks at, as rows."""

    rules: rules_of.Rules
    supply: Supply
    claims: list[GpuClaim]
    now: dt.datetime

    def places(self, claim: GpuClaim) -> list[Place]:
        return [(cluster, node) for cluster, node in claim.nodes]

    def resource(self, flavor: str) -> str:
        row = self.supply.flavors.get(flavor)
        return row.resource if row is not None else ""


def pools() -> list[GpuPool]:
    return list(GpuPool.objects.filter(node__gone_at=None).select_related("node"))


def open_claims() -> list[GpuClaim]:
    rows = GpuClaim.objects.filter(ended_at=None).select_related(
        "project", "instance_type", "version__deployment__project"
    )
    return list(rows.order_by("created_at", "id"))


def load(now: dt.datetime, rules: rules_of.Rules | None = None) -> World:
    """The rows as they are; ``rules`` other than those in force for a replay."""
    rules, claims = rules or rules_of.load(), open_claims()
    return World(rules, supply_of(pools(), rules.flavors, claims), claims, now)


def supply_of(pools: Iterable[GpuPool], flavors: Iterable[GpuFlavor], claims: Iterable[GpuClaim]) -> Supply:
    kinds = {claim.instance_type.pk: claim.instance_type for claim in claims if claim.instance_type is not None}
    kinds |= {kind.pk: kind for kind in InstanceType.objects.filter(accelerator__gt=0, enabled=True)}
    return Supply(pools, flavors, [kinds[key] for key in sorted(kinds)])


def shape_of(world: World, claim: GpuClaim) -> Shape:
    """Resources of one instance. For waiting claims only the products that its instance type may use."""
    models = world.supply.models_for(claim.instance_type) if claim.instance_type is not None else frozenset()
    return Shape(claim.cpu_milli, claim.memory_mib, claim.devices, models=models)


def planner_claim(world: World, claim: GpuClaim, durations: dict[str, float] | None = None) -> Claim:
    return Claim(
        id=str(claim.pk),
        project=claim.project.name,
        shape=shape_of(world, claim),
        count=claim.instances,
        flavors=tuple(claim.flavors) or (claim.flavor or "none",),
        priority=claim.priority,
        created=claim.created_at.timestamp(),
        name=claim.label,
        expected_seconds=(durations or {}).get(claim.label),
    )


def placements_of(world: World, holders: Sequence[GpuClaim]) -> dict[str, tuple[Placement, ...]]:
    """Placements by claim id; devices of a node are numbered over all of its claims."""
    held: list[tuple[Place, str, Shape]] = []
    spans: dict[str, tuple[int, int]] = {}
    for claim in holders:
        start = len(held)
        shape = Shape(claim.cpu_milli, claim.memory_mib, claim.devices)
        held += [(place, world.resource(claim.flavor), shape) for place in world.places(claim)]
        spans[str(claim.pk)] = (start, len(held))
    placed = world.supply.placements(held)
    return {key: tuple(placed[start:end]) for key, (start, end) in spans.items()}


def durations_of(labels: Iterable[str], now: dt.datetime) -> dict[str, float]:
    """How long claims of these names usually held their devices, seconds."""
    ended = GpuClaim.objects.filter(
        label__in=set(labels), first_placed_at__isnull=False, ended_at__gt=now - HISTORY
    ).values("label")
    return {
        row["label"]: max(row["mean"].total_seconds(), 1.0)
        for row in ended.annotate(mean=Avg(F("ended_at") - F("first_placed_at")))
        if row["mean"] is not None
    }


def workload(world: World) -> Workload | None:
    """The typical workload, from the claims of the last days and those that are open."""
    recent = GpuClaim.objects.filter(created_at__gt=world.now - HISTORY, devices__gt=0).order_by("-created_at")
    shapes = [
        Shape(cpu, memory, devices)
        for cpu, memory, devices, instances in recent.values_list("cpu_milli", "memory_mib", "devices", "instances")[
            :MAX_HISTORY
        ]
        for _ in range(min(instances, 8))
    ]
    return Workload.of(shapes).condensed(24) if shapes else None


def snapshot(world: World, waiting: Sequence[GpuClaim], protected: frozenset[str] = frozenset()) -> Snapshot:
    """The planner's view; ``protected`` are ids of claims that a disruption budget keeps."""
    # Those that leave come last, so that the numbers of the others' devices stay.
    holders = [claim for claim in world.claims if claim.nodes and claim.flavor]
    holders.sort(key=lambda claim: claim.state != State.PLACED)
    durations = durations_of((claim.label for claim in world.claims), world.now)
    placed = placements_of(world, holders)
    running = tuple(
        Running(
            planner_claim(world, claim, durations),
            claim.flavor,
            (claim.placed_at or claim.created_at).timestamp(),
            placed[str(claim.pk)],
            evictable=str(claim.pk) not in protected,
            evicted_for=_beneficiary(claim),
        )
        for claim in holders
    )
    own = [placement for placements in placed.values() for placement in placements]
    foreign = world.supply.foreign(own)
    projects = {claim.project.name for claim in world.claims}
    return Snapshot(
        now=world.now.timestamp(),
        policy=rules_of.admission_policy(world.rules, world.supply, projects),
        waiting=tuple(planner_claim(world, claim, durations) for claim in waiting),
        running=running,
        nodes=world.supply.nodes,
        foreign=foreign,
        past_use={tenant.project.name: tenant.past_use for tenant in world.rules.tenants},
        reserved=_reservations(world, waiting, placed, foreign),
        workload=workload(world),
    )


def _beneficiary(claim: GpuClaim) -> str:
    """A displaced claim whose pods still end; nobody may displace it again."""
    if claim.state == State.PLACED:
        return ""
    return str(claim.displaced_for) if claim.displaced_for else "nobody"


def _reservations(
    world: World,
    waiting: Sequence[GpuClaim],
    placed: dict[str, tuple[Placement, ...]],
    foreign: Iterable[Placement],
) -> dict[str, Grant]:
    """The places made for claims, as far as their nodes are there: devices of those displaced, then free ones."""
    used: dict[int, set[int]] = {}
    for placement in [*(p for found in placed.values() for p in found), *foreign]:
        used.setdefault(placement.node, set()).update(placement.devices)
    result = {}
    for claim in waiting:
        if not claim.reserved:
            continue
        planned, flavor = planner_claim(world, claim), str(claim.reserved["flavor"])
        freed: dict[int, set[int]] = {}
        for victim in world.claims:
            if victim.displaced_for == claim.pk:
                for placement in placed.get(str(victim.pk), ()):
                    freed.setdefault(placement.node, set()).update(placement.devices)
        found = []
        for cluster, node in claim.reserved["nodes"]:
            number = world.supply.index.get((cluster, node, world.resource(flavor)), -1)
            healthy = set(range(world.supply.pools[number].allocatable)) if number >= 0 else set()
            free = sorted(freed.get(number, set())) + sorted(healthy - used.setdefault(number, set()))
            if number < 0 or len(free) < claim.devices:
                break
            devices = tuple(free[: claim.devices])
            used[number].update(devices)
            freed.get(number, set()).difference_update(devices)
            found.append(Placement(number, devices, planned.shape))
        else:
            result[planned.id] = Grant(planned, flavor, tuple(found))
    return result
