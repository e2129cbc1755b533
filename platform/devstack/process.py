"""One child process: how it is started, known to be ready, and ended together with all its descendants."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_TAIL_LINES = 15
POLL_SECONDS = 0.03
LOG_BYTES = 10 * 2**20


class StartError(RuntimeError):
    """A process did not become ready. The message carries the end of its log."""


def always_ready() -> bool:
    return True


@dataclass(frozen=True)
class Spec:
    """What to run. ``environment`` is the whole environment of the child, nothing is inherited beside it.

    ``ready`` is asked over and over after the start and must not block for more than about a second; the program
    must also have written ``ready_text``.
    ``identity`` is an option of launch.py.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    directory: Path
    ready: Callable[[], bool] = always_ready
    ready_text: str = ""
    start_timeout: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 20.0
    identity: str = "same"


@dataclass
class Process:
    """A running (or ended) child of this process; always the leader of its own session and process group."""

    spec: Spec
    popen: "subprocess.Popen[bytes] | None" = None
    _log_start: int = 0
    _started_at: float = 0.0

    @property
    def pid(self) -> int | None:
        return self.popen.pid if self.popen else None

    def start(self) -> None:
        """Start the program, its output appended to the log; a log grown large is put aside, one is kept.

        Returns at once; see `wait_ready`.
        """
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        if self.spec.log.exists() and self.spec.log.stat().st_size > LOG_BYTES:
            self.spec.log.replace(self.spec.log.with_suffix(".log.1"))
        command = [
            sys.executable, "-I", "-S", str(LAUNCHER),
            "--identity", self.spec.identity,
            "--parent", str(os.getpid()),
            "--death-signal", str(int(self.spec.stop_signal)),
            "--", *self.spec.command,
        ]  # fmt: skip
        with self.spec.log.open("ab") as log:
            self._log_start = log.tell()
            self._started_at = time.monotonic()
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

    def check_ready(self) -> bool:
        """Whether it is ready; StartError when it ended or was not ready within `start_timeout`."""
        status = self.exit_status()
        if status is not None:
            raise StartError(f"{self.spec.name} ended with {describe_status(status)}.\n{self.log_tail()}")
        if self.spec.ready_text in self.log_since_start() and self.spec.ready():
            return True
        if time.monotonic() > self._started_at + self.spec.start_timeout:
            raise StartError(
                f"{self.spec.name} was not ready after {self.spec.start_timeout:.0f} s.\n{self.log_tail()}"
            )
        return False

    def wait_ready(self) -> None:
        """Return once `check_ready` is true."""
        while not self.check_ready():
            time.sleep(POLL_SECONDS)  # the supervisor has nothing else to do until then

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask the process to end; kill its group after `stop_timeout`, or as soon as ``hurry()`` is true.

        Whatever is left of the group is killed in any case. Safe to call twice.
        """
        if self.popen is None:
            return
        if self.popen.poll() is None:
            self.popen.send_signal(self.spec.stop_signal)
            deadline = time.monotonic() + self.spec.stop_timeout
            while self.popen.poll() is None and time.monotonic() < deadline and not hurry():
                time.sleep(POLL_SECONDS)
        kill_group(self.popen.pid)
        self.popen.wait()

    def log_since_start(self) -> str:
        """What this start of the program has written so far."""
        with self.spec.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        """The last lines of the log, headed by its path."""
        if not self.spec.log.exists():
            return ""
        with self.spec.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 16_384))
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"The end of {self.spec.log}:", *(f"  {line}" for line in lines)])


def describe_status(status: int) -> str:
    """A status of `Popen.returncode` in words."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def kill_group(leader: int) -> None:
    """SIGKILL every process of the group; nothing happens when it is empty."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
