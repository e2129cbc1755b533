"""A Prometheus for the tests: found on the machine, or unpacked from its Debian package."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import yaml

from tests.support.stack import eventually

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "prometheus"
PROGRAM = FOLDER / "usr" / "bin" / "prometheus"


class NoPrometheusError(RuntimeError):
    """There is no Prometheus and none could be had."""


def find() -> str | None:
    """$PROMETHEUS, one on the machine, or the one that was unpacked here."""
    return os.environ.get("PROMETHEUS") or shutil.which("prometheus") or (str(PROGRAM) if PROGRAM.exists() else None)


def find_or_unpack() -> str:
    """The path of a Prometheus. The Debian package is unpacked only, not installed: nothing starts by itself."""
    program = find()
    if program is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        program = _unpack() or (_update() and _unpack()) or None
    if program is None:
        raise NoPrometheusError(
            "The tests of metrics need a Prometheus and none could be had. Install it (Debian and Ubuntu: prometheus), "
            "or set PROMETHEUS to its program."
        )
    return program


@contextmanager
def running(jobs: list[dict[str, object]], folder: Path) -> Iterator[str]:
    """A Prometheus that reads these jobs (``scrape_configs``) every second; gives its address."""
    program = find()
    assert program, "No Prometheus; `make test` brings one, or set PROMETHEUS to its program."
    configuration = folder / "prometheus.yml"
    interval = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    configuration.write_text(yaml.safe_dump({"global": interval, "scrape_configs": jobs}))
    output = folder / "prometheus.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [
                program, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0", "--log.level=info",
            ],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        port = eventually(lambda: _port(process, output), "Prometheus to listen")
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _ready(url), "Prometheus to be ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _port(process: subprocess.Popen[bytes], output: Path) -> int | None:
    """The port that the process took: it logs only the one that it was asked for."""
    assert process.poll() is None, f"Prometheus has ended: {output.read_text(errors='replace')[-2000:]}"
    found = psutil.Process(process.pid).net_connections("tcp")
    return next((one.laddr.port for one in found if one.status == psutil.CONN_LISTEN), None)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _unpack() -> str | None:
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        if not _run(["apt-get", "download", "-qq", "prometheus"], folder):
            return None
        package = next(Path(folder).glob("prometheus_*.deb"), None)
        if package is None or not _run(["dpkg-deb", "-x", str(package), str(FOLDER)], folder):
            return None
    return str(PROGRAM) if PROGRAM.exists() else None


def _update() -> bool:
    return os.geteuid() == 0 and _run(["apt-get", "update", "-qq"], "/")


def _run(command: list[str], folder: str) -> bool:
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        print("".join(f"  {line}\n" for line in done.stderr.splitlines()[-5:]), end="", flush=True)
    return done.returncode == 0
