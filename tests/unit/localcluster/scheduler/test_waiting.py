"""The order in which pods are tried, and when those that were refused are tried again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localcluster.scheduler import waiting
from localcluster.scheduler.waiting import Queue, Waiting

PODS = st.integers(0, 4).map(lambda number: ("x", f"p-{number}"))
STEPS = st.lists(st.tuples(st.sampled_from(["add", "add", "discard", "pop"]), PODS, st.integers(-1, 1)))


@settings(deadline=None)
@given(STEPS)
def test_the_queue_gives_the_most_important_and_among_equals_the_first(
    steps: list[tuple[str, tuple[str, str], int]],
) -> None:
    queue = Queue()
    plain: dict[tuple[str, str], int] = {}
    for what, key, priority in steps:
        if what == "add":
            queue.add(key, priority)
            plain.setdefault(key, priority)
        elif what == "discard":
            queue.discard(key)
            plain.pop(key, None)
        elif plain:
            best = max(plain, key=lambda one: plain[one])
            assert queue.pop() == best
            del plain[best]
        else:
            with pytest.raises(KeyError):
                queue.pop()
        assert len(queue) == len(plain)


def released(pods: Waiting, **options: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    pods.release(lambda key, seconds: found.update({key[1]: round(seconds, 3)}), **options)
    return found


def test_a_refused_pod_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])
    pods = Waiting()
    for seconds in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        pods.add(("x", "p"), affine=False)
        assert released(pods) == {"p": seconds}
        assert released(pods) == {}, "it waits no longer"
    pods.add(("x", "p"), affine=False)
    clock[0] += 60
    assert released(pods)["p"] <= 0
    pods.forget(("x", "p"))
    pods.add(("x", "p"), affine=False)
    assert released(pods) == {"p": 1.0}, "a pod of the same name begins anew"


def test_only_pods_with_affinity_hope_for_others_to_come() -> None:
    pods = Waiting()
    pods.add(("x", "near"), affine=True)
    pods.add(("x", "any"), affine=False)
    assert list(released(pods, only_affine=True)) == ["near"]
    assert list(released(pods)) == ["any"]
