"""How full the GPUs of a cluster get under each placement policy.

    python benchmarks/gpu_packing.py --nodes FILE --tasks FILE --seeds 42-51 \
        --policies pilothouse,fgd,bestfit,dotprod,packing,random --json -

The last line printed is one JSON object {policy: {"95", "100", "130", "std", "decisions_per_s"}}: mean over the
seeds of allocated GPU % at that demand %, standard deviation at 100, placements decided per second on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # "on one core" is meant literally
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.gpu_trace import Curve, read_nodes, read_tasks, replay
from deployments.scheduling.baselines import BestFit, DotProd, GpuPacking, Random
from deployments.scheduling.fragmentation import FragmentationGradient
from deployments.scheduling.options import Policy
from deployments.scheduling.shapes import NodeSpec, Shape
from deployments.scheduling.trial import choose
from deployments.scheduling.workload import Workload

MARKS = (95, 100, 130)


def policies(nodes: list[NodeSpec], tasks: list[Shape]) -> dict[str, Callable[[], Policy]]:
    """Makers of each policy; those that learn get the frequencies of the tasks, not their order."""
    workload = Workload.of(tasks)
    return {
        "pilothouse": lambda: choose(workload, nodes),
        "fgd": lambda: FragmentationGradient(workload),
        "bestfit": BestFit,
        "dotprod": DotProd,
        "packing": GpuPacking,
        "random": Random,
    }


def seeds_of(text: str) -> list[int]:
    """'42-51' or '1,2,5' as a list."""
    try:
        seeds: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of seeds such as 42-51 or 1,2,5") from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed; give the lower bound first")
    return seeds


def summary(curves: list[Curve]) -> dict[str, float]:
    """The JSON entry of one policy."""
    row = {str(mark): round(float(np.mean([c.at(mark) for c in curves])), 3) for mark in MARKS}
    row["std"] = round(float(np.std([c.at(100) for c in curves])), 3)
    row["decisions_per_s"] = round(sum(len(c.demand) for c in curves) / sum(c.seconds for c in curves), 1)
    return row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, required=True, help="CSV: sn, cpu_milli, memory_mib, gpu, model")
    parser.add_argument("--tasks", type=Path, required=True, help="CSV: name, ..., num_gpu, gpu_milli, gpu_spec")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("42-51"))
    parser.add_argument("--policies", default="pilothouse,fgd,bestfit,dotprod,packing,random")
    parser.add_argument("--times", type=float, default=1.3, help="demand to reach, in capacities")
    parser.add_argument("--copies", type=int, default=1, help="repeat nodes and tasks, to measure large clusters")
    parser.add_argument("--json", default="-", help="file for the JSON object; - prints it as the last line")
    parser.add_argument("--plot", type=Path, help="SVG file for the curves")
    options = parser.parse_args(argv)
    if options.copies < 1:
        parser.error("--copies: give a whole number of at least 1")
    nodes, tasks = read_nodes(options.nodes), read_tasks(options.tasks) * options.copies
    nodes = [
        NodeSpec(f"{node.name}-{copy}", node.cpu_milli, node.memory_mib, node.gpus, node.model)
        for copy in range(options.copies)
        for node in nodes
    ]
    makers = policies(nodes, tasks)
    wanted = [name for name in options.policies.split(",") if name]
    unknown = [name for name in wanted if name not in makers]
    if unknown or not wanted:
        parser.error(f"--policies: {unknown} not known; choose from {', '.join(makers)}")
    result: dict[str, dict[str, float]] = {}
    curves: dict[str, list[Curve]] = {}
    print(f"{len(nodes)} nodes, {sum(n.gpus for n in nodes)} GPUs, {len(tasks)} tasks, seeds {options.seeds}")
    for name in wanted:
        curves[name] = [replay(nodes, tasks, makers[name], seed, options.times) for seed in options.seeds]
        result[name] = summary(curves[name])
        print(f"{name:>12}  " + "  ".join(f"{key} {value}" for key, value in result[name].items()), flush=True)
    if options.plot:
        from benchmarks.gpu_plots import plot_packing

        plot_packing(curves, options.plot)
    line = json.dumps(result)
    if options.json != "-":
        Path(options.json).write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
