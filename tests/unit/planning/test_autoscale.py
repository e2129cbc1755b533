"""How many instances are wanted, from the load alone."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from deployments.planning.autoscale import CALM, Limits, Load, decide

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
IDLE = dt.timedelta(seconds=300)
LIMITS = Limits(minimum=0, maximum=5, idle=IDLE)


def load(in_flight: int = 0, queued: int = 0, *, ago: float = 0, low: float | None = None) -> Load:
    return Load(
        in_flight,
        queued,
        ready=1,
        last_request_at=NOW - dt.timedelta(seconds=ago),
        low_since=None if low is None else NOW - dt.timedelta(seconds=low),
    )


def test_queued_work_starts_an_idle_version() -> None:
    assert decide(0, LIMITS, load(queued=7), NOW).desired == 1


def test_growth_at_most_doubles_and_ends_at_the_maximum() -> None:
    assert decide(1, LIMITS, load(in_flight=9), NOW).desired == 2
    assert decide(2, LIMITS, load(in_flight=9), NOW).desired == 4
    assert decide(4, LIMITS, load(in_flight=9), NOW).desired == 5
    assert decide(5, LIMITS, load(in_flight=99), NOW).desired == 5


def test_moderate_growth_is_by_one() -> None:
    limits = Limits(0, 5, IDLE, moderate=True)
    assert decide(2, limits, load(in_flight=9), NOW).desired == 3


def test_an_instance_with_more_processes_takes_more() -> None:
    assert decide(1, Limits(0, 5, IDLE, concurrency=4), load(in_flight=4), NOW).desired == 1
    assert decide(1, Limits(0, 5, IDLE, concurrency=4), load(in_flight=5), NOW).desired == 2


def test_shrinking_waits_for_a_calm_time_and_goes_by_one() -> None:
    first = decide(4, LIMITS, load(in_flight=1), NOW)
    assert first.desired == 4
    assert first.low_since == NOW
    assert decide(4, LIMITS, load(in_flight=1, low=CALM.total_seconds() - 1), NOW).desired == 4
    after = decide(4, LIMITS, load(in_flight=1, low=CALM.total_seconds()), NOW)
    assert after.desired == 3
    assert after.low_since == NOW


def test_a_burst_begins_the_calm_time_anew() -> None:
    assert decide(2, LIMITS, load(in_flight=2, low=59), NOW).low_since is None


def test_zero_only_after_the_idle_time() -> None:
    assert decide(1, LIMITS, load(ago=IDLE.total_seconds() - 1), NOW).desired == 1
    assert decide(1, LIMITS, load(ago=IDLE.total_seconds()), NOW).desired == 0
    assert decide(1, LIMITS, load(in_flight=1, ago=IDLE.total_seconds()), NOW).desired == 1


def test_never_zero_while_a_rollout_is_unsettled() -> None:
    limits = Limits(0, 5, IDLE, unsettled=True)
    assert decide(1, limits, load(ago=1000), NOW).desired == 1
    assert decide(0, limits, load(ago=1000), NOW).desired == 0


@given(
    desired=st.integers(0, 12),
    minimum=st.integers(0, 4),
    more=st.integers(0, 6),
    in_flight=st.integers(0, 50),
    queued=st.integers(0, 50),
    ago=st.integers(0, 1000),
    low=st.none() | st.integers(0, 100),
)
def test_always_within_the_bounds(
    desired: int, minimum: int, more: int, in_flight: int, queued: int, ago: int, low: int | None
) -> None:
    maximum = max(minimum + more, 1)
    limits = Limits(minimum, maximum, IDLE)
    result = decide(desired, limits, load(in_flight, queued, ago=ago, low=low), NOW)
    assert minimum <= result.desired <= maximum
