"""The folder `.pilothouse`: data of the embedded servers, logs, secrets and what is running.

Secrets are made once and kept (mode 0600); wiping the folder makes new ones and starts from nothing.
"""

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEV_JSON_KEYS = ("url", "admin", "api_token", "metrics_token", "kubeconfig", "pids")


class AlreadyRunningError(RuntimeError):
    """Another supervisor holds the folder; the message says how to end it."""


def write_private(path: Path, value: Any) -> None:
    """Write JSON that only its owner may read, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The content, or nothing at all when the file is missing or was never finished."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass
class StateFolder:
    """Paths and small files below one folder."""

    path: Path
    _lock: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.path = self.path.resolve()

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def dev_json(self) -> Path:
        return self.path / "dev.json"

    @property
    def seeded(self) -> Path:
        """There once the demo has been made."""
        return self.path / "seeded"

    def acquire(self) -> None:
        """Become the only supervisor of this folder until this process ends, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode().strip()
            os.close(descriptor)
            url = read_json(self.dev_json).get("url", "")
            raise AlreadyRunningError(
                f"Pilothouse is already running here{f' at {url}' if url else ''} (process {pid}). "
                f"Stop it with Ctrl-C in its terminal, or: kill {pid}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock = descriptor

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secret(self, name: str, prefix: str = "") -> str:
        """A secret with this name, made at the first call and the same ever after."""
        path = self.path / "secrets.json"
        known = read_json(path)
        if name not in known:
            known[name] = prefix + secrets.token_urlsafe(32)
            write_private(path, known)
        return str(known[name])

    def remembered_port(self, name: str) -> int | None:
        return read_json(self.path / "ports.json").get(name)

    def remember_port(self, name: str, port: int) -> int:
        path = self.path / "ports.json"
        write_private(path, {**read_json(path), name: port})
        return port

    def write_dev_json(self, **values: Any) -> None:
        """What tools need to use the running platform; exactly the keys of DEV_JSON_KEYS."""
        if set(values) != set(DEV_JSON_KEYS):
            raise ValueError(f"dev.json has the keys {DEV_JSON_KEYS}, not {tuple(values)}")
        write_private(self.dev_json, {key: values[key] for key in DEV_JSON_KEYS})

    def wipe(self) -> None:
        """Remove all there is; the caller holds the folder and has ended every process."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            shutil.rmtree(self.path)
