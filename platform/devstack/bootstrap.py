"""Make `.venv` from a file of locked, hashed requirements.

Usage: ``python3 platform/devstack/bootstrap.py VENV REQUIREMENTS``. Runs under the system's Python with nothing
installed, hence standard library only. Does nothing, and needs no network, when the environment is up to date.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
# pip's settings that say where packages come from, and what uv calls them.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


class SetupError(RuntimeError):
    """The environment cannot be made; the message is for the person at the terminal."""


def locked_block(requirements: str, name: str) -> str:
    """The lines of ``name`` in a requirements file with hashes: the pin and all its hashes."""
    found = re.search(rf"^{re.escape(name)}==(?:.*\\\n)*.*", requirements, re.MULTILINE)
    if found is None:
        raise SetupError(f"{name} is not in the requirements; run `make lock`.")
    return re.sub(r"\n\s*#.*", "", found.group()) + "\n"


def pip_settings(listing: str) -> dict[str, str]:
    """uv's variables for the output of ``pip config list``: the environment's value wins over a file's."""
    variables: dict[str, str] = {}
    for line in listing.splitlines():
        found = re.fullmatch(r"(.+?)\.([a-z-]+)='(.*)'", line.strip())
        if found and found[2] in PIP_TO_UV:
            name = PIP_TO_UV[found[2]]
            if found[1].startswith(":env:") or name not in variables:
                variables[name] = found[3]
    return variables


def run(command: list[str], explain: str, **options: object) -> None:
    """Run a command, its output on the terminal; SetupError(explain) when it fails."""
    if subprocess.run(command, check=False, **options).returncode != 0:  # type: ignore[call-overload]
        raise SetupError(explain)


def is_usable(venv: Path) -> bool:
    """Whether the environment's Python starts and is new enough (the system's may have been replaced)."""
    check = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.run([venv / "bin" / "python", "-c", check], check=False).returncode == 0
    except OSError:
        return False


def make_venv(venv: Path) -> None:
    print(f"Making {venv} with Python {sys.version.split()[0]}", flush=True)
    if venv.exists():
        shutil.rmtree(venv)
    run(
        [sys.executable, "-m", "venv", str(venv)],
        "Python came without its venv module; on Debian or Ubuntu: sudo apt install python3-venv",
    )


def install(venv: Path, requirements: Path) -> None:
    """Bring everything in ``requirements`` into the environment, checked against its hashes and compiled."""
    python = venv / "bin" / "python"
    text = requirements.read_text()
    if not (venv / "bin" / "uv").exists():
        only_uv = venv / "uv.txt"
        only_uv.write_text(locked_block(text, "uv"))
        run(
            [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", "-r", str(only_uv)],
            "uv could not be installed; is the network up? (pip said why above)",
            # A constraints file in pip's settings may ask for another version than the lock.
            env={**os.environ, "PIP_CONSTRAINT": str(only_uv)},
        )  # fmt: skip
    listing = subprocess.run(
        [str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    environment = {**pip_settings(listing), **os.environ}
    print(f"Installing {requirements.name}", flush=True)
    run(
        [str(venv / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(python),
         "--require-hashes", "--compile-bytecode", "-r", str(requirements)],
        f"{requirements.name} could not be installed; uv said why above.",
        env=environment,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    if sys.version_info < OLDEST:
        print(
            f"Pilothouse needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
            "Name another with: make PYTHON=python3.12 run",
            file=sys.stderr,
        )
        return 1
    venv, requirements = Path(arguments[0]).absolute(), Path(arguments[1])
    stamp = venv / "installed.json"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    try:
        installed = json.loads(stamp.read_text()) if stamp.exists() else {}
        usable = is_usable(venv)
        if usable and installed.get(requirements.name) == wanted:
            return 0
        if not usable:
            make_venv(venv)
            installed = {}
        install(venv, requirements)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    stamp.write_text(json.dumps({**installed, requirements.name: wanted}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
