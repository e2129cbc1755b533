"""Prices of shares are a solution of the cutting-stock dual."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scheduling.cutting import best_fillings, leftover_worth, share_prices
from tests.unit.scheduling import UNTIMED


@pytest.mark.parametrize(
    ("sizes", "demand", "prices"),
    [
        ([500], [10], [1 / 2]),
        ([334], [10], [1 / 2]),
        ([250, 750], [10, 10], [0, 1]),  # quarters beyond those three quarters leave room for cost nothing
        ([400, 600], [5, 9], [0, 1]),
        ([810], [3], [1]),
    ],
)
def test_known_prices(sizes, demand, prices):
    assert share_prices(sizes, demand) == pytest.approx(prices)


@given(st.dictionaries(st.integers(20, 999), st.integers(1, 50), min_size=1, max_size=6))
@settings(UNTIMED, max_examples=25)
def test_no_device_is_worth_more_than_one_and_the_prices_pay_for_all_devices(demand):
    sizes = sorted(demand)
    counts = [demand[size] for size in sizes]
    prices = share_prices(sizes, counts)
    best, _ = best_fillings(sizes, prices.tolist())
    assert best[1000] <= 1 + 1e-6
    area = sum(size * count for size, count in demand.items()) / 1000
    alone = sum(count / (1000 // size) for size, count in demand.items())
    assert area - 1e-6 <= float(prices @ np.array(counts)) <= alone + 1e-6


def test_leftovers_are_worth_what_fits_in_them():
    worth = leftover_worth([470, 500], [10, 10])
    assert worth[1000] == pytest.approx(1)
    assert worth[460] == 0
    assert worth[530] == pytest.approx(0.5)
    assert np.all(np.diff(worth) >= 0)


def test_without_shares_only_whole_devices_count():
    worth = leftover_worth([], [])
    assert worth[999] == 0
    assert worth[1000] == 1
