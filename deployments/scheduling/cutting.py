"""Cutting stock: what a piece of a GPU is worth, given the shares that are typically asked for.

Packing shares on devices is cutting stock. Its linear relaxation, solved by column generation (Gilmore and Gomory,
1961), gives every share a price in devices; the value of a leftover is the best filling at these prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np

from .options import Floats
from .shapes import MILLI


def best_fillings(sizes: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """[MILLI + 1] largest value that fits in each length, and the share added last (-1: none)."""
    grain = gcd(MILLI, *sizes)
    steps = [(size // grain, value, index) for index, (size, value) in enumerate(zip(sizes, values, strict=True))]
    best, last = [0.0] * (MILLI // grain + 1), [-1] * (MILLI // grain + 1)
    for length in range(1, len(best)):
        most, added = best[length - 1], -1
        for size, value, index in steps:
            if size <= length and best[length - size] + value > most + 1e-12:
                most, added = best[length - size] + value, index
        best[length], last[length] = most, added
    fine = np.arange(MILLI + 1) // grain
    added_at = np.where(np.arange(MILLI + 1) % grain == 0, np.array(last)[fine], -1)
    return np.array(best)[fine], added_at


def share_prices(sizes: Sequence[int], demand: Sequence[float]) -> np.ndarray:
    """[sizes] devices that one more share of each size costs when all are packed best.

    `sizes` are distinct, 1 to MILLI; `demand` is how often each is asked for, above 0.
    """
    count = len(sizes)
    wanted = np.array(demand, float)
    basis: np.ndarray = np.diag([float(MILLI // size) for size in sizes])
    cost = np.ones(count)
    prices: np.ndarray = np.zeros(count)
    for _ in range(50 * count + 50):
        used = np.linalg.solve(basis, wanted)
        prices = np.linalg.solve(basis.T, cost)
        best, last = best_fillings(sizes, np.maximum(prices, 0.0).tolist())
        if prices.min() < -1e-9:
            pattern, price = np.zeros(count), 0.0
            pattern[int(prices.argmin())] = -1.0  # packing more than asked for costs nothing
        elif best[MILLI] > 1 + 1e-7:
            pattern, price = _pattern(sizes, last), 1.0
        else:
            break
        step = np.linalg.solve(basis, pattern)
        ratios = np.where(step > 1e-9, used / np.where(step > 1e-9, step, 1.0), np.inf)
        leaves = int(ratios.argmin())
        basis[:, leaves], cost[leaves] = pattern, price
    return np.maximum(prices, 0.0)


def _pattern(sizes: Sequence[int], last: np.ndarray) -> np.ndarray:
    pattern, length = np.zeros(len(sizes)), MILLI
    while length > 0:
        index = int(last[length])
        if index < 0:
            length -= 1
        else:
            pattern[index] += 1
            length -= sizes[index]
    return pattern


def leftover_worth(sizes: Sequence[int], demand: Sequence[float]) -> Floats:
    """[MILLI + 1] what a leftover of each length is worth, in devices, when filled best at the shares' prices.

    Without shares only a whole device is worth anything.
    """
    if not sizes:
        return (np.arange(MILLI + 1) == MILLI).astype(np.float32)
    best, _ = best_fillings(sizes, share_prices(sizes, demand).tolist())
    return best.astype(np.float32)
