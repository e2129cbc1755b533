"""Builds one environment. Runs alone, as a file, with the standard library of the base runtime only.

It stands in a pod of its own beside ``serving.tar.gz`` and, where the user gave them, ``requirements.txt``
(Python), ``renv.lock`` or ``install_packages.R`` (R), and makes ``$PILOTHOUSE_ENVIRONMENTS_DIR/<hash>``: a
virtual environment at its final path with the user's requirements, the server and bytecode. ``.complete`` is
written last; a directory without it is half made and is made again. The folder of environments is one of the trees
of a volume: nobody else's builds write there, and what is in the tree ``shared`` beside it can only be read.

Exit codes: 0 built or already there, 1 the requirements are at fault, 2 wrong use, 75 worth another try
(a package index did not answer). The log ends with the resolver's own message.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Dict, Iterator

EXIT_REQUIREMENTS, EXIT_USAGE, EXIT_RETRY = 1, 2, 75
COMPLETE, SHARED = ".complete", "shared"
Environ = Dict[str, str]

# How pip's settings are called by uv. uv reads no pip.conf, and a pod has a clean environment.
_PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}
_NETWORK = re.compile(
    r"error sending request|dns error|connection (refused|reset)|timed? ?out|Failed to fetch|network is unreachable"
    r"|50[0-9] (Bad|Service|Gateway)",
    re.IGNORECASE,
)
_NAME = re.compile(r"^[0-9a-z][0-9a-z._-]{0,127}$")
_ERROR_STARTS = ("error", "  \u00d7", "\u00d7 ", "warning: Failed")


class BuildError(Exception):
    """A build that cannot go on: `code` is the exit code, the text is what the user reads last."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


def main(arguments: list[str] | None = None) -> int:
    """Build by arguments or environment variables; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build a Pilothouse environment.")
    parser.add_argument("--hash", default=os.environ.get("PILOTHOUSE_ENV_HASH"))
    parser.add_argument("--environments", default=os.environ.get("PILOTHOUSE_ENVIRONMENTS_DIR"))
    parser.add_argument("--files", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--prepare", metavar="TREE", help="make this folder of environments, and get uv for all trees")
    names = os.environ.get("PILOTHOUSE_ENV_REMOVE", "").split()
    parser.add_argument("--remove", nargs="+", metavar="HASH", default=names, help="remove these environments instead")
    parser.add_argument("--keep-cache", action="store_true", help="leave packages that none has any more, run nothing")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.umask(0o022)
    try:
        if not options.environments:
            raise BuildError(EXIT_USAGE, "PILOTHOUSE_ENVIRONMENTS_DIR is not set.")
        for name in [options.prepare] if options.prepare else options.remove or [options.hash or ""]:
            if not _NAME.match(name):
                raise BuildError(EXIT_USAGE, "PILOTHOUSE_ENV_HASH is not set or not a name.")
        if options.prepare:
            return prepare(Path(options.environments), options.prepare)
        if options.remove:
            return clean(Path(options.environments), options.remove, options.keep_cache)
        build(Path(options.environments), options.hash, Path(options.files))
    except BuildError as error:
        say(f"Build failed: {error}")
        if error.details:
            print(error.details.rstrip(), flush=True)
        return error.code
    except OSError as error:
        # A full disk or a volume without write permission: not the user's fault, and it may pass.
        say(f"Build failed: {error.strerror or error}: {error.filename or options.environments}")
        return EXIT_RETRY
    return 0


def prepare(volume: Path, tree: str) -> int:
    """Make a tree of the volume, and see to uv in the shared one, so that no tree needs one of its own."""
    for name in {SHARED, tree}:
        (volume / name).mkdir(parents=True, exist_ok=True)
    find_uv(volume / SHARED, uv_environment(volume / SHARED))
    return 0


def build(environments: Path, key: str, files: Path) -> Path:
    """Make ``environments/key`` unless it is there and runs; returns its path. One builder at a time per key."""
    target = environments / key
    environments.mkdir(parents=True, exist_ok=True)
    with lock(environments, "cache", shared=True), lock(environments, key):
        if is_complete(target):
            say("This environment is already built.")
            return target
        if target.exists():
            say("Removing what an interrupted build left.")
            remove(target)
        try:
            make(target, files, uv_environment(environments))
        except BaseException:
            remove(target)
            raise
    return target


def clean(environments: Path, keys: list[str], keep_cache: bool = False) -> int:
    """Remove environments, then packages in the cache that none has any more; returns the exit code."""
    failed = False
    for key in keys:
        with lock(environments, key):
            remove(environments / key)
        if (environments / key).exists():
            say(f"{key} cannot be removed.")
            failed = True
        else:
            say(f"Removed {key}")
    if keep_cache:
        return EXIT_RETRY if failed else 0
    try:
        with lock(environments, "cache", wait=False):
            count = shrink(environments)
        say(f"Removed {count} packages from the cache")
    except BlockingIOError:
        say("Builds are using the cache, so it stays as it is.")
    return EXIT_RETRY if failed else 0


def shrink(environments: Path) -> int:
    """Have uv forget the packages in its cache that no environment links to; how many."""
    cache = environments / ".cache" / "uv"
    names: set[str] = set()
    for package in cache.glob("archive-v*/*"):
        paths = (path for path in package.rglob("*") if path.is_file() and not path.is_symlink())
        if not any(path.stat().st_nlink > 1 for path in paths):
            names.update(info.name.split("-")[0] for info in package.glob("*.dist-info"))
    if names:
        environ = uv_environment(environments)
        # Not by hand: what points to a package goes with it.
        run([find_uv(environments, environ), "cache", "clean", *sorted(names)], dict(environ, UV_CACHE_DIR=str(cache)))
    return len(names)


def make(target: Path, files: Path, environ: Environ) -> None:
    """All steps of a build, in order, into an absent `target`."""
    started = time.monotonic()
    archive = files / "serving.tar.gz"
    if not archive.is_file():
        raise BuildError(EXIT_USAGE, f"{archive} is missing: it holds the server.")
    uv = find_uv(target.parent, environ)
    version = "{}.{}.{}".format(*sys.version_info[:3])
    say(f"Making a virtual environment with Python {version}")
    run([uv, "venv", "--quiet", "--python", sys.executable, str(target)], environ)
    python = str(target / "bin" / "python")
    site_packages = unpack_server(archive, python)

    wanted = files / "requirements.txt"
    sources = ["--requirements", str(site_packages / "pilothouse_serving" / "requirements.txt")]
    if wanted.is_file() and wanted.read_text(encoding="utf-8").strip():
        say("Installing requirements.txt and the server's own requirements")
        sources = ["--requirements", str(wanted), *sources]
    else:
        say("Installing the server's own requirements")
    install = [uv, "pip", "install", "--python", python, *sources]
    run(install, environ, "The requirements cannot be installed.")

    say("Compiling the server")
    run([python, "-m", "compileall", "-q", str(site_packages / "pilothouse_serving")], environ)
    run(
        [python, "-c", "import pilothouse_serving.app, uvicorn"],
        environ,
        "The server cannot run beside these requirements: one of them shadows or breaks what it imports.",
    )
    install_r_packages(files, target, environ)
    frozen = subprocess.run(
        [uv, "pip", "freeze", "--python", python], env=environ, capture_output=True, text=True, check=False
    )
    (target / "packages.txt").write_text(frozen.stdout, encoding="utf-8")
    finish(target, version)
    say(f"Environment ready after {time.monotonic() - started:.1f} s, {frozen.stdout.count(chr(10))} packages")


def unpack_server(archive: Path, python: str) -> Path:
    """Put ``pilothouse_serving`` into the site-packages of `python`; returns that directory."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(subprocess.check_output([python, "-c", ask], text=True).strip())
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            parts = Path(member.name).parts
            if not member.isfile() or ".." in parts or parts[0] != "pilothouse_serving":
                raise BuildError(EXIT_USAGE, f"{archive.name} holds '{member.name}', which is not the server's.")
            content = packed.extractfile(member)
            assert content is not None
            path = site_packages.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    return site_packages


