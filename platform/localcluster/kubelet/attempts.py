"""What is written on disk about pods and their containers, so that a later kubelet finds everything again.

DATA/pods/UID/pod.json                       namespace, name, address, devices
DATA/pods/UID/volumes/NAME/                  volumes
/dev/shm/localcluster-UID/NAME/              volumes that are to be in memory
DATA/pods/UID/containers/NAME/N/             attempt N (the restart count): log, lock, state.json, exit.json,
                                             root (its file system), termination-log
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from localcluster.client import Object
from localcluster.kubelet.shim.server import write_json
from localcluster.times import rfc3339

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the machine's own, where memory is used as files
_KEPT = 2  # attempts of a container whose log stays: the current one and `--previous`
_MESSAGE = 4096
_TAIL_LINES = 80
_TAIL_BYTES = 2048


class PodRecord:
    """The directory of one pod."""

    def __init__(self, data: Path, uid: str) -> None:
        self.uid = uid
        self.directory = data / "pods" / uid
        self.volumes = self.directory / "volumes"
        self.memory = _SHARED_MEMORY / f"localcluster-{uid}" if os.access(_SHARED_MEMORY, os.W_OK) else None

    @property
    def exists(self) -> bool:
        return (self.directory / "pod.json").exists()

    def read(self) -> dict[str, Any]:
        try:
            return json.loads((self.directory / "pod.json").read_text())
        except (OSError, ValueError):
            return {}

    def write(self, content: dict[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(str(self.directory / "pod.json"), content)

    def attempts(self, container: str) -> list[int]:
        """Numbers of the attempts on disk, oldest first."""
        parent = self.directory / "containers" / container
        if not parent.is_dir():
            return []
        return sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdigit())

    def attempt(self, container: str, number: int) -> Path:
        return self.directory / "containers" / container / str(number)

    def begin(self, container: str, number: int) -> Path:
        """Make the directory of a new attempt; file systems of older ones go, and all but the last's logs."""
        for old in self.attempts(container):
            if old == number:
                continue
            shutil.rmtree(self.attempt(container, old) / "root", ignore_errors=True)
            if old <= number - _KEPT:
                shutil.rmtree(self.attempt(container, old), ignore_errors=True)
        directory = self.attempt(container, number)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return directory

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.memory is not None:
            shutil.rmtree(self.memory, ignore_errors=True)


def container_id(directory: Path) -> str:
    """A stable id in the form of a container runtime's."""
    return "localcluster://" + sha256(str(directory).encode()).hexdigest()


def terminated(directory: Path, outcome: dict[str, Any], container: Object) -> Object:
    """The ContainerStateTerminated of an attempt."""
    code = outcome["exitCode"]
    state: Object = {"exitCode": code}
    if outcome.get("unknown"):
        state["reason"] = "ContainerStatusUnknown"
        state["message"] = "The container could not be located when the pod was terminated"
    elif outcome.get("startError"):
        state["reason"] = "StartError"
        state["message"] = outcome["startError"]
    elif outcome.get("oom") and code == 137:
        state["reason"] = "OOMKilled"
    else:
        state["reason"] = "Completed" if code == 0 else "Error"
    message = termination_message(directory, code, container)
    if message and "message" not in state:
        state["message"] = message
    state["startedAt"] = _time(outcome.get("startedAt") or 0)
    state["finishedAt"] = _time(outcome.get("finishedAt") or outcome.get("startedAt") or 0)
    state["containerID"] = container_id(directory)
    return state


def _time(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


def termination_message(directory: Path, code: int, container: Object) -> str:
    """What the container wrote to its termination log, or the end of its log if the policy says so."""
    try:
        text = (directory / "termination-log").read_bytes()[:_MESSAGE].decode("utf-8", "replace")
    except OSError:
        text = ""
    if text or code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return text
    return _log_tail(directory / "log")


def _log_tail(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 65536))
            lines = stream.read().splitlines()
    except OSError:
        return ""
    text = b""
    for line in lines[-_TAIL_LINES:]:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            text += parts[3] + (b"\n" if parts[2] == b"F" else b"")
    return text[-_TAIL_BYTES:].decode("utf-8", "replace")
