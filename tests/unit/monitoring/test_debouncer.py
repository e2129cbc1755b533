"""Bursts of changes become few wake-ups, and the last change is never forgotten."""

import threading

from monitoring.watching import BUILD, Debouncer, key_of


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.condition = threading.Condition()

    def __call__(self, key: str) -> None:
        with self.condition:
            self.calls.append(key)
            self.condition.notify_all()

    def wait_for(self, number: int) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: len(self.calls) >= number, 10)


def test_the_first_is_acted_on_and_a_burst_is_one_more() -> None:
    seen = Recorder()
    debouncer = Debouncer(seen)
    debouncer.touch("a")
    seen.wait_for(1)
    for _ in range(50):
        debouncer.touch("a")
    debouncer.touch("b")
    seen.wait_for(3)
    debouncer.stop()
    assert sorted(seen.calls) == ["a", "a", "b"]


def test_a_failure_with_one_does_not_end_the_others() -> None:
    seen = Recorder()

    def act(key: str) -> None:
        if key == "bad":
            raise ValueError(key)
        seen(key)

    debouncer = Debouncer(act)
    debouncer.touch("bad")
    debouncer.touch("good")
    seen.wait_for(1)
    debouncer.stop()
    assert seen.calls == ["good"]


def test_what_is_touched_before_the_end_is_still_acted_on() -> None:
    seen = Recorder()
    debouncer = Debouncer(seen)
    for number in range(20):
        debouncer.touch(str(number))
    debouncer.stop()
    assert len(seen.calls) == 20


def test_keys_of_objects() -> None:
    assert key_of({"metadata": {"labels": {"pilothouse.io/version-id": "v"}}}) == "v"
    assert key_of({"metadata": {"labels": {"pilothouse.io/environment": "h"}}}) == BUILD + "h"
    assert key_of({"metadata": {}}) == ""