def install_r_packages(files: Path, target: Path, environ: Environ) -> None:
    """Install what ``renv.lock`` or ``install_packages.R`` names into ``<target>/r-library``."""
    lock_file, script = files / "renv.lock", files / "install_packages.R"
    if not lock_file.is_file() and not script.is_file():
        return
    rscript = shutil.which("Rscript", path=environ.get("PATH"))
    if rscript is None:
        raise BuildError(EXIT_USAGE, "Rscript is not in this runtime, so R packages cannot be installed.")
    library = target / "r-library"
    library.mkdir()
    if lock_file.is_file():
        say("Installing renv.lock")
        helper = next(target.glob("lib/python*/site-packages/pilothouse_serving/r/restore.R"))
        command = [rscript, "--vanilla", str(helper), str(lock_file)]
    else:
        say("Running install_packages.R")
        command = [rscript, "--vanilla", str(script)]
    run(command, dict(environ, R_LIBS=str(library), R_LIBS_USER=str(library)), "The R packages cannot be installed.")


def finish(target: Path, version: str) -> None:
    """Write ``.complete`` in one step, so that it is there whole or not at all."""
    partial = target / (COMPLETE + ".part")
    facts = {"python": version, "base": sys.base_prefix, "built_at": int(time.time())}
    with open(partial, "w", encoding="utf-8") as stream:
        json.dump(facts, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, target / COMPLETE)


