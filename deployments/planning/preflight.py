"""Will it fit? Judged before anything is deployed, from quota, free nodes and how long starts took. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

GIB = 1024


@dataclass(frozen=True, slots=True)
class Need:
    """One instance: cores, MiB, devices."""

    cpu: float
    memory: float
    accelerators: int = 0

    def parts(self) -> dict[str, float]:
        return {"cpu": self.cpu, "memory": self.memory, "accelerators": self.accelerators}


@dataclass(frozen=True, slots=True)
class Slice:
    """What is free on one node that may take the instance at all, in the units of `Need`; ``whole`` when empty."""

    node: str
    free: Need
    whole: Need


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A quota of the project: what others of its versions use of it."""

    name: str
    limit: float
    used: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """``fits`` is None when the cluster could not be asked. ``instances_now`` of those wanted would find a place now.

    ``largest_free`` is the roomiest node's free resources; ``wait_seconds`` the usual time of a start, None when
    nothing is known or nothing fits; ``price_hour`` is of all wanted instances, in credits.
    """

    fits: bool | None
    within_quota: bool
    instances: int
    instances_now: int
    nodes_now: tuple[str, ...]
    largest_free: dict[str, float]
    wait_seconds: float | None
    price_hour: float
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    instance_type: str = ""
    waiting: int = field(default=0)


def judge(
    need: Need,
    instances: int,
    slices: Sequence[Slice] | None,
    ceilings: Sequence[Ceiling] = (),
    *,
    nodes: int = 0,
    away: int = 0,
    start_seconds: float | None = None,
    price: float = 0.0,
    waiting: int = 0,
    instance_type: str = "",
) -> Verdict:
    """``slices`` are the nodes that selector and taints leave, of ``nodes`` in all and ``away`` that are not ready;
    None when nobody could be asked.

    ``price`` is one instance's, ``waiting`` how many claims stand in the queue for the same devices.
    """
    reasons: list[str] = []
    advice: list[str] = []
    within = _quota(need, instances, ceilings, reasons, advice)
    placed = sum(_count(need, one.free) for one in slices or ())
    now = tuple(one.node for one in slices or () if _count(need, one.free))
    fits: bool | None = within and placed >= instances
    if slices is None:
        fits = None if within else False
        reasons.append("The cluster cannot be asked now, so that nobody knows whether a node is free.")
    elif placed < instances:
        _lacking(need, instances, placed, slices, nodes, away, reasons, advice)
    if waiting and need.accelerators:
        reasons.append(f"{_claims(waiting)} for the same devices; who goes first is decided by quota and priority.")
    return Verdict(
        fits,
        within,
        instances,
        min(placed, instances),
        now,
        _largest(slices or ()),
        start_seconds if fits else None,
        price * instances,
        tuple(reasons),
        tuple(advice),
        instance_type,
        waiting,
    )


def _quota(need: Need, instances: int, ceilings: Sequence[Ceiling], reasons: list[str], advice: list[str]) -> bool:
    within = True
    for ceiling in ceilings:
        asked = need.parts()[ceiling.name] * instances
        if asked and ceiling.used + asked > ceiling.limit:
            within = False
            left = max(0.0, ceiling.limit - ceiling.used)
            reasons.append(
                f"The project's quota leaves {_amount(ceiling.name, left)} of {_amount(ceiling.name, ceiling.limit)}; "
                f"{instances} x this instance type takes {_amount(ceiling.name, asked)}."
            )
    if not within:
        advice.append("Choose fewer or smaller instances, stop others, or ask the platform team for more.")
    return within


def _lacking(
    need: Need,
    instances: int,
    placed: int,
    slices: Sequence[Slice],
    nodes: int,
    away: int,
    reasons: list[str],
    advice: list[str],
) -> None:
    if not slices and away:
        reasons.append(f"No node can take it now: {away} of {nodes} in the cluster are not ready.")
        advice.append("It waits until they are back; the platform team can see why they are not.")
        return
    if not slices:
        what = f"Of {nodes} nodes in the cluster none is" if nodes else "There is no node"
        reasons.append(f"{what} of the kind that this instance type asks for.")
        advice.append("Choose another instance type, or ask the platform team for such a node.")
        return
    if not any(_count(need, one.whole) for one in slices):
        short = [
            name for name, amount in need.parts().items() if amount > max(one.whole.parts()[name] for one in slices)
        ]
        told = " and ".join(_amount(name, need.parts()[name]) for name in short) or "this much"
        reasons.append(f"No node is large enough for {told}, even when it is empty.")
        advice.append("Choose a smaller instance type.")
        return
    reasons.append(
        f"{placed} of {instances} would find a place now. The roomiest node has {_told(_largest(slices))} free."
    )
    advice.append("It waits until something else stops or a node is added. A smaller instance type may fit at once.")


def _count(need: Need, free: Need) -> int:
    """How many fit side by side."""
    have = free.parts()
    counts = [int((have[name] + 1e-9) // amount) for name, amount in need.parts().items() if amount > 0]
    return max(0, min(counts, default=0))


def _largest(slices: Sequence[Slice]) -> dict[str, float]:
    """Of one node: the one with most devices, then memory."""
    if not slices:
        return {}
    best = max(slices, key=lambda one: (one.free.accelerators, one.free.memory, one.free.cpu))
    return {name: max(0.0, amount) for name, amount in best.free.parts().items()}


def _told(amounts: dict[str, float]) -> str:
    return ", ".join(_amount(name, amount) for name, amount in amounts.items() if amount or name != "accelerators")


def _amount(name: str, amount: float) -> str:
    match name:
        case "cpu":
            return f"{amount:.3g} CPU"
        case "memory":
            return f"{amount / GIB:.3g} GB" if amount >= GIB else f"{amount:.0f} MB"
        case _:
            return f"{amount:.0f} GPU" if amount == 1 else f"{amount:.0f} GPUs"


def _claims(count: int) -> str:
    return "One claim waits" if count == 1 else f"{count} claims wait"
