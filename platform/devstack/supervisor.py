"""Starts processes stage by stage, keeps them running, and ends them in reverse order."""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devstack.orphans import Record
from devstack.process import POLL_SECONDS, Process, Spec, StartError, describe_status, kill_group
from devstack.terminal import Terminal

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
# Running this long counts as recovered: the next crash starts with the shortest delay again.
STEADY_SECONDS = 60.0


class StoppedError(Exception):
    """A signal asked the supervisor to stop."""


@dataclass
class Kept:
    """A process that is to run until the end, and what its crashes have cost so far."""

    process: Process
    began: float
    delay: float = FIRST_DELAY
    restart_at: float | None = None

    @property
    def name(self) -> str:
        return self.process.spec.name


def listen_for_signals() -> None:
    """Keep signals for `Supervisor.pause` to collect; to be called before the first child is started."""
    # A shell that starts us in the background lets us ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS | {signal.SIGCHLD})


class Supervisor:
    """``changed`` is called with {name: pid} whenever a pid is new."""

    def __init__(
        self, record: Record, terminal: Terminal, changed: Callable[[dict[str, int]], None] = lambda pids: None
    ) -> None:
        self._record = record
        self._terminal = terminal
        self._changed = changed
        self._kept: list[Kept] = []

    def pids(self) -> dict[str, int]:
        return {kept.name: kept.process.pid for kept in self._kept if kept.process.pid and not kept.restart_at}

    def pause(self, seconds: float) -> None:
        """Wait until something happens, at most ``seconds``; StoppedError when told to stop."""
        received = signal.sigtimedwait(STOP_SIGNALS | {signal.SIGCHLD}, seconds)
        if received is not None and received.si_signo in STOP_SIGNALS:
            raise StoppedError

    def start_all(self, specs: Sequence[Spec], titles: dict[str, str]) -> None:
        """Start processes side by side and return when all are ready; StartError when one cannot."""
        waiting = []
        for spec in specs:
            kept = Kept(Process(spec), time.monotonic())
            self._kept.append(kept)
            self._terminal.begin(spec.name)
            self._launch(kept)
            waiting.append(kept)
        while waiting:
            for kept in list(waiting):
                if kept.process.check_ready():
                    waiting.remove(kept)
                    self._terminal.done(kept.name, titles.get(kept.name, kept.name))
            if waiting:
                self.pause(POLL_SECONDS)

    def run_to_end(self, spec: Spec, on_line: Callable[[str], None] = lambda line: None) -> None:
        """Run a program that does its work and ends, every line it writes given to ``on_line``.

        The others are kept running meanwhile. StartError when it fails or takes longer than `start_timeout`.
        """
        process = Process(spec)
        deadline = time.monotonic() + spec.start_timeout
        process.start()
        self._record.add(spec.name, process.pid or 0)
        told = 0
        try:
            while True:
                status = process.exit_status()
                lines = process.log_since_start().splitlines(keepends=True)
                complete = lines if status is not None else [line for line in lines if line.endswith("\n")]
                for line in complete[told:]:
                    on_line(line.rstrip())
                told = len(complete)
                if status == 0:
                    return
                if status is not None:
                    raise StartError(f"{spec.name} ended with {describe_status(status)}.\n{process.log_tail()}")
                if time.monotonic() > deadline:
                    raise StartError(f"{spec.name} took longer than {spec.start_timeout:.0f} s.")
                self.tend()
                self.pause(0.1)
        finally:
            process.stop()
            self._record.remove(spec.name)

    def tend(self) -> None:
        """Notice crashed processes and start them again, each after its delay."""
        now = time.monotonic()
        for kept in self._kept:
            if kept.restart_at is not None:
                if now >= kept.restart_at:
                    kept.restart_at = None
                    self._launch(kept)
                    self._terminal.note(f"{kept.name} was started again (process {kept.process.pid})")
                continue
            status = kept.process.exit_status()
            if status is None:
                continue
            if now - kept.began > STEADY_SECONDS:
                kept.delay = FIRST_DELAY
            # Its children must not work beside those of the next one.
            kill_group(kept.process.pid or 0)
            kept.restart_at = now + kept.delay
            self._terminal.problem(
                f"{kept.name} ended with {describe_status(status)}, starts again in {kept.delay:g} s; "
                f"log: {kept.process.spec.log}"
            )
            kept.delay = min(kept.delay * 2, LONGEST_DELAY)

    def keep_running(self) -> None:
        """Until a signal comes."""
        with contextlib.suppress(StoppedError):
            while True:
                self.tend()
                pending = [kept.restart_at for kept in self._kept if kept.restart_at is not None]
                self.pause(max(0.0, min(pending) - time.monotonic()) if pending else 60.0)

    def stop_all(self) -> None:
        """End everything, last started first. Another signal meanwhile kills what is still there."""
        hurried = False

        def hurry() -> bool:
            nonlocal hurried
            hurried = hurried or signal.sigtimedwait(STOP_SIGNALS, 0) is not None
            return hurried

        for kept in reversed(self._kept):
            kept.process.stop(hurry)
            self._record.remove(kept.name)
        self._kept.clear()

    def _launch(self, kept: Kept) -> None:
        kept.began = time.monotonic()
        kept.process.start()
        self._record.add(kept.name, kept.process.pid or 0)
        self._changed(self.pids())
