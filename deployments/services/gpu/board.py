"""What the pages and the API show: who holds which device, the queue, quota against use, idle devices, cost."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import TypedDict

import redis
from django.db.models import Sum
from django.utils import timezone

from accounts import access
from accounts.access import AnyUser, Permission
from accounts.models import Project, User
from deployments.models import DeploymentVersion, GpuClaim, GpuNode, GpuPolicy, GpuPool, GpuUse
from deployments.scheduling.quota import QuotaTree
from deployments.scheduling.shapes import MILLI
from deployments.services.gpu import gate, idle
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu import snapshot as snapshots
from deployments.services.gpu.blockers import named
from deployments.services.gpu.fleet import offers

State = GpuClaim.State
COST_DAYS = 14


@dataclass(slots=True)
class Device:
    """One device of a node: ``kind`` is held, leaving, foreign, broken or free."""

    kind: str
    claim: GpuClaim | None = None


@dataclass(slots=True)
class Shelf:
    """A pool with its devices."""

    pool: GpuPool
    flavors: list[str]
    devices: list[Device] = field(default_factory=list)

    @property
    def free(self) -> int:
        return sum(device.kind == "free" for device in self.devices)

    @property
    def open(self) -> bool:
        return self.pool.node.ready and self.pool.node.schedulable


@dataclass(slots=True)
class FlavorState:
    """One flavor over all nodes. ``stranded`` are free devices on nodes where the common claim does not fit."""

    name: str
    price: float
    total: int = 0
    free: int = 0
    largest: int = 0
    stranded: int = 0
    waiting: int = 0

    @property
    def fragmentation(self) -> int:
        """Per cent of the free devices that the most common claim cannot use."""
        return round(100 * self.stranded / self.free) if self.free else 0


@dataclass(slots=True)
class Line:
    """Quota and use of one owner for one flavor, in devices."""

    owner: str
    is_cohort: bool
    depth: int
    flavor: str
    nominal: int
    subtree: int
    used: int
    borrowed: int
    available: int

    @property
    def share(self) -> int:
        return min(100, round(100 * self.used / self.subtree)) if self.subtree else (100 if self.used else 0)


def used_by(project: Project) -> Counter[str]:
    """Devices that the project's claims hold, by flavor."""
    used: Counter[str] = Counter()
    for claim in GpuClaim.objects.filter(project=project, state=State.PLACED, ended_at=None):
        if claim.flavor:
            used[claim.flavor] += claim.demand
    return used


def shelves(world: snapshots.World) -> list[Shelf]:
    """Nodes x devices, as the last pass left them."""
    holders: dict[tuple[str, str, str], list[tuple[str, GpuClaim]]] = {}
    for claim in world.claims:
        for cluster, node in claim.nodes:
            kind = "held" if claim.state == State.PLACED else "leaving"
            key = (cluster, node, world.resource(claim.flavor))
            holders.setdefault(key, []).extend([(kind, claim)] * claim.devices)
    found = []
    for pool in world.supply.pools:
        key = (pool.node.cluster, pool.node.name, pool.resource)
        shelf = Shelf(pool, [name for name, flavor in world.supply.flavors.items() if offers(flavor, pool)])
        shelf.devices = [Device(kind, claim) for kind, claim in holders.get(key, [])]
        shelf.devices += [Device("foreign")] * pool.foreign
        healthy = min(pool.allocatable, pool.capacity)
        shelf.devices += [Device("free")] * max(0, healthy - len(shelf.devices))
        shelf.devices += [Device("broken")] * max(0, pool.capacity - max(healthy, len(shelf.devices)))
        found.append(shelf)
    return found


