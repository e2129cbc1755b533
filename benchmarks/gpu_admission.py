"""Admission: Kueue's published baseline recipe as a discrete-event replay, and the time of one large pass.

    python benchmarks/gpu_admission.py [--json -] [--plot FILE.svg]

Recipe (kubernetes-sigs/kueue, test/performance/scheduler, "baseline"): 5 cohorts of 6 queues, nominal quota 20,
borrowing limit 100, reclaim from any, preemption of lower priority within the queue. Each queue gets 350 small
claims (1 unit, 200 ms, priority 50, one every 100 ms), 100 medium (5, 500 ms, 100, every 500 ms) and 50 large
(20, 1 s, 200, every 1.2 s). Kueue's thresholds are for its running controllers with API calls; in the replay a
decision takes no time. How long passes really take is printed beside it (`passes_s` of CPU and waiting in all).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deployments.scheduling.admission import run_pass
from deployments.scheduling.claims import AdmissionPolicy, Claim, Flavor, Snapshot
from deployments.scheduling.quota import Owner, Quota
from deployments.scheduling.shapes import MILLI, NodeSpec, Shape
from deployments.scheduling.what_if import Job, replay

COHORTS, QUEUES = 5, 6
CLASSES = {
    # name: (count, units, seconds, priority, every)
    "small": (350, 1, 0.2, 50, 0.1),
    "medium": (100, 5, 0.5, 100, 0.5),
    "large": (50, 20, 1.0, 200, 1.2),
}
KUEUE = {"large": 23.0, "medium": 90.0, "small": 260.0, "all_done": 351.0}


def recipe_policy() -> AdmissionPolicy:
    quota = {"gpu": Quota(20 * MILLI, 100 * MILLI)}
    owners = [Owner(f"cohort-{c}") for c in range(COHORTS)]
    owners += [Owner(f"queue-{c}-{q}", f"cohort-{c}", quota) for c in range(COHORTS) for q in range(QUEUES)]
    return AdmissionPolicy(tuple(owners), (Flavor("gpu"),))


def recipe_jobs() -> list[Job]:
    jobs = []
    for cohort in range(COHORTS):
        for queue in range(QUEUES):
            for kind, (count, units, seconds, priority, every) in CLASSES.items():
                for number in range(count):
                    claim = Claim(
                        f"{kind}-{cohort}-{queue}-{number:03}",
                        f"queue-{cohort}-{queue}",
                        Shape(0, 0, 1),
                        units,
                        ("gpu",),
                        priority,
                        round((number + 1) * every, 6),
                        expected_seconds=seconds,
                    )
                    jobs.append(Job(claim, seconds))
    return jobs


def large_pass(nodes: bool) -> tuple[float, int]:
    """CPU seconds of one pass over all claims waiting at once, and how many got an answer."""
    claims = tuple(job.claim for job in recipe_jobs())
    fleet = tuple(NodeSpec(f"node-{n}", 96_000, 786_432, 8, "A100") for n in range(500)) if nodes else None
    snapshot = Snapshot(100.0, recipe_policy(), claims, nodes=fleet)
    start = time.process_time()
    outcome = run_pass(snapshot)
    seconds = time.process_time() - start
    answered = len(outcome.granted) + len(outcome.reserved) + len(outcome.waiting) + len(outcome.refused)
    return seconds, answered


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="-", help="file for the JSON object; - prints it as the last line")
    parser.add_argument("--plot", type=Path, help="SVG file for waiting times against Kueue's thresholds")
    options = parser.parse_args(argv)
    jobs = recipe_jobs()
    outcome = replay(recipe_policy(), jobs)
    result: dict[str, float] = {
        kind: round(outcome.mean_wait([j for j in jobs if j.claim.id.startswith(kind)]), 3) for kind in CLASSES
    }
    result["all_done"] = round(outcome.makespan, 3)
    result |= {"finished": len(outcome.finished), "evictions": outcome.evictions, "passes": outcome.passes}
    result["passes_s"] = round(outcome.pass_seconds, 3)
    result["pass_15000_waiting_s"], answered = large_pass(nodes=False)
    result["pass_15000_waiting_500_nodes_s"], answered_nodes = large_pass(nodes=True)
    if {len(outcome.finished), answered, answered_nodes} != {len(jobs)}:
        raise SystemExit(f"not every claim was answered: {len(outcome.finished)}, {answered}, {answered_nodes}")
    for name, threshold in KUEUE.items():
        print(f"{name:>9}: {result[name]:8.2f} s, Kueue's threshold {threshold} s")
    if options.plot:
        from benchmarks.gpu_plots import plot_admission

        plot_admission(result, KUEUE, options.plot)
    line = json.dumps({key: round(value, 3) for key, value in result.items()})
    if options.json != "-":
        Path(options.json).write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