def is_complete(target: Path) -> bool:
    """Whether the environment was finished and its interpreter still runs (the base may have moved since)."""
    if not (target / COMPLETE).is_file():
        return False
    command = [str(target / "bin" / "python"), "-c", "import pilothouse_serving"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextlib.contextmanager
def lock(environments: Path, key: str, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock of `key`. The kernel gives it back when a builder dies, so it is never stale.

    Raises BlockingIOError where it is held and not waited for.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    folder = environments / ".locks"
    folder.mkdir(exist_ok=True)
    with open(folder / key, "a+b") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            say("Another pod works on the same; waiting for it.")
            fcntl.flock(stream, kind)
        yield


def remove(target: Path) -> None:
    """Remove a directory; ``.complete`` goes first so that a half-removed one is never taken for whole."""
    with contextlib.suppress(FileNotFoundError):
        (target / COMPLETE).unlink()
    shutil.rmtree(target, ignore_errors=True)


def find_uv(environments: Path, environ: Environ) -> str:
    """uv as `UV` says, from PATH, of the shared tree, or installed by pip into a folder of tools of its own."""
    given = environ.get("UV")
    if given:
        if not os.access(given, os.X_OK):
            raise BuildError(EXIT_USAGE, f"UV names '{given}', which cannot be run.")
        return given
    found = shutil.which("uv", path=environ.get("PATH"))
    if found:
        return found
    tools = environments / ".tools" / "python{}.{}".format(*sys.version_info[:2])
    uv = tools / "bin" / "uv"
    shared = environments.parent / SHARED / uv.relative_to(environments)
    if environments.name != SHARED and shared.is_file():
        return str(shared)
    with lock(environments, "tools-" + tools.name):
        if not uv.is_file():
            say("Installing uv")
            remove(tools)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools), "uv"]
            if importlib.util.find_spec("pip") is None:
                # Debian's Python comes without; a virtual environment brings its own.
                run([sys.executable, "-m", "venv", str(tools)], environ)
                pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"]
            run(pip, environ, "uv, the installer, cannot be installed.")
    return str(uv)


def uv_environment(environments: Path) -> Environ:
    """The environment for uv: ours, pip's settings under uv's names, and the cache of the same tree.

    One mount for cache and environments means that packages are hard links, not copies.
    """
    environ = dict(os.environ)
    for option, value in pip_settings(environ).items():
        name, separator = _PIP_TO_UV.get(option, ("", ""))
        if name and name not in environ and value.strip():
            environ[name] = separator.join(value.split())
    if "UV_INDEX" in environ and "UV_INDEX" not in os.environ:
        # To pip all its indexes are equal, and whoever wrote its settings counted on that.
        environ.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "UV_DEFAULT_INDEX" not in environ and "UV_INDEX_URL" in environ:
        environ["UV_DEFAULT_INDEX"] = environ["UV_INDEX_URL"]
    environ.setdefault("UV_CACHE_DIR", str(environments / ".cache" / "uv"))
    environ.setdefault("HOME", str(environments / ".cache"))
    # Imports of a compiled environment take a third of the time, at every start of every instance.
    environ.setdefault("UV_COMPILE_BYTECODE", "1")
    environ.update(UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    return {name: value for name, value in environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}


def pip_settings(environ: Environ) -> Environ:
    """pip's settings by option name, the later source winning: site, user, `PIP_CONFIG_FILE`, `PIP_*`."""
    home = environ.get("HOME", "/nonexistent")
    files = [
        os.path.join(folder, "pip", "pip.conf") for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    ]
    files += ["/etc/pip.conf", os.path.join(home, ".pip", "pip.conf")]
    files += [os.path.join(environ.get("XDG_CONFIG_HOME", os.path.join(home, ".config")), "pip", "pip.conf")]
    files += [os.path.join(sys.prefix, "pip.conf"), environ.get("PIP_CONFIG_FILE", "")]
    settings: Environ = {}
    for path in filter(None, files):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError) as error:
            say(f"Leaving out {path}: {type(error).__name__}")
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings[name[4:].lower().replace("_", "-")] = value
    return settings


def run(command: list[str], environ: Environ, failure: str = "") -> None:
    """Run a step with its output in the log. Raises `BuildError`; the tool's error is kept for the log's end."""
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines: list[str] = []
    held = False
    try:
        for line in process.stdout:
            lines.append(line)
            held = held or line.startswith(_ERROR_STARTS)
            if not held:
                print(line, end="", flush=True)
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code == 0:
        if held:
            print("".join(lines), end="", flush=True)
        return
    # R's last words say nothing; what went wrong stands before them.
    lines = [line for line in lines if line.strip() != "Execution halted"]
    first = next((index for index, line in enumerate(lines) if line.startswith(_ERROR_STARTS)), max(len(lines) - 40, 0))
    details = "".join(lines[first:])
    if code < 0:
        raise BuildError(EXIT_RETRY, f"{Path(command[0]).name} was ended by signal {-code}.", details)
    if _NETWORK.search(details):
        raise BuildError(EXIT_RETRY, "A package index did not answer.", details)
    raise BuildError(EXIT_REQUIREMENTS, failure or f"{Path(command[0]).name} ended with code {code}.", details)


def say(text: str) -> None:
    """One line of the build log."""
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
