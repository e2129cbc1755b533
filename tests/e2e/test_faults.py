"""Parts of the platform die in the middle of a rollout; it ends complete, with nothing double or half made."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from tests.support.service import Service
from tests.support.stack import RunningStack, eventually

pytestmark = pytest.mark.timeout(600)
# 60 in a long run; a third shows the same: longer than every client's patience.
OUTAGE_SECONDS = float(os.environ.get("PILOTHOUSE_TEST_OUTAGE", "20"))
SLOW_START = 3


def code(answer: int, start_seconds: float = 0) -> str:
    return f"""
import time
time.sleep({start_seconds})

class Deployment:
    def request(self, data):
        time.sleep(data.get("seconds") or 0)
        return {{"answer": {answer}}}
"""


class Numbered:
    """A service whose revisions answer with their number."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.number = 0

    def upload(self, start_seconds: float = 0) -> str:
        self.number += 1
        return self.service.upload(code(self.number, start_seconds))


@pytest.fixture(scope="module")
def numbered(stack: RunningStack) -> Numbered:
    """A service that answers 1."""
    numbered = Numbered(Service(stack, "numbered"))
    numbered.service.wait_rollout(numbered.upload(), "complete")
    assert numbered.service.answer() == 1
    return numbered


def crash(name: str, number: int = signal.SIGKILL) -> Callable[[RunningStack], None]:
    def happen(stack: RunningStack) -> None:
        stack.wait_restarted(name, stack.kill(name, number))

    return happen


def no_cluster_api(stack: RunningStack) -> None:
    """The API server takes connections and never answers: worse than one that refuses."""
    cluster = psutil.Process(stack.dev()["pids"]["cluster"])
    server = next(p for p in cluster.children(recursive=True) if "localcluster.apiserver" in p.cmdline())
    server.suspend()
    try:
        time.sleep(OUTAGE_SECONDS)
    finally:
        server.resume()


FAULTS = {
    "the worker is killed": crash("worker"),
    "the watcher is killed": crash("watcher"),
    "the web process is killed": crash("web"),
    "the schedule is killed": crash("beat"),
    "PostgreSQL restarts": crash("postgresql", signal.SIGINT),
    "PostgreSQL crashes": crash("postgresql", signal.SIGKILL),
    "Valkey restarts": crash("valkey", signal.SIGTERM),
    "Valkey crashes": crash("valkey", signal.SIGKILL),
    "the cluster's API is away": no_cluster_api,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_rollout_completes_whatever_dies_meanwhile(
    fault: Callable[[RunningStack], None], stack: RunningStack, numbered: Numbered
) -> None:
    revision = numbered.upload(start_seconds=SLOW_START)
    numbered.service.wait_step(revision, "starting_at")
    fault(stack)
    numbered.service.wait_rollout(revision, "complete")
    numbered.service.assert_whole(revision)
    assert eventually(lambda: _answers(numbered.service), "an answer") == numbered.number


def test_clients_are_told_to_try_again_while_the_database_is_away(stack: RunningStack, numbered: Numbered) -> None:
    with stack.down("postgresql"), stack.api() as api:
        answer = api.get("/projects")
        page = httpx.get(f"{stack.url}/projects/", cookies={"sessionid": "x" * 32}, timeout=30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json() == {"error": "The platform's database cannot be reached; try again in a few seconds"}
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert "Back in a moment" in page.text
    assert eventually(lambda: _answers(numbered.service), "an answer") == numbered.number


def test_batch_requests_survive_the_death_of_their_worker(stack: RunningStack, numbered: Numbered) -> None:
    ids = numbered.service.queue(12, seconds=0.5)
    eventually(lambda: _status(numbered.service, ids[0]) != "pending", "the first request to be taken")
    crash("requests")(stack)
    for request_id in ids:
        eventually(lambda i=request_id: _status(numbered.service, i) in {"completed", "failed"}, "the end", seconds=180)
    assert {_status(numbered.service, request_id) for request_id in ids} == {"completed"}


class Load:
    """Direct requests from several threads without a pause, until told to stop."""

    def __init__(self, stack: RunningStack, service: Service, threads: int = 3) -> None:
        self._stack, self._service = stack, service
        self._stopping = threading.Event()
        self.answers: list[int] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    def _send(self) -> None:
        with self._stack.api() as api:
            while not self._stopping.is_set():
                try:
                    response = self._service.request(api, seconds=0.02)
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if response.status_code == 200:
                    self.answers.append(response.json()["result"]["answer"])
                else:
                    self.failures.append(f"{response.status_code} {response.text}")

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def load(stack: RunningStack, numbered: Numbered) -> Iterator[Load]:
    with Load(stack, numbered.service) as running:
        eventually(lambda: len(running.answers) > 20, "the load to begin")
        yield running


def test_rolling_under_constant_load_fails_no_request(numbered: Numbered, load: Load) -> None:
    old = numbered.number
    revision = numbered.upload(start_seconds=1)
    numbered.service.wait_rollout(revision, "complete")
    eventually(lambda: len(load.answers) > 0 and load.answers[-1] == numbered.number, "answers of the new revision")
    seen = len(load.answers)
    eventually(lambda: len(load.answers) > seen + 50, "more load after the rollout")
    assert load.failures == []
    assert set(load.answers) == {old, numbered.number}


def test_a_bad_revision_never_takes_the_old_one_down_and_says_why(numbered: Numbered, load: Load) -> None:
    good = numbered.number
    bad = numbered.service.upload(
        "import a_module_that_is_not_there\n\nclass Deployment:\n    def request(self, d): ..."
    )
    rollout = numbered.service.wait_rollout(bad, "failed")
    assert "a_module_that_is_not_there" in rollout["reason"]["message"]
    assert load.failures == []
    assert set(load.answers) == {good}
    numbered.service.wait_rollout(numbered.upload(), "complete")


def test_the_supervisor_is_killed_and_the_next_start_goes_on(stack: RunningStack, numbered: Numbered) -> None:
    revision = numbered.upload(start_seconds=SLOW_START)
    numbered.service.wait_step(revision, "starting_at")
    before = stack.descendants()
    stack.kill("supervisor")
    stack.start()
    assert not [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    numbered.service.wait_rollout(revision, "complete")
    numbered.service.assert_whole(revision)
    assert eventually(lambda: _answers(numbered.service), "an answer") == numbered.number


def _answers(service: Service) -> int | None:
    try:
        return service.answer()
    except (AssertionError, httpx.TransportError):
        return None


def _status(service: Service, request_id: str) -> str | None:
    try:
        return str(service.get_request(request_id)["status"])
    except httpx.HTTPError:
        return None
