"""The supervisor with small programs in place of the platform, itself run as a process that can be killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack.orphans import Record, read_stat

ROOT = Path(__file__).resolve().parents[3]
MAIN = """
import sys
from pathlib import Path
from devstack.orphans import Record
from devstack.process import Spec, StartError
from devstack.supervisor import StoppedError, Supervisor, listen_for_signals
from devstack.terminal import Terminal

folder = Path(sys.argv[1])
LOOP = "import time\\nwhile True: time.sleep(60)"
STUBBORN = "import signal\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" + LOOP
PARENT = "import subprocess, sys\\nsubprocess.Popen([sys.executable, '-c', %r])\\n" % STUBBORN + LOOP

def spec(name, code, **more):
    return Spec(name, [sys.executable, "-c", code], {}, folder / f"{name}.log", folder, **more)

listen_for_signals()
record = Record(folder / "processes.json")
for name in record.clear_orphans(patience=float(sys.argv[2])):
    print("cleared", name, flush=True)
supervisor = Supervisor(record, Terminal(), lambda pids: None)
try:
    supervisor.start_all(
        [spec("first", "print('up', flush=True)\\n" + LOOP, ready_text="up"), spec("family", PARENT)],
        {"first": "First"},
    )
    supervisor.run_to_end(spec("once", "print('step 1')\\nprint('step 2')"), lambda line: print("told:", line))
    print("running", flush=True)
    supervisor.keep_running()
except StoppedError:
    pass
finally:
    supervisor.stop_all()
print("stopped", flush=True)
"""


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


class Running:
    """The program above, its output, and the pids of its children."""

    def __init__(self, folder: Path, patience: float = 5) -> None:
        self.folder = folder
        self.output = folder / "output"
        self._out = self.output.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(MAIN), str(folder), str(patience)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "platform")},
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )

    def text(self) -> str:
        return self.output.read_text()

    def pid(self, name: str) -> int:
        content = json.loads((self.folder / "processes.json").read_text())
        pid: int = content["children"][name]["pid"]
        return pid

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        self._out.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def go(**options: float) -> Running:
        running = Running(tmp_path, **options)
        started.append(running)
        eventually(lambda: "running\n" in running.text() or running.process.poll() is not None, "up")
        assert running.process.poll() is None, running.text()
        return running

    yield go
    for running in started:
        running.end()


def alive(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.state != "Z"


def descendants(session: int) -> list[int]:
    stats = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [stat.pid for stat in stats if stat and stat.session == session and stat.state != "Z"]


def test_stages_are_told_and_output_of_one_shots_is_handed_on(start: Callable[..., Running]) -> None:
    text = start().text()
    assert "First" in text
    assert "told: step 1\ntold: step 2\n" in text


def test_sigterm_leaves_no_process_behind_not_even_a_stubborn_grandchild(start: Callable[..., Running]) -> None:
    running = start()
    first, family = running.pid("first"), running.pid("family")
    eventually(lambda: len(descendants(family)) == 2, "the grandchild")
    running.process.terminate()
    assert running.process.wait(30) == 0
    assert not alive(first)
    assert descendants(family) == []
    assert json.loads((running.folder / "processes.json").read_text())["children"] == {}


def test_a_crashed_child_is_started_again_and_that_is_said(start: Callable[..., Running]) -> None:
    running = start()
    before = running.pid("first")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: "first was started again" in running.text(), "restart")
    assert "first ended with signal SIGKILL, starts again in 0.5 s" in running.text()
    assert running.pid("first") != before
    assert alive(running.pid("first"))


def test_the_next_start_clears_what_a_killed_supervisor_left(start: Callable[..., Running]) -> None:
    killed = start()
    first, family = killed.pid("first"), killed.pid("family")
    eventually(lambda: len(descendants(family)) == 2, "the grandchild")
    killed.process.kill()
    killed.process.wait()
    eventually(lambda: not alive(first), "the kernel tells children of their parent's death")
    assert descendants(family), "the stubborn grandchild outlives its parent"
    again = start(patience=1)
    assert "cleared family" in again.text()
    assert descendants(family) == []


def test_a_stranger_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        record = Record(tmp_path / "processes.json")
        record.add("mine", stranger.pid)
        content = json.loads((tmp_path / "processes.json").read_text())
        content["children"]["mine"]["started"] += 1
        (tmp_path / "processes.json").write_text(json.dumps(content))
        assert Record(tmp_path / "processes.json").clear_orphans() == []
        assert stranger.poll() is None

        record.add("mine", stranger.pid)
        content = json.loads((tmp_path / "processes.json").read_text())
        content["boot"] = "another"
        (tmp_path / "processes.json").write_text(json.dumps(content))
        assert Record(tmp_path / "processes.json").clear_orphans() == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
