"""CPU and memory limits through control groups, version 2 or else 1, where the machine lets us make them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds


@dataclass(frozen=True, slots=True)
class Group:
    """Where a container's processes go, and the file that counts kills for lack of memory."""

    paths: tuple[str, ...] = ()
    oom_file: str | None = None
    memory_limited: bool = False


class Cgroups:
    """Groups of one kubelet, below a name of its own so that several do not meet."""

    def __init__(self, data: Path) -> None:
        self.name = "localcluster-" + sha256(str(data.resolve()).encode()).hexdigest()[:10]
        self.version = self._prepare()

    def _prepare(self) -> int:
        """2, 1, or 0 when no group can be made."""
        if (_ROOT / "cgroup.controllers").exists():
            base = _ROOT / self.name
            with contextlib.suppress(OSError):
                _write(_ROOT / "cgroup.subtree_control", "+cpu +memory")
            try:
                base.mkdir(exist_ok=True)
                _write(base / "cgroup.subtree_control", "+cpu +memory")
            except OSError:
                return 0
            return 2
        made = 0
        for controller in ("memory", "cpu"):
            try:
                (_ROOT / controller / self.name).mkdir(exist_ok=True)
            except OSError:
                continue
            made = 1
        return made

    def create(self, name: str, cpu_millis: int | None, memory_bytes: int | None) -> Group:
        """A group for one container. Limits that cannot be set here are left to polling or left out."""
        if self.version == 2:
            return self._create_v2(name, cpu_millis, memory_bytes)
        if self.version == 1:
            return self._create_v1(name, cpu_millis, memory_bytes)
        return Group()

    def _create_v2(self, name: str, cpu_millis: int | None, memory_bytes: int | None) -> Group:
        path = _ROOT / self.name / name
        limited = False
        try:
            path.mkdir(exist_ok=True)
            if cpu_millis:
                _write(path / "cpu.max", f"{cpu_millis * _PERIOD // 1000} {_PERIOD}")
            if memory_bytes:
                _write(path / "memory.max", str(memory_bytes))
                limited = True
                _write(path / "memory.swap.max", "0")
        except OSError:
            if not path.is_dir():
                return Group()
        return Group((str(path),), str(path / "memory.events"), limited)

    def _create_v1(self, name: str, cpu_millis: int | None, memory_bytes: int | None) -> Group:
        paths, oom_file, limited = [], None, False
        memory, cpu = _ROOT / "memory" / self.name / name, _ROOT / "cpu" / self.name / name
        try:
            memory.mkdir(exist_ok=True)
            if memory_bytes:
                _write(memory / "memory.limit_in_bytes", str(memory_bytes))
                limited = True
            paths.append(str(memory))
            oom_file = str(memory / "memory.oom_control")
        except OSError:
            limited = False
        if cpu_millis:
            with contextlib.suppress(OSError):
                cpu.mkdir(exist_ok=True)
                _write(cpu / "cpu.cfs_period_us", str(_PERIOD))
                _write(cpu / "cpu.cfs_quota_us", str(max(1000, cpu_millis * _PERIOD // 1000)))
                paths.append(str(cpu))
        return Group(tuple(paths), oom_file, limited)

    def remove(self, name: str) -> None:
        """Remove a container's group once it is empty."""
        for controller in ("", "memory", "cpu"):
            with contextlib.suppress(OSError):
                (_ROOT / controller / self.name / name).rmdir()

    def close(self) -> None:
        """Remove what is left of this kubelet's groups."""
        for controller in ("", "memory", "cpu"):
            base = _ROOT / controller / self.name
            for path in base.glob("*/") if base.is_dir() else ():
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                base.rmdir()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