def flavor_states(world: snapshots.World, found: list[Shelf]) -> list[FlavorState]:
    sizes = Counter(claim.devices for claim in world.claims if claim.devices)
    common = sizes.most_common(1)[0][0] if sizes else 1
    states = {name: FlavorState(name, flavor.price) for name, flavor in sorted(world.supply.flavors.items())}
    for shelf in found:
        for name in shelf.flavors:
            state, free = states[name], shelf.free if shelf.open else 0
            state.total += shelf.pool.capacity
            state.free += free
            state.largest = max(state.largest, free)
            state.stranded += free % common if free >= common else free
    for claim in world.claims:
        if claim.state != State.PLACED and not claim.nodes and claim.flavors and claim.flavors[0] in states:
            states[claim.flavors[0]].waiting += claim.demand
    return list(states.values())


def queue(world: snapshots.World) -> list[GpuClaim]:
    """Claims that do not hold a place, in the order of their positions."""
    waiting = [claim for claim in world.claims if claim.state not in (State.PLACED, State.ENDED)]
    return sorted(waiting, key=lambda claim: (claim.position is None, claim.position or 0, claim.created_at))


def quota_lines(world: snapshots.World) -> list[Line]:
    """Every owner with quota or use, cohorts before their members."""
    owners = rules_of.owners(world.rules, {claim.project.name for claim in world.claims})
    tree = QuotaTree(owners)
    for claim in world.claims:
        if claim.state == State.PLACED and claim.flavor in world.supply.flavors:
            tree.take(claim.project.name, claim.flavor, claim.demand * MILLI)
    limited = sorted({row.flavor.name for row in world.rules.quotas})
    lines: list[Line] = []

    def visit(name: str, depth: int) -> None:
        for flavor in limited:
            quota, used = tree.quota(name, flavor), tree.use(name, flavor)
            if not (quota.nominal or used or tree.subtree_quota(name, flavor)):
                continue
            lines.append(
                Line(
                    name.strip("'"),
                    name.startswith("'"),
                    depth,
                    flavor,
                    quota.nominal // MILLI,
                    tree.subtree_quota(name, flavor) // MILLI,
                    used // MILLI,
                    tree.borrowed(name, flavor) // MILLI,
                    max(0, tree.available(name, flavor)) // MILLI,
                )
            )
        for child in sorted(tree.children[name]):
            visit(child, depth + 1)

    for name in sorted(tree.owners):
        if tree.owners[name].parent is None:
            visit(name, 0)
    return lines


@dataclass(frozen=True, slots=True)
class Idle:
    """A claim that holds devices without having done anything lately."""

    claim: GpuClaim
    since: dt.datetime
    cost: float


def idle_claims(world: snapshots.World, after: dt.timedelta = dt.timedelta(minutes=10)) -> list[Idle]:
    placed = [claim for claim in world.claims if claim.state == State.PLACED and claim.devices and claim.part >= 0]
    try:
        worked = idle.last_at_work(placed)
    except redis.RedisError:
        return []
    prices = {flavor.name: flavor.price for flavor in world.rules.flavors}
    found = []
    for claim in placed:
        since = idle.idle_since(claim, worked)
        if since is not None and world.now - since > after:
            hours = (world.now - since).total_seconds() / 3600
            found.append(Idle(claim, since, hours * claim.demand * prices.get(claim.flavor, 0.0)))
    return sorted(found, key=lambda one: (-one.cost, one.since))


