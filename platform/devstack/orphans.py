"""Finding and ending what a killed supervisor left behind.

Every child is recorded with its pid, its start time and the machine's boot: together they name a process for good,
where a pid alone may belong to somebody else by now. A child leads its own session, so its descendants are found by
the session even when the child itself is gone.
"""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devstack.statefolder import read_json, write_private

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessStat:
    """The fields of /proc/PID/stat that tell processes apart. ``started`` is in clock ticks since boot."""

    pid: int
    state: str
    session: int
    started: int


def read_stat(pid: int) -> ProcessStat | None:
    """None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name is in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(pid, fields[0], int(fields[3]), int(fields[19]))


def running() -> Iterable[ProcessStat]:
    """Every process of the machine except zombies."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = read_stat(int(entry))
            if stat is not None and stat.state != "Z":
                yield stat


class Record:
    """The file that remembers which children are running, in the order of their start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, object]] = {}

    def add(self, name: str, pid: int) -> None:
        """Remember a child that was just started (a later one of the same name takes its place)."""
        stat = read_stat(pid)
        self._entries.pop(name, None)
        self._entries[name] = {"pid": pid, "started": stat.started if stat else 0}
        self._save()

    def remove(self, name: str) -> None:
        if self._entries.pop(name, None) is not None:
            self._save()

    def _save(self) -> None:
        write_private(self._path, {"boot": BOOT_ID.read_text().strip(), "children": self._entries})

    def clear_orphans(self, patience: float = 20.0) -> list[str]:
        """End what an earlier supervisor left, newest first; the names of the children that had left something.

        Processes are asked first (most were told already by the kernel when their parent died) and killed after
        ``patience`` seconds in all.
        """
        content = read_json(self._path)
        found: list[str] = []
        if content.get("boot") == BOOT_ID.read_text().strip():
            deadline = time.monotonic() + patience
            for name, entry in reversed(content.get("children", {}).items()):
                if _end_session(int(entry["pid"]), int(entry["started"]), deadline):
                    found.append(name)
        self._path.unlink(missing_ok=True)
        return found


def _members(leader: int, started: int) -> list[ProcessStat]:
    """Living processes of the session that ``leader`` opened at ``started``; empty if the pid is another's now."""
    stat = read_stat(leader)
    if stat is not None and stat.started != started:
        return []
    return [member for member in running() if member.session == leader and member.started >= started]


def _end_session(leader: int, started: int, deadline: float) -> bool:
    members = _members(leader, started)
    if not members:
        return False
    # PostgreSQL takes SIGINT for "end now, cleanly" and SIGTERM for "wait for all sessions to end".
    for member in members:
        if member.pid == leader:
            _signal(member, signal.SIGINT if _is_postgres(leader) else signal.SIGTERM)
    while members and time.monotonic() < deadline:
        time.sleep(0.05)  # they are nobody's children, so there is no waitpid for their end
        members = _members(leader, started)
        if members and not any(member.pid == leader for member in members):
            break
    for member in members:
        _signal(member, signal.SIGKILL)
    while _members(leader, started):
        time.sleep(0.01)  # as above; SIGKILL takes effect in a moment
    return True


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _signal(process: ProcessStat, number: int) -> None:
    """Signal exactly this process: not at all when the pid changed hands since it was read."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = read_stat(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
