"""Measuring process trees."""

from __future__ import annotations

import os
import subprocess
import sys

from localcluster.kubelet.stats import Process, process_table, tree_samples


def test_trees_are_summed() -> None:
    table = {
        1: Process(0, 1.0, 100),
        2: Process(1, 0.5, 10),
        3: Process(2, 0.25, 1),
        4: Process(1, 8.0, 1000),
    }
    samples = tree_samples([2, 9], table)
    assert list(samples) == [2]
    assert (samples[2].cpu, samples[2].memory) == (0.75, 11)


def test_this_machine() -> None:
    program = "import sys, time; x = bytearray(50_000_000); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        table = process_table()
        assert table[child.pid].parent == os.getpid()
        own, its = tree_samples([os.getpid(), child.pid], table).values()
        assert its.memory > 50_000_000
        assert own.memory > its.memory
        assert own.cpu >= its.cpu > 0
        child.kill()
