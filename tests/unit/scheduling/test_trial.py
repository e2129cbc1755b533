"""Which policy suits a workload, tried on a sample of the fleet."""

import random

import pytest

from deployments.scheduling import trial
from deployments.scheduling.fleet import Fleet
from deployments.scheduling.options import Policy
from deployments.scheduling.placement import Placer
from deployments.scheduling.shapes import NodeSpec, Shape
from deployments.scheduling.value import PilothousePolicy, Weights
from deployments.scheduling.workload import Workload

MIXED = Workload.of(
    [Shape(4000, 8192, 1, 500)] * 6
    + [Shape(8000, 16_384, 1)] * 6
    + [Shape(32_000, 65_536, 4)]
    + [Shape(2000, 4096)] * 3
)
"""Shares, whole GPUs, some multi-GPU tasks: what the weights were fitted on."""
STARVED = Workload.of(
    [Shape(40_000, 8192, 1)] * 10
    + [Shape(2000, 8192)] * 10
    + [Shape(16_000, 100_000, 2)] * 3
    + [Shape(16_000, 8192, 4)]
)
"""CPU runs out long before GPUs."""


def fleet(count: int) -> list[NodeSpec]:
    small = [NodeSpec(f"s{n}", 64_000, 262_144, 2, "A", "c") for n in range(count // 2)]
    return small + [NodeSpec(f"l{n}", 96_000, 393_216, 8, "B", "c") for n in range(count - count // 2)]


def filled(policy: Policy, nodes: list[NodeSpec], workload: Workload, seed: int) -> float:
    """Allocated GPUs after draws for 1.2 times the capacity, with other seeds than the trial's."""
    rng, placer, held, asked = random.Random(seed), Placer(Fleet(nodes), policy, workload.shapes), 0, 0
    while asked < 1.2 * sum(node.gpus for node in nodes) * 1000:
        (task,) = rng.choices(workload.shapes, workload.weights)
        asked += task.demand_milli
        held += task.demand_milli if placer.place(task) else 0
    return held / 1000


def test_the_fitted_weights_stay_for_workloads_they_were_fitted_on():
    chosen = trial.choose(MIXED, fleet(60))
    assert isinstance(chosen, PilothousePolicy)
    assert chosen.weights == Weights()


def test_another_policy_is_taken_where_it_is_clearly_better():
    nodes = fleet(60)
    chosen, usual = trial.choose(STARVED, nodes), PilothousePolicy(STARVED, {"A": 60, "B": 240})
    assert getattr(chosen, "weights", None) != Weights()
    better = [filled(chosen, nodes, STARVED, seed) - filled(usual, nodes, STARVED, seed) for seed in range(101, 105)]
    assert sum(better) > 0


@pytest.mark.parametrize("nodes", [fleet(6), [NodeSpec("cpu", 64_000, 65_536)] * 0])
def test_small_fleets_are_not_tried(nodes: list[NodeSpec], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "_best", lambda *_: pytest.fail("tried"))
    assert isinstance(trial.choose(STARVED, nodes), PilothousePolicy)


def test_a_workload_without_gpus_has_nothing_to_try():
    assert isinstance(trial.choose(Workload.of([Shape(1000, 1024)]), fleet(60)), PilothousePolicy)


def test_the_order_of_nodes_and_small_changes_of_the_workload_do_not_matter():
    nodes = fleet(60)
    shuffled = random.Random(1).sample(nodes, len(nodes))
    assert type(trial.choose(STARVED, nodes)) is type(trial.choose(STARVED, shuffled))
    tried = trial._best.cache_info().misses
    one_more = Workload(STARVED.shapes, tuple(weight * (1 + n / 1000) for n, weight in enumerate(STARVED.weights)))
    trial.choose(one_more, nodes)
    assert trial._best.cache_info().misses == tried


def test_the_sample_has_every_kind_of_node_in_proportion():
    sample = trial.sample_of(fleet(800))
    assert 900 <= sum(node.gpus for node in sample) <= 1100
    assert {node.gpus for node in sample} == {2, 8}
    kinds = [sum(node.gpus == gpus for node in sample) for gpus in (2, 8)]
    assert abs(kinds[0] - kinds[1]) <= 1
    assert trial.sample_of(fleet(10)) == sorted(fleet(10), key=lambda node: (node.model, node.name))
