"""Which placement policy suits a workload on a fleet, tried before it is used.

One set of weights cannot be best for everything: what keeps room for shares wastes nodes when all tasks want eight
GPUs, and preserving CPU is no use where it runs out anyway. So a few policies fill a sample of the fleet with tasks
drawn from the workload's frequencies. `PilothousePolicy` with its fitted weights is used unless another is clearly
better. Draws come from fixed seeds and the workload alone: the same input has the same answer, and no arrival is known
ahead.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from math import log

from .baselines import BestFit
from .fleet import Fleet
from .fragmentation import FragmentationGradient
from .options import Policy
from .placement import Placer
from .shapes import MILLI, NodeSpec, Shape
from .value import KINDS, PilothousePolicy, Weights
from .workload import Workload

SAMPLE_GPUS = 1000
"""GPUs of the sample, about."""
LEAST_GPUS = 64
"""Smaller fleets are not worth a trial."""
SEEDS = (11, 12, 13)
DEMAND = 1.3
"""Capacities asked for in a trial; what is allocated counts from `COUNTED_FROM` on."""
COUNTED_FROM = 0.9
MOST_DRAWS = 6000
MARGIN = 0.005
"""Parts of the capacity by which another policy has to be better."""
HOPELESS = 0.02
"""Parts of the capacity behind the best after one trial: not tried any further."""
PLAIN = replace(Weights(), cpu_25=0.0, cpu_75=0.0, cpu_92=0.0, memory_85=0.0, cpu_memory=0.0)
"""Weights that do not preserve CPU and memory: for a few large shapes, which strand less than they scatter."""


def choose(workload: Workload, nodes: Sequence[NodeSpec]) -> Policy:
    """The policy for `workload` on `nodes`."""
    capacity: Counter[str] = Counter()
    for node in nodes:
        capacity[node.model] += node.gpus
    tried = sum(capacity.values()) >= LEAST_GPUS and workload.demand_shares().any()
    number = _best(_roughly(workload), tuple(sample_of(nodes))) if tried else 0
    return _candidates(workload, capacity)[number]()


def _candidates(workload: Workload, capacity: Mapping[str, int]) -> list[Callable[[], Policy]]:
    """Makers of the policies that are tried, the usual one first."""
    return [
        lambda: PilothousePolicy(workload, capacity),
        lambda: PilothousePolicy(workload, capacity, PLAIN),
        lambda: FragmentationGradient(workload),
        BestFit,
    ]


@lru_cache(maxsize=16)
def _best(workload: Workload, sample: tuple[NodeSpec, ...]) -> int:
    """Number of the policy that fills `sample` best. Remembered: passes ask the same again and again."""
    capacity: Counter[str] = Counter()
    for node in sample:
        capacity[node.model] += node.gpus
    policies = [make() for make in _candidates(workload, capacity)]
    scores: dict[int, list[float]] = {index: [] for index in range(len(policies))}
    for seed in SEEDS:
        tasks = _draw(workload, sum(capacity.values()) * MILLI, seed)
        for index in scores:
            scores[index].append(_filled(sample, tasks, policies[index]))
        most = max(sum(score) for score in scores.values())
        scores = {i: s for i, s in scores.items() if i == 0 or most - sum(s) <= HOPELESS * len(s)}
        if len(scores) == 1:
            return 0
    winner = max(scores, key=lambda index: (sum(scores[index]), -index))
    better = (sum(scores[winner]) - sum(scores[0])) / len(SEEDS)
    return winner if better > MARGIN else 0


def _roughly(workload: Workload) -> Workload:
    """A few kinds of tasks, with weights in steps of a tenth: what is best does not hang on single arrivals, and need
    not be tried after each."""
    workload = workload.condensed(KINDS)
    rough = [1.1 ** round(log(weight, 1.1)) for weight in workload.weights]
    ordered = sorted(zip(workload.shapes, rough, strict=True), key=lambda item: (-item[1], item[0].sort_key))
    return Workload(tuple(shape for shape, _ in ordered), tuple(weight / sum(rough) for _, weight in ordered))


def sample_of(nodes: Sequence[NodeSpec]) -> list[NodeSpec]:
    """Every so-many-th node of each kind, empty, with about `SAMPLE_GPUS` GPUs; each a machine by itself."""
    step = max(1, round(sum(node.gpus for node in nodes) / SAMPLE_GPUS))
    ordered = sorted(nodes, key=lambda n: (n.model, n.gpus, n.cpu_milli, n.memory_mib, n.cluster, n.name))
    return [replace(node, host="") for node in ordered[step // 2 :: step]]


def _draw(workload: Workload, capacity_milli: int, seed: int) -> list[Shape]:
    rng = random.Random(seed)  # noqa: S311 - a sample, not secrets
    steps, demand = list(accumulate(workload.weights)), 0
    tasks: list[Shape] = []
    while demand < DEMAND * capacity_milli and len(tasks) < MOST_DRAWS:
        (task,) = rng.choices(workload.shapes, cum_weights=steps)
        tasks.append(task)
        demand += task.demand_milli
    return tasks


def _filled(nodes: Sequence[NodeSpec], tasks: Sequence[Shape], policy: Policy) -> float:
    """Part of the capacity allocated, on average while `tasks` ask for more than `COUNTED_FROM` of it."""
    capacity = sum(node.gpus for node in nodes) * MILLI
    placer = Placer(Fleet(nodes), policy, sorted(set(tasks), key=lambda task: task.sort_key))
    demand = held = 0
    total, count = 0.0, 0
    for task in tasks:
        demand += task.demand_milli
        if placer.place(task) is not None:
            held += task.demand_milli
        if demand > COUNTED_FROM * capacity:
            total += held / capacity
            count += 1
    return total / count if count else held / capacity
