"""Runtimes of this machine: Pythons and R, as images give them to containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from localcluster.kubelet.programs import output_of

_FACTS = (
    "import importlib.util, json, sys;"
    "print(json.dumps([sys.version_info[1], sys.base_prefix, sys.base_exec_prefix,"
    "bool(importlib.util.find_spec('ensurepip')), sys.implementation.name]))"
)
_SYSTEM = ("/usr", "/bin", "/lib", "/opt", "/nix", "/etc")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What an image gives a container: programs first on PATH, directories of the machine, environment."""

    name: str
    path: tuple[str, ...]
    directories: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def image_id(self) -> str:
        return "sha256:" + sha256(f"{self.name} {self.path} {self.directories}".encode()).hexdigest()


async def find(kind: str, version: str) -> Runtime | None:
    """A Python of that version ("3.11", "" for any) or an R; None when the machine has none."""
    return await (_find_python(version) if kind == "python" else _find_r())


async def _find_python(version: str) -> Runtime | None:
    second: Runtime | None = None
    for candidate in _candidates(version):
        runtime, complete = await _examine(candidate, version)
        if runtime is not None and complete:
            return runtime
        second = second or runtime
    if second is None and (uv := find_uv()) is not None:
        code, output = await output_of(uv, "python", "find", "--system", version or "3", seconds=60)
        if code == 0 and output.strip():
            second, _ = await _examine(output.strip().splitlines()[-1], version)
    return second


def _candidates(version: str) -> list[str]:
    """Places where a Python of this version may be: our own first, as it is known to work."""
    names = [f"python{version}"] if version else ["python3"]
    found = []
    if not version or f"3.{sys.version_info[1]}" == version:
        found.append(os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info[1]}"))
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        # A shim of pyenv is a script that starts another; the versions behind it are looked at below.
        if directory and not directory.endswith("/shims"):
            found += [os.path.join(directory, name) for name in names]
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    for pattern in (f"versions/{version or '3'}.*/bin/python3", f"versions/{version or '3'}/bin/python3"):
        found += sorted((str(path) for path in pyenv.glob(pattern)), key=_natural, reverse=True)
    places = managed.glob(f"cpython-{version or '3'}.*/bin/python3")
    found += sorted((str(path) for path in places), key=_natural, reverse=True)
    different = {os.path.realpath(path): path for path in reversed(found) if os.access(path, os.X_OK)}
    return [path for path in dict.fromkeys(found) if path in different.values()]


def _natural(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


async def _examine(executable: str, version: str) -> tuple[Runtime | None, bool]:
    """(runtime, whether it can make virtual environments); None when it is another version or broken."""
    code, output = await output_of(executable, "-I", "-c", _FACTS, seconds=60)
    if code != 0:
        return None, False
    try:
        minor, prefix, exec_prefix, complete, kind = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None, False
    if kind != "cpython" or (version and version != f"3.{minor}"):
        return None, False
    return _python(executable, minor, prefix, exec_prefix), complete


def _python(executable: str, minor: int, prefix: str, exec_prefix: str) -> Runtime:
    binary = next((path for path in (f"{prefix}/bin/python3.{minor}", executable) if os.path.exists(path)), executable)
    directories = []
    for place in {prefix, exec_prefix, os.path.realpath(prefix), os.path.dirname(os.path.realpath(binary))}:
        if not any(place == top or place.startswith(f"{top}/") for top in _SYSTEM):
            directories.append(place)
    links = {}
    for name in ("python", "python3"):
        here = f"{prefix}/bin/{name}"
        if not os.path.exists(here) or os.path.realpath(here) != os.path.realpath(binary):
            links[name] = binary
    env = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHON_VERSION": f"3.{minor}"}
    return Runtime(f"python:3.{minor}", (f"{prefix}/bin",), tuple(sorted(directories)), links, env)


async def _find_r() -> Runtime | None:
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    _, home = await output_of(rscript, "--vanilla", "-e", "cat(R.home())", seconds=60)
    return _r(rscript, home.strip(), await _find_python(""))


def _r(rscript: str, home: str, python: Runtime | None) -> Runtime:
    real = os.path.dirname(os.path.realpath(rscript))
    places = {os.path.dirname(rscript), real, home} - {""}
    directories = {p for p in places if not any(p.startswith(f"{top}/") for top in _SYSTEM)}
    links = {"Rscript": rscript, "R": os.path.join(os.path.dirname(rscript), "R")}
    if python is None:
        return Runtime("r-base", (os.path.dirname(rscript),), tuple(sorted(directories)), links, {"LANG": "C.UTF-8"})
    directories |= set(python.directories)
    path = (*python.path, os.path.dirname(rscript))
    return Runtime("r-base", path, tuple(sorted(directories)), links | python.links, python.env)


def find_uv() -> str | None:
    """The uv beside our Python, else one on the PATH."""
    beside = os.path.join(sys.prefix, "bin", "uv")
    return beside if os.access(beside, os.X_OK) else shutil.which("uv")
