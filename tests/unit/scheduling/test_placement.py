"""Books of nodes and the choice of node and device."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scheduling.baselines import BestFit, DotProd, GpuPacking, Random
from deployments.scheduling.fleet import Fleet, Placement
from deployments.scheduling.fragmentation import FragmentationGradient
from deployments.scheduling.options import device_options
from deployments.scheduling.placement import Placer
from deployments.scheduling.shapes import NodeSpec, PlannerInputError, Shape, fits_empty
from deployments.scheduling.value import PilothousePolicy, claimed_products
from deployments.scheduling.workload import Workload
from tests.unit.scheduling import UNTIMED

HALF = Shape(1000, 1024, 1, 500)
ONE = Shape(2000, 2048, 1)
TWO = Shape(4000, 4096, 2)
CPU_ONLY = Shape(8000, 1024)
ON_B = Shape(1000, 1024, 1, 300, frozenset({"B"}))
SHAPES = [HALF, ONE, TWO, CPU_ONLY, ON_B, Shape(1000, 1024, 3, 250)]
NODES = [
    NodeSpec("a1", 16_000, 16_384, 4, "A"),
    NodeSpec("a2", 16_000, 16_384, 4, "A"),
    NodeSpec("b1", 8_000, 32_768, 2, "B"),
    NodeSpec("c1", 32_000, 16_384),
]
WORKLOAD = Workload.of([HALF] * 5 + [ONE] * 3 + [TWO, CPU_ONLY, ON_B])
POLICIES = {
    "pilothouse": lambda: PilothousePolicy(WORKLOAD),
    "fgd": lambda: FragmentationGradient(WORKLOAD),
    "bestfit": BestFit,
    "dotprod": DotProd,
    "packing": GpuPacking,
    "random": Random,
}


def check_books(nodes: list[NodeSpec], placed: list[Placement], fleet: Fleet) -> None:
    """No node, no device over-committed; free plus held is all there is."""
    cpu, memory, gpus = Counter(), Counter(), Counter()
    for placement in placed:
        shape = placement.shape
        assert len(set(placement.devices)) == shape.gpus
        assert not shape.models or nodes[placement.node].model in shape.models
        cpu[placement.node] += shape.cpu_milli
        memory[placement.node] += shape.memory_mib
        for device in placement.devices:
            gpus[placement.node, device] += shape.gpu_milli
    for index, node in enumerate(nodes):
        state = fleet.state_of(index)
        assert state.cpu_milli == node.cpu_milli - cpu[index] >= 0
        assert state.memory_mib == node.memory_mib - memory[index] >= 0
        free = [0 if d in node.unhealthy else 1000 - gpus[index, d] for d in range(node.gpus)]
        assert list(fleet.devices(index)) == free
        assert min(free, default=0) >= 0


steps = st.lists(st.tuples(st.sampled_from(SHAPES), st.booleans(), st.integers(0, 99)), max_size=40)


@given(steps, st.sampled_from(sorted(POLICIES)))
@settings(UNTIMED)
def test_nothing_is_over_committed_and_what_is_given_back_is_free_again(moves, name):
    placer = Placer(Fleet(NODES), POLICIES[name](), SHAPES)
    placed: list[Placement] = []
    for shape, leave, which in moves:
        if leave and placed:
            placer.release(placed.pop(which % len(placed)))
        elif (placement := placer.place(shape)) is not None:
            placed.append(placement)
        else:
            assert not placer.feasible(shape).any()
        check_books(NODES, placed, placer.fleet)
    for placement in placed:
        placer.release(placement)
    check_books(NODES, [], placer.fleet)


@given(steps, st.sampled_from(["pilothouse", "fgd", "bestfit"]))
@settings(UNTIMED)
def test_remembered_prices_answer_as_a_fresh_start_does(moves, name):
    """Columns kept and reused over many moves must not differ from pricing the same state anew."""
    placer = Placer(Fleet(NODES), POLICIES[name](), SHAPES)
    placed: list[Placement] = []
    for shape, leave, which in moves:
        if leave and placed:
            placer.release(placed.pop(which % len(placed)))
        elif (placement := placer.place(shape)) is not None:
            placed.append(placement)
    fresh = Placer(Fleet(NODES), POLICIES[name](), SHAPES)
    for placement in placed:
        fresh.occupy(placement)
    for shape in SHAPES:
        assert placer.find(shape) == fresh.find(shape)


def test_shapes_not_announced_are_learned():
    placer = Placer(Fleet(NODES), PilothousePolicy(WORKLOAD), [ONE])
    placer.place(ONE)
    odd = Shape(500, 100, 1, 125)
    assert placer.place(odd) is not None
    assert placer.find(ONE) == Placer(placer.fleet, PilothousePolicy(WORKLOAD), [ONE, odd]).find(ONE)


def test_a_policy_without_history_still_places():
    placer = Placer(Fleet(NODES), PilothousePolicy(None), SHAPES)
    assert all(placer.place(shape) for shape in SHAPES)


def test_all_instances_or_none():
    placer = Placer(Fleet(NODES), PilothousePolicy(WORKLOAD), SHAPES)
    assert placer.place_all(TWO, 6) is None
    check_books(NODES, [], placer.fleet)
    placed = placer.place_all(TWO, 5)
    assert placed is not None
    check_books(NODES, placed, placer.fleet)


@pytest.mark.parametrize("name", ["pilothouse", "fgd"])
def test_pieces_are_put_together_instead_of_spread(name):
    nodes = [NodeSpec(f"n{i}", 64_000, 65_536, 2, "A") for i in range(4)]
    placer = Placer(Fleet(nodes), POLICIES[name](), SHAPES)
    first, second = placer.place(HALF), placer.place(HALF)
    assert (first.node, first.devices) == (second.node, second.devices)


def test_unhealthy_devices_are_not_used():
    node = NodeSpec("n", 64_000, 65_536, 2, "A", unhealthy=frozenset({0}))
    placer = Placer(Fleet([node]), BestFit(), [ONE, TWO])
    assert placer.place(TWO) is None
    assert placer.place(ONE).devices == (1,)
    assert placer.place(ONE) is None
    assert not fits_empty(TWO, node)


def test_a_closed_node_takes_nothing_and_stays_closed_after_releases():
    placer = Placer(Fleet(NODES[:1]), BestFit(), SHAPES)
    held = placer.place(ONE)
    placer.close(0)
    placer.release(held)
    assert placer.place(HALF) is None


def test_equally_good_nodes_are_taken_in_the_order_given():
    nodes = [NodeSpec(f"n{i}", 64_000, 65_536, 2, "A") for i in range(3)]
    placer = Placer(Fleet(nodes, order=[2, 0, 1]), BestFit(), [ONE])
    assert placer.place(ONE).node == 1


@pytest.mark.parametrize(
    ("gpus", "demand", "expected"),
    [
        ((0, 300, 300, 1000), (1, 300), [(300,), (1000,)]),
        ((0, 300, 1000, 1000), (2, 1000), [(1000, 1000)]),
        ((0, 300, 400, 1000), (2, 300), [(300, 400)]),
        ((0, 300), (1, 1000), []),
        ((), (0, 0), [()]),
    ],
)
def test_device_choices(gpus, demand, expected):
    assert device_options(gpus, demand) == expected


@pytest.mark.parametrize("takes", [(999,), (1000, 1000), ()])
def test_a_wrong_allocation_is_refused_and_changes_nothing(takes):
    fleet = Fleet(NODES)
    with pytest.raises(PlannerInputError):
        fleet.allocate(0, ONE, takes)
    check_books(NODES, [], fleet)


def test_occupying_what_is_taken_is_refused():
    fleet = Fleet(NODES)
    fleet.occupy(Placement(0, (1,), ONE))
    with pytest.raises(PlannerInputError, match="a1 cannot hold"):
        fleet.occupy(Placement(0, (1,), HALF))


def test_two_clusters_may_use_the_same_node_names():
    Fleet([NodeSpec("n", 1, 1, cluster="x"), NodeSpec("n", 1, 1, cluster="y")])
    with pytest.raises(PlannerInputError, match="twice"):
        Fleet([NodeSpec("n", 1, 1, cluster="x"), NodeSpec("n", 2, 2, cluster="x")])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((-1, 0), "cpu_milli"),
        ((0, 0.5), "memory_mib"),
        ((0, 0, 1.5), "gpus"),
        ((0, 0, 1, 0), "gpu_milli"),
        ((0, 0, 1, 1001), "gpu_milli"),
        ((0, 0, float("nan")), "gpus"),
        (("1", 0), "cpu_milli"),
    ],
)
def test_nonsense_is_refused_by_name(arguments, field):
    with pytest.raises(PlannerInputError) as caught:
        Shape(*arguments)
    assert caught.value.field == field


def test_fgd_counts_what_a_typical_task_cannot_use():
    """By hand: GPUs 0.2, 0.5, 1, 1 and CPU for small tasks only.

    Tasks of 0.5 (half of all) fit and waste 0.2; tasks with much CPU cannot use anything, 2.7.
    """
    small, hungry = Shape(1000, 0, 1, 500), Shape(50_000, 0, 1, 500)
    policy = FragmentationGradient(Workload.of([small, hungry]), popularity=1.0)
    nodes = [NodeSpec("n", 10_000, 10_000, 4, "A")]
    placer = Placer(Fleet(nodes), policy, [small, Shape(0, 0, 1, 800), Shape(0, 0, 1, 500)])
    placer.place(Shape(0, 0, 1, 800))
    placer.place(Shape(0, 0, 1, 500))
    assert placer.fleet.state_of(0).gpus == (200, 500, 1000, 1000)
    rows = placer._options((200, 500, 1000, 1000)).rows[-1]
    kinds = len(policy.typical.shapes)
    total, below, holding = rows[0], rows[1 : 1 + kinds], rows[1 + kinds :]
    assert total == pytest.approx(2.7)
    assert below == pytest.approx([0.2, 0.2])
    assert holding.tolist() == [3, 3]


def test_products_are_claimed_by_those_who_cannot_go_elsewhere():
    only_b = Shape(1000, 1024, 1, 1000, frozenset({"B"}))
    either = Shape(1000, 1024, 1, 1000, frozenset({"A", "B"}))
    gone = Shape(1000, 1024, 1, 1000, frozenset({"Z"}))
    capacity = {"A": 8, "B": 2, "": 0}
    assert claimed_products(Workload.of([ONE]), capacity) == {"A": 0, "B": 0}
    claimed = claimed_products(Workload.of([ONE] * 9 + [only_b]), capacity)
    assert claimed["B"] == pytest.approx(0.5 * 0.8), "one of two, by tasks that do not admit four fifths"
    assert claimed["A"] == 0
    assert claimed_products(Workload.of([only_b]), capacity)["B"] == pytest.approx(0.8)
    assert claimed_products(Workload.of([either, gone]), capacity) == {"A": 0, "B": 0}
    assert claimed_products(Workload.of([ONE]), {}) == {}


def test_tasks_that_take_anything_leave_the_claimed_product_alone():
    only_b = Shape(1000, 1024, 1, 1000, frozenset({"B"}))
    nodes = [NodeSpec("b", 64_000, 65_536, 2, "B"), NodeSpec("a", 64_000, 65_536, 8, "A")]
    workload = Workload.of([ONE] * 8 + [only_b] * 2)
    policy = PilothousePolicy(workload, {"A": 8, "B": 2})
    placer = Placer(Fleet(nodes), policy, [ONE, only_b])
    assert [placer.place(ONE).node for _ in range(8)] == [1] * 8
    assert [placer.place(only_b).node for _ in range(2)] == [0] * 2


def test_workload_keeps_its_demand_when_condensed():
    history = [Shape(1000, 1000, 1, milli) for milli in range(100, 1000, 50) for _ in range(milli % 7 + 1)]
    workload = Workload.of(history)
    assert sum(workload.weights) == pytest.approx(1)
    few = workload.condensed(5)
    assert len(few.shapes) == 5
    assert sum(few.weights) == pytest.approx(1)
    assert workload.popular(0.5).weights[0] > workload.weights[0]
    assert np.isclose(workload.demand_shares().sum(), 1)
    assert Workload.of(reversed(history)) == workload, "order of arrivals must not matter"


def test_an_empty_history_is_refused():
    with pytest.raises(PlannerInputError, match="history"):
        Workload.of([])
