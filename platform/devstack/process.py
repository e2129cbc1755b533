"""One child process: how it is started, known to be ready, and ended together with all its descendants."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_TAIL_LINES = 15


class StartError(RuntimeError):
    """A process did not become ready. The message carries the end of its log."""


def always_ready() -> bool:
    return True


@dataclass(frozen=True)
class Spec:
    """What to run. ``environment`` is the whole environment of the child, nothing is inherited beside it.

    ``ready`` is asked over and over after the start and must not block for more than about a second.
    ``identity`` is an option of launch.py.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    directory: Path
    ready: Callable[[], bool] = always_ready
    start_timeout: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 20.0
    identity: str = "same"


@dataclass
class Process:
    """A running (or ended) child of this process; always the leader of its own session and process group."""

    spec: Spec
    popen: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def pid(self) -> int | None:
        return self.popen.pid if self.popen else None

    def start(self) -> None:
        """Start the program, its output appended to the log. Returns at once; see `wait_ready`."""
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-I", "-S", str(LAUNCHER),
            "--identity", self.spec.identity,
            "--parent", str(os.getpid()),
            "--death-signal", str(int(self.spec.stop_signal)),
            "--", *self.spec.command,
        ]  # fmt: skip
        with self.spec.log.open("ab") as log:
            self.popen = subprocess.Popen(
                command,
                env=dict(self.spec.environment),
                cwd=self.spec.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exit_status(self) -> int | None:
        """None while it runs, else the status as in `subprocess.Popen.returncode`."""
        return self.popen.poll() if self.popen else None

    def wait_ready(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Return once the process is ready; StartError when it ended or took longer than `start_timeout`."""
        deadline = time.monotonic() + self.spec.start_timeout
        while not should_stop():
            status = self.exit_status()
            if status is not None:
                raise StartError(f"{self.spec.name} ended with status {status}.\n{self.log_tail()}")
            if self.spec.ready():
                return
            if time.monotonic() > deadline:
                raise StartError(
                    f"{self.spec.name} was not ready after {self.spec.start_timeout:.0f} s.\n" + self.log_tail()
                )
            time.sleep(0.03)

    def stop(self) -> None:
        """Ask the process to end, then end whatever is left of its process group. Safe to call twice."""
        if self.popen is None:
            return
        if self.popen.poll() is None:
            self.popen.send_signal(self.spec.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(self.spec.stop_timeout)
        kill_group(self.popen.pid)
        self.popen.wait()

    def log_tail(self) -> str:
        """The last lines of the log, headed by its path."""
        if not self.spec.log.exists():
            return ""
        with self.spec.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 16_384))
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"The end of {self.spec.log}:", *(f"  {line}" for line in lines)])


def kill_group(leader: int) -> None:
    """SIGKILL every process of the group; nothing happens when it is empty."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
