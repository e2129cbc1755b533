"""Machines with devices of several kinds: each kind is a node of the planner, CPU and memory are the machine's."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scheduling.admission import run_pass
from deployments.scheduling.claims import AdmissionPolicy, Claim, Flavor, Running, Snapshot
from deployments.scheduling.fleet import Fleet, Placement
from deployments.scheduling.placement import Placer
from deployments.scheduling.quota import Owner, Quota
from deployments.scheduling.shapes import NodeSpec, PlannerInputError, Shape
from deployments.scheduling.value import PilothousePolicy
from deployments.scheduling.workload import Workload
from tests.unit.scheduling import UNTIMED

SMALL, LARGE = frozenset({"1g"}), frozenset({"3g"})


def machine(name: str, small: int, large: int, cpu: int = 16_000) -> list[NodeSpec]:
    """Slices of two profiles on one machine."""
    return [
        NodeSpec(name, cpu, 65_536, count, model, f"c/{model}", host=name)
        for model, count in (("1g", small), ("3g", large))
    ]


SHAPES = [
    Shape(2000, 1024, 1, models=SMALL),
    Shape(1000, 8192, 2, models=SMALL),
    Shape(8000, 4096, 1, models=LARGE),
    Shape(500, 16_384),
]
FLEET = [*machine("m1", 7, 2), NodeSpec("plain", 16_000, 65_536, 4, "3g"), *machine("m2", 4, 1, 8000)]
steps = st.lists(st.tuples(st.sampled_from(SHAPES), st.booleans(), st.integers(0, 99)), max_size=40)


def placer() -> Placer:
    return Placer(Fleet(FLEET), PilothousePolicy(Workload.of(SHAPES)), SHAPES)


@given(steps)
@settings(UNTIMED)
def test_no_machine_gives_its_cpu_or_memory_twice(moves):
    """And prices kept over many moves answer as a fresh start does."""
    there, placed = placer(), []
    for shape, leave, which in moves:
        if leave and placed:
            there.release(placed.pop(which % len(placed)))
        elif (placement := there.place(shape)) is not None:
            placed.append(placement)
        cpu, memory = Counter(), Counter()
        for one in placed:
            host = FLEET[one.node].name
            cpu[host] += one.shape.cpu_milli
            memory[host] += one.shape.memory_mib
        for index, node in enumerate(FLEET):
            state = there.fleet.state_of(index)
            assert state.cpu_milli == node.cpu_milli - cpu[node.name] >= 0
            assert state.memory_mib == node.memory_mib - memory[node.name] >= 0
    fresh = placer()
    for one in placed:
        fresh.occupy(one)
    assert [there.find(shape) for shape in SHAPES] == [fresh.find(shape) for shape in SHAPES]


def test_what_one_kind_takes_of_cpu_the_other_misses():
    there = Placer(Fleet(machine("m", 7, 2, cpu=10_000)), PilothousePolicy(None), SHAPES)
    assert there.place(SHAPES[2]) is not None
    assert there.place(SHAPES[0]) is not None
    assert there.place(SHAPES[0]) is None, "slices are free, CPU is not"
    assert there.feasible(SHAPES[3]).sum() == 0


def test_a_closed_node_leaves_the_others_of_its_machine_open():
    fleet = Fleet(machine("m", 7, 2))
    fleet.close(0)
    assert not fleet.fits(Placement(0, (0,), SHAPES[0]))
    assert fleet.fits(Placement(1, (0,), SHAPES[2]))
    assert fleet.state_of(0).cpu_milli == 0
    assert fleet.state_of(1).cpu_milli == 16_000


def test_the_machine_gives_one_size():
    first, second = machine("m", 7, 2)
    with pytest.raises(PlannerInputError, match="'m'"):
        Fleet([first, NodeSpec("m", 1000, 65_536, 1, "3g", "x", host=second.host)])


def test_a_pass_grants_slices_of_both_kinds_within_the_machines_cpu():
    policy = AdmissionPolicy(
        (Owner("p", None, {name: Quota(9000) for name in ("small", "large")}),),
        (Flavor("small", SMALL), Flavor("large", LARGE)),
    )
    waiting = tuple(
        Claim(f"{flavor}-{n}", "p", Shape(4000, 1024, 1), 1, (flavor,), created=float(n))
        for n in range(3)
        for flavor in ("small", "large")
    )
    outcome = run_pass(Snapshot(10.0, policy, waiting, nodes=tuple(machine("m", 7, 3))))
    assert len(outcome.granted) == 4
    assert {grant.flavor for grant in outcome.granted} == {"small", "large"}
    assert {e.code for e in outcome.waiting} == {"cpu-memory"}


def test_books_that_contradict_a_machine_close_all_of_it():
    """More runs there than it has: how much CPU is really left nobody knows."""
    policy = AdmissionPolicy(
        (Owner("p", None, {"small": Quota(9000), "large": Quota(9000)}),), (Flavor("small", SMALL),)
    )
    held = [
        Running(
            Claim(f"r{n}", "p", Shape(10_000, 1024, 1), 1, ("large",)),
            "large",
            0.0,
            (Placement(1, (n,), Shape(10_000, 1024, 1)),),
        )
        for n in range(2)
    ]
    wish = Claim("w", "p", Shape(1000, 1024, 1), 1, ("small",))
    outcome = run_pass(Snapshot(10.0, policy, (wish,), tuple(held), nodes=tuple(machine("m", 7, 2))))
    assert not outcome.granted
