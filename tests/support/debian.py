"""Programs of Debian packages that are unpacked only, not installed: nothing starts by itself."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENV = Path(__file__).resolve().parents[2] / ".venv"


class NoProgramError(RuntimeError):
    """The program is not there and could not be had."""


@dataclass(frozen=True, slots=True)
class Program:
    """``name`` is that of the program and of its package; ``variable`` names another program in its place."""

    name: str
    variable: str
    reason: str

    @property
    def _unpacked(self) -> Path:
        return VENV / self.name / "usr" / "bin" / self.name

    def find(self) -> str | None:
        """The one that the variable names, one on the machine, or the one that was unpacked here."""
        unpacked = str(self._unpacked) if self._unpacked.exists() else None
        return os.environ.get(self.variable) or shutil.which(self.name) or unpacked

    def find_or_unpack(self) -> str:
        """Its path. Raises `NoProgramError`."""
        program = self.find()
        if program is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
            program = self._unpack() or (_update() and self._unpack()) or None
        if program is None:
            raise NoProgramError(
                f"{self.reason} and none could be had. Install it (Debian and Ubuntu: {self.name}), or set "
                f"{self.variable} to its program."
            )
        return program

    def _unpack(self) -> str | None:
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-") as folder:
            if not _run(["apt-get", "download", "-qq", self.name], folder):
                return None
            package = next(Path(folder).glob(f"{self.name}_*.deb"), None)
            if package is None or not _run(["dpkg-deb", "-x", str(package), str(VENV / self.name)], folder):
                return None
        return self.find()


def _update() -> bool:
    return os.geteuid() == 0 and _run(["apt-get", "update", "-qq"], "/")


def _run(command: list[str], folder: str) -> bool:
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        print("".join(f"  {line}\n" for line in done.stderr.splitlines()[-5:]), end="", flush=True)
    return done.returncode == 0