def costs(project: Project | None = None, days: int = COST_DAYS) -> list[dict[str, object]]:
    """Device hours and cost per project and day, newest first."""
    rows = GpuUse.objects.filter(day__gt=timezone.now().date() - dt.timedelta(days=days))
    if project is not None:
        rows = rows.filter(project=project)
    grouped = rows.values("day", "project__name").annotate(seconds=Sum("seconds"), cost=Sum("cost"))
    return [
        {
            "day": row["day"],
            "project": row["project__name"],
            "hours": row["seconds"] / 3600,
            "cost": row["cost"],
        }
        for row in grouped.order_by("-day", "project__name")
    ]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a project could start now of one flavor: ``free`` devices, at most ``largest`` of them together."""

    flavor: str
    price: float
    quota_left: int | None
    free: int
    largest: int
    waiting: int
    simulated: bool

    @property
    def usable(self) -> int:
        return self.free if self.quota_left is None else max(0, min(self.free, self.quota_left))


def offers_for(project: Project, world: snapshots.World) -> list[Offer]:
    """What is free for a project now, by flavor."""
    tree = QuotaTree(rules_of.owners(world.rules, {project.name, *(claim.project.name for claim in world.claims)}))
    for claim in world.claims:
        if claim.state == State.PLACED and claim.flavor in world.supply.flavors:
            tree.take(claim.project.name, claim.flavor, claim.demand * MILLI)
    limited = {row.flavor.name for row in world.rules.quotas}
    found = shelves(world)
    result = []
    for state in flavor_states(world, found):
        left = max(0, tree.available(project.name, state.name)) // MILLI if state.name in limited else None
        simulated = any(shelf.pool.node.simulated for shelf in found if state.name in shelf.flavors)
        result.append(Offer(state.name, state.price, left, state.free, state.largest, state.waiting, simulated))
    return result


def claims_of(user: AnyUser, project: Project) -> list[GpuClaim]:
    """The project's open claims, oldest first. Raises NotFound for an outsider."""
    access.require(user, Permission.PROJECT_VIEW, project)
    return list(
        GpuClaim.objects.filter(project=project, ended_at=None)
        .select_related("project", "instance_type", "version__deployment")
        .order_by("created_at", "id")
    )


def claims_of_version(user: AnyUser, version: DeploymentVersion) -> list[GpuClaim]:
    access.require(user, Permission.PROJECT_VIEW, version.deployment.project)
    return list(
        GpuClaim.objects.filter(version=version, ended_at=None)
        .select_related("project", "instance_type", "version__deployment")
        .order_by("part")
    )


def names_ahead(user: AnyUser, claims: list[GpuClaim]) -> dict[str, list[str]]:
    """The nearest claims before each, by claim id: by name where the user may see their project."""
    keys = {key for claim in claims for key in claim.ahead_claims}
    rows = {str(row.pk): row for row in GpuClaim.objects.filter(pk__in=keys).select_related("project")}
    visible = set(
        access.projects_of(user).filter(pk__in={row.project_id for row in rows.values()}).values_list("pk", flat=True)
    )
    found: dict[str, list[str]] = {}
    for claim in claims:
        names = []
        for key in claim.ahead_claims:
            row = rows.get(key)
            if row is None:
                continue
            names.append(named(row, row.project_id in visible))
        found[str(claim.pk)] = names
    return found


def simulated() -> bool:
    """Whether any node of the inventory is simulated."""
    return GpuNode.objects.filter(simulated=True, gone_at=None).exists()


class Board(TypedDict):
    """What the platform team's page shows; ``world`` is what it was made from."""

    world: snapshots.World
    shelves: list[Shelf]
    flavors: list[FlavorState]
    queue: list[GpuClaim]
    moving: list[GpuClaim]
    quotas: list[Line]
    idle: list[Idle]
    costs: list[dict[str, object]]
    policy: GpuPolicy | None
    simulated: bool


def platform(actor: User, now: dt.datetime) -> Board:
    """Everything of the board. Raises Forbidden for all but the platform team."""
    gate.require_platform(actor)
    world = snapshots.load(now)
    found = shelves(world)
    return {
        "world": world,
        "shelves": found,
        "flavors": flavor_states(world, found),
        "queue": queue(world),
        "moving": [claim for claim in world.claims if claim.is_move and claim.nodes],
        "quotas": quota_lines(world),
        "idle": idle_claims(world),
        "costs": costs(),
        "policy": GpuPolicy.objects.filter(id=1).first(),
        "simulated": any(pool.node.simulated for pool in world.supply.pools),
    }
