"""Images name runtimes of this machine: `python:3.N...` a Python, `r-base`, `rocker/r-ver` an R.

Any other image cannot be pulled, as on a node without a registry.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"^(?:(?P<registry>[A-Za-z0-9.-]*[.:][A-Za-z0-9.:-]*|localhost)/)?(?P<name>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$"
)
_MIRRORS = ("", "docker.io", "index.docker.io", "registry-1.docker.io", "localhost")
_VERSION = re.compile(r"^3\.(\d+)(?:\.\d+)?(?:$|[-.a-z])")
_FACTS = (
    "import importlib.util, json, sys;"
    "print(json.dumps([sys.version_info[1], sys.base_prefix, sys.base_exec_prefix,"
    "bool(importlib.util.find_spec('ensurepip')), sys.implementation.name]))"
)
_SYSTEM = ("/usr", "/bin", "/lib", "/opt", "/nix", "/etc")


class InvalidImageName(Exception):
    """The reference cannot be parsed; the text is the container runtime's."""


class PullError(Exception):
    """There is no such image here; the text is what a failed pull says."""


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


def check_name(image: str) -> re.Match[str]:
    """The parts of an image reference; InvalidImageName in the words of the container runtime."""
    match = _REFERENCE.match(image)
    if match is not None:
        return match
    detail = "invalid reference format"
    name = image if "/" in image else f"library/{image}"
    if name != name.lower():
        detail += f": repository name ({name}) must be lowercase"
    text = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {detail}'
    raise InvalidImageName(text)


def wanted_runtime(image: str) -> tuple[str, str] | None:
    """("python", "3.11"), ("python", "") for any, ("r", ""); None for an image that is no runtime."""
    match = check_name(image)
    if (match["registry"] or "") not in _MIRRORS:
        return None
    name, tag = match["name"].removeprefix("library/"), match["tag"] or "latest"
    if name in ("r-base", "rocker/r-ver", "rocker/r-base"):
        return "r", ""
    if name != "python":
        return None
    if tag in ("latest", "slim", "3") or tag.startswith("3-"):
        return "python", ""
    version = _VERSION.match(tag)
    return ("python", f"3.{version[1]}") if version else None


class Images:
    """Finds runtimes and remembers them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Runtime] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def names(self) -> list[str]:
        return sorted({runtime.name for runtime in self._found.values()})

    async def present(self, image: str) -> Runtime | None:
        """The runtime when it is on the machine. InvalidImageName when the reference is none."""
        wanted = wanted_runtime(image)
        if wanted is None:
            return None
        if wanted in self._found:
            return self._found[wanted]
        async with self._locks.setdefault(wanted, asyncio.Lock()):
            if wanted not in self._found:
                runtime = await asyncio.to_thread(_find, *wanted)
                if runtime is None:
                    return None
                self._found[wanted] = runtime
        return self._found[wanted]

    async def pull(self, image: str) -> Runtime:
        """Fetch the runtime with uv; PullError when there is no such image."""
        wanted = wanted_runtime(image)
        prefix = f'failed to pull and unpack image "{image}": failed to resolve image: '
        if wanted is None:
            text = "this node has no registry; its images are python:3.N, r-base and rocker/r-ver"
            raise PullError(prefix + text)
        if wanted[0] == "r":
            raise PullError(prefix + "Rscript is not on the PATH of this node; install R")
        version = wanted[1] or "3"
        uv = _uv()
        if uv is None:
            raise PullError(f"{prefix}no Python {version} on this node and no uv to install it")
        code, output = await asyncio.to_thread(_run, uv, "python", "install", "--no-bin", version, timeout=600.0)
        runtime = await self.present(image)
        if runtime is None:
            last = output.strip().splitlines()[-1:] or ["uv gave no reason"]
            raise PullError(f"{prefix}uv python install {version} ended with {code}: {last[0]}")
        return runtime


def _find(kind: str, version: str) -> Runtime | None:
    return _find_python(version) if kind == "python" else _find_r()


def _find_python(version: str) -> Runtime | None:
    seen: set[str] = set()
    second: Runtime | None = None
    for candidate in _candidates(version):
        real = os.path.realpath(candidate)
        if real in seen or not os.access(candidate, os.X_OK):
            continue
        seen.add(real)
        runtime, complete = _examine(candidate, version)
        if runtime is not None and complete:
            return runtime
        second = second or runtime
    if second is None and (uv := _uv()) is not None:
        code, output = _run(uv, "python", "find", "--system", version or "3", timeout=60)
        if code == 0 and output.strip():
            second, _ = _examine(output.strip().splitlines()[-1], version)
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
    return [path for path in found if os.path.exists(path)]


def _natural(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def _examine(executable: str, version: str) -> tuple[Runtime | None, bool]:
    """(runtime, whether it can make virtual environments); None when it is another version or broken."""
    code, output = _run(executable, "-I", "-c", _FACTS, timeout=60)
    if code != 0:
        return None, False
    try:
        minor, prefix, exec_prefix, complete, kind = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None, False
    if kind != "cpython" or (version and version != f"3.{minor}"):
        return None, False
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
    return Runtime(f"python:3.{minor}", (f"{prefix}/bin",), tuple(sorted(directories)), links, env), complete


def _find_r() -> Runtime | None:
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    python = _find_python("")
    real = os.path.dirname(os.path.realpath(rscript))
    home = _run(rscript, "--vanilla", "-e", "cat(R.home())", timeout=60)[1].strip()
    places = {os.path.dirname(rscript), real, home} - {""}
    directories = {p for p in places if not any(p.startswith(f"{top}/") for top in _SYSTEM)}
    links = {"Rscript": rscript, "R": os.path.join(os.path.dirname(rscript), "R")}
    if python is None:
        return Runtime("r-base", (os.path.dirname(rscript),), tuple(sorted(directories)), links, {"LANG": "C.UTF-8"})
    directories |= set(python.directories)
    path = (*python.path, os.path.dirname(rscript))
    return Runtime("r-base", path, tuple(sorted(directories)), links | python.links, python.env)


def _uv() -> str | None:
    beside = os.path.join(sys.prefix, "bin", "uv")
    return beside if os.access(beside, os.X_OK) else shutil.which("uv")


def _run(*command: str, timeout: float) -> tuple[int, str]:
    """(exit code, output); -1 when it cannot be started or takes too long."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        return -1, str(error)
    except subprocess.TimeoutExpired:
        return -1, f"{command[0]} did not answer in {timeout:.0f} s"
    return result.returncode, result.stdout.decode("utf-8", "replace")
