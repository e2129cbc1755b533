"""Running a training script of ``examples/`` in a virtual environment and a process of its own.

The platform itself never imports a model's code: it only starts it, with an environment that holds none of its
settings, and takes the file that it wrote.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uv
from django.conf import settings

from kube import specs
from serving.environment import build_files

BUILD_SECONDS = 1500
TRAIN_SECONDS = 300
# What reaches the script and the installer: where to find programs and packages, nothing of the platform.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_", "PIP_", "UV_", "XDG_")
_PROXIES = {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}


class TrainingError(RuntimeError):
    """The environment could not be built or the script failed; the message ends with what it wrote."""


def train(script: Path, requirements: str, folder: Path, tell: Callable[[str], None]) -> None:
    """Run ``script folder`` with ``requirements`` installed; it writes its model into ``folder``.

    The environment is kept below the state folder for the next time. ``tell`` receives progress by the line.
    """
    environments = settings.STATE_DIR / "training"
    key = hashlib.sha256(f"{sys.version} {requirements}".encode()).hexdigest()[:12]
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary)
        for name, content in build_files("python", requirements).items():
            (files / name).write_bytes(content)
        tell("Building an environment for the training")
        command = [sys.executable, "-I", str(files / "build.py"), "--hash", key, "--environments", str(environments)]
        try:
            _run([*command, "--files", str(files)], BUILD_SECONDS)
        finally:
            _open_cache()
    tell(f"Training with {script.name}")
    output = _run([str(environments / key / "bin" / "python"), "-I", str(script), str(folder)], TRAIN_SECONDS)
    for line in output.splitlines():
        tell(line)


def _run(command: list[str], seconds: float) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON) or name.lower() in _PROXIES
    }
    environment["UV"] = uv.find_uv_bin()
    cache = _cache()
    if cache:
        environment["UV_CACHE_DIR"] = str(cache)
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrainingError(f"{Path(command[0]).name} took longer than {seconds:.0f} s") from None
    if done.returncode != 0:
        raise TrainingError("\n".join(done.stdout.strip().splitlines()[-8:]))
    return done.stdout


def _cache() -> Path | None:
    """The cache of builds in pods that install nothing of a user's, when their folder is on this machine."""
    environments = Path(settings.PILOTHOUSE_ENVIRONMENTS_DIR)
    return environments / specs.SHARED / ".cache" / "uv" if environments.is_relative_to(settings.STATE_DIR) else None


def _open_cache() -> None:
    """Give what root has put into the shared cache to the user whom pods run as, and the tree that it is in."""
    cache = _cache()
    if cache is None or os.geteuid() != 0:
        return
    user = settings.PILOTHOUSE_RUN_AS_USER
    with suppress(FileNotFoundError):
        os.chown(cache.parent.parent, user, user)
    for folder, _, names in os.walk(cache.parent):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            with suppress(FileNotFoundError):
                os.chown(path, user, user, follow_symlinks=False)
