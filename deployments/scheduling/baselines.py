"""Published placement policies, for comparison: Random, DotProd (Tetris), GpuPacking, BestFit.

Scores as evaluated with FGD (Weng et al., USENIX ATC 2023): whole numbers from 0 to 100, normalised by the largest
node of that study. Every choice among devices is the tightest that fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from .options import LEVELS, Choices, Floats
from .shapes import MILLI

MAX_CPU_MILLI = 128_000
MAX_GPU_MILLI = 8 * MILLI


class _Scored(ABC):
    """Policies that need the node's free GPUs and its number of untouched devices."""

    name: str
    random = False

    def device_table(self) -> Floats:
        return np.stack([LEVELS, (LEVELS == MILLI).astype(np.float32)], axis=1)

    @abstractmethod
    def costs(self, choices: Choices) -> Floats: ...


class Random(_Scored):
    """Any node that fits, any device that fits."""

    name = "random"
    random = True

    def costs(self, choices: Choices) -> Floats:
        return np.zeros(len(choices.shape), np.float32)


class BestFit(_Scored):
    """The node with the least CPU and GPU left afterwards, weighted half and half."""

    name = "bestfit"

    def costs(self, choices: Choices) -> Floats:
        state, table, shape = choices.state, choices.table, choices.shape
        cpu = (state.cpu_milli - table.cpu[shape]) / MAX_CPU_MILLI
        gpu = (sum(state.gpus) - table.milli[shape]) / MAX_GPU_MILLI
        return -np.floor(100 * (1 - (cpu + gpu) / 2)).astype(np.float32)


class DotProd(_Scored):
    """The node whose free CPU and GPU have the smallest dot product with what is asked for."""

    name = "dotprod"

    def costs(self, choices: Choices) -> Floats:
        state, table, shape = choices.state, choices.table, choices.shape
        cpu = state.cpu_milli / MAX_CPU_MILLI * table.cpu[shape] / MAX_CPU_MILLI
        gpu = sum(state.gpus) / MAX_GPU_MILLI * table.milli[shape] / MAX_GPU_MILLI
        return -np.floor(100 * (1 - (cpu + gpu) / 2)).astype(np.float32)


class GpuPacking(_Scored):
    """Shared devices first, then free devices of used nodes, then free nodes with few devices."""

    name = "packing"

    def costs(self, choices: Choices) -> Floats:
        gpus, gpu = choices.state.gpus, choices.gpu
        untouched = sum(left == MILLI for left in gpus)
        scores = np.zeros(len(gpu.takes) + 1)
        for option, take in enumerate(gpu.takes):
            whole = sum(left == MILLI for left in take)
            if not take:
                scores[option] = 0
            elif untouched == len(gpus):
                scores[option] = max(100 // 3 - untouched, untouched)
            elif whole:
                scores[option] = max(50 - whole, 100 // 3)
            else:
                scores[option] = max(100 - sum(left * 100 // MILLI for left in take) // 10, 50)
        return -scores[choices.option].astype(np.float32)
