"""Fragmentation Gradient Descent: place where the expected unusable GPU grows least.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent", USENIX ATC 2023. A node's fragmentation is the GPU that a task drawn from the typical workload cannot
use there: all of it when the task does not fit, else the devices with less left than the task's share.
"""

from __future__ import annotations

import numpy as np

from .options import LEVELS, Choices, Floats
from .shapes import MILLI
from .workload import Workload


class FragmentationGradient:
    """FGD as published: the typical workload covers 95 % of arrivals, scores are whole numbers from 0 to 100.

    The rounding is part of the policy: it makes most placements ties, which go to the first node.
    """

    name = "fgd"
    random = False

    def __init__(self, workload: Workload, popularity: float = 0.95) -> None:
        self.typical = workload.popular(popularity)
        self._weights = np.array(self.typical.weights, np.float32)
        self._cpu = self.typical.column("cpu_milli")
        self._gpus = self.typical.column("gpus").astype(np.float32)
        self._milli = self.typical.column("gpu_milli").astype(np.float32)
        self._admissible: dict[str, np.ndarray] = {}

    def device_table(self) -> Floats:
        level, share = LEVELS[:, None], self._milli[None, :]
        below = np.where(level < share, level, 0.0) / MILLI
        holds = (level >= share).astype(np.float32)
        return np.concatenate([level / MILLI, below, holds], axis=1).astype(np.float32)

    def costs(self, choices: Choices) -> Floats:
        state, rows, kinds = choices.state, choices.gpu.rows, len(self._weights)
        cpu = state.cpu_milli - choices.table.cpu
        enough_cpu = cpu[:, None] >= self._cpu[None, :]
        usable = (self._gpus > 0) & self._may_use(state.model)
        enough_gpu = (rows[:, 1 + kinds :] >= self._gpus) & usable
        total, below = rows[:, 0], rows[:, 1 : 1 + kinds]
        saved = np.where(enough_gpu, (total[:, None] - below) * self._weights, np.float32(0))
        used = (enough_cpu[choices.shape] * saved[choices.option]).sum(axis=1)
        fragmentation = total[choices.option] - used
        drop = fragmentation[-1] - fragmentation
        return -np.floor(100 / (1 + np.exp(-drop))).astype(np.float32)

    def _may_use(self, model: str) -> np.ndarray:
        known = self._admissible.get(model)
        if known is None:
            known = np.array([not s.models or model in s.models for s in self.typical.shapes], np.bool_)
            self._admissible[model] = known
        return known
