"""What the admission pass works on and what it answers. Times are seconds on one clock of the caller's choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .fairness import UsageDecay
from .fleet import Placement
from .quota import Owner
from .shapes import NodeSpec, PlannerInputError, Shape, whole_number
from .workload import Workload


@dataclass(frozen=True, slots=True)
class Flavor:
    """A kind of GPU the platform team offers: the products it covers, none meaning any."""

    name: str
    models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for `count` instances of `shape`, all or nothing.

    `flavors` are acceptable in this order; the next one is tried once the claim has waited `fallback_after`.
    `expected_seconds` is how long it usually holds its GPUs, if known.
    """

    id: str
    project: str
    shape: Shape
    count: int = 1
    flavors: tuple[str, ...] = ()
    priority: int = 0
    created: float = 0.0
    name: str = ""
    fallback_after: float = 0.0
    expected_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", whole_number("count", self.count, 1))
        if not self.flavors:
            raise PlannerInputError("flavors", f"claim {self.id!r} names none; give at least one")

    @property
    def demand(self) -> int:
        """Thousandths of GPUs in all, which is what quota counts."""
        return self.shape.demand_milli * self.count

    @property
    def label(self) -> str:
        return self.name or self.id


@dataclass(frozen=True, slots=True)
class Running:
    """A claim that holds GPUs. `placements` are empty where its node has vanished.

    `evictable` is false while a PodDisruptionBudget forbids it. `evicted_for` is the id of the claim it is
    leaving for, while its pods still end.
    """

    claim: Claim
    flavor: str
    started: float
    placements: tuple[Placement, ...] = ()
    evictable: bool = True
    evicted_for: str = ""


class FairSharing(StrEnum):
    """When a borrower may displace another's; names as in Kueue's fair sharing.

    FINAL_SHARE: its share, with the claim, is no larger than the other's without the victim. INITIAL_SHARE: it is
    smaller than the other's with the victim, and no more goes than it uses; helps where claims are large.
    """

    OFF = "off"
    FINAL_SHARE = "final-share"
    INITIAL_SHARE = "initial-share"


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What the platform team sets. `hold_after` is when a blocked claim starts to hold back those behind it."""

    owners: tuple[Owner, ...]
    flavors: tuple[Flavor, ...]
    decay: UsageDecay = field(default_factory=UsageDecay)
    min_run_seconds: float = 0.0
    hold_after: float = 3600.0
    preempt_within_project: bool = True
    reclaim: bool = True
    fair_sharing: FairSharing = FairSharing.OFF

    def flavor(self, name: str) -> Flavor | None:
        return next((flavor for flavor in self.flavors if flavor.name == name), None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one pass sees. `nodes` None leaves nodes out: quota alone decides.

    `foreign` is use by pods that are not ours, as placements. `past_use` is decayed use per project (see
    `UsageDecay.advance`). `reserved` maps a claim that evicted others to the place made for it.
    """

    now: float
    policy: AdmissionPolicy
    waiting: tuple[Claim, ...]
    running: tuple[Running, ...] = ()
    nodes: tuple[NodeSpec, ...] | None = None
    foreign: tuple[Placement, ...] = ()
    past_use: Mapping[str, float] = field(default_factory=dict)
    reserved: Mapping[str, Grant] = field(default_factory=dict)
    workload: Workload | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A claim may start: flavor and, when nodes are known, where each instance goes."""

    claim: Claim
    flavor: str
    placements: tuple[Placement, ...] = ()


@dataclass(frozen=True, slots=True)
class Eviction:
    """A running claim has to go for another; `reason` is a sentence for its owner."""

    running: Running
    beneficiary: Claim
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a claim waits or is refused.

    `position` counts from 1 among those waiting for the same flavor; `ahead` names the next few before it,
    `ahead_count` and `ahead_demand` all of them. `change` is the smallest change that would place it now, if one
    was found. `expected_wait` is in seconds, None when nothing is known about durations.
    """

    claim: Claim
    code: str
    sentence: str
    flavor: str = ""
    position: int = 0
    ahead: tuple[str, ...] = ()
    ahead_count: int = 0
    ahead_demand: int = 0
    change: str = ""
    expected_wait: float | None = None


@dataclass(slots=True)
class PassResult:
    """Outcome of a pass. Every waiting claim is in exactly one of `granted`, `reserved`, `waiting`, `refused`.

    `reserved` claims start once the victims in `evictions` have gone.
    """

    granted: list[Grant] = field(default_factory=list)
    reserved: list[Grant] = field(default_factory=list)
    evictions: list[Eviction] = field(default_factory=list)
    waiting: list[Explanation] = field(default_factory=list)
    refused: list[Explanation] = field(default_factory=list)
