"""A tally equals adding everything up, whatever came, changed and went."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localcluster.tally import Tally

AMOUNTS = st.dictionaries(st.sampled_from(["pods", "cpu", "memory"]), st.integers(0, 10**15).map(Decimal))
STEPS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.none() | AMOUNTS))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_a_tally_equals_the_sum(steps: list[tuple[str, dict[str, Decimal] | None]]) -> None:
    tally, members = Tally(), dict[str, dict[str, Decimal]]()
    for member, amounts in steps:
        if amounts is None:
            members.pop(member, None)
            tally.drop(member)
        else:
            members[member] = amounts
            tally.put(member, amounts)
        expected: Counter[str] = Counter()
        for one in members.values():
            for name, amount in one.items():
                expected[name] += amount
        assert tally.sums() == {name: amount for name, amount in expected.items() if amount}
        assert all(tally.of(name) == expected[name] for name in ("pods", "cpu", "memory"))
