"""A Prometheus for the tests, and a VictoriaMetrics, which finds the pods of a cluster by the same configuration.

Debian's Prometheus is built without the service discovery of Kubernetes; its VictoriaMetrics has it.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.support.debian import Program
from tests.support.stack import eventually

PROMETHEUS = Program("prometheus", "PROMETHEUS", "The tests of metrics need a Prometheus")
VICTORIA_METRICS = Program(
    "victoria-metrics", "VICTORIA_METRICS", "The tests of metrics on a cluster need a VictoriaMetrics"
)
EVERY_SECOND = {"scrape_interval": "1s", "scrape_timeout": "1s"}


@contextmanager
def running(jobs: Sequence[dict[str, Any]], folder: Path) -> Iterator[str]:
    """A Prometheus that reads these jobs (``scrape_configs``) every second; gives its address."""
    options = [f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0", "--log.level=info"]
    with _running(PROMETHEUS, jobs, folder, "--config.file", options, "/-/ready") as url:
        yield url


@contextmanager
def running_victoria_metrics(jobs: Sequence[dict[str, Any]], folder: Path) -> Iterator[str]:
    """The same for a VictoriaMetrics; what it has read it tells at once."""
    options = [
        f"-storageDataPath={folder / 'victoria'}", "-httpListenAddr=127.0.0.1:0", "-search.latencyOffset=0s",
        "-search.disableCache", "-memory.allowedBytes=256MiB", "-promscrape.kubernetesSDCheckInterval=1s",
    ]  # fmt: skip
    with _running(VICTORIA_METRICS, jobs, folder, "-promscrape.config", options, "/health") as url:
        yield url


def ask(url: str, expression: str) -> list[dict[str, Any]]:
    """The series that answer an expression now: ``metric`` (labels) and ``value``."""
    return _data(url, "query", query=expression)["result"]  # type: ignore[no-any-return]


def series(url: str, selector: str) -> list[dict[str, str]]:
    """The labels of the series that there are of a selector."""
    return _data(url, "series", **{"match[]": selector})  # type: ignore[no-any-return]


def targets(url: str, state: str = "active") -> list[dict[str, Any]]:
    """What is read: ``labels``, ``discoveredLabels``, ``scrapeUrl``, ``health``; of ``dropped`` ones what was found."""
    return _data(url, "targets", state=state)[f"{state}Targets"]  # type: ignore[no-any-return]


def _data(url: str, what: str, **parameters: str) -> Any:
    answer = httpx.get(f"{url}/api/v1/{what}", params=parameters, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@contextmanager
def _running(
    program: Program, jobs: Sequence[dict[str, Any]], folder: Path, option: str, options: list[str], health: str
) -> Iterator[str]:
    path = program.find()
    assert path, f"No {program.name}; `make test` brings one, or set {program.variable} to its program."
    configuration = folder / f"{program.name}.yml"
    configuration.write_text(yaml.safe_dump({"global": EVERY_SECOND, "scrape_configs": list(jobs)}))
    output = folder / f"{program.name}.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [path, f"{option}={configuration}", *options], stdout=log, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        port = eventually(lambda: _port(process, output), f"{program.name} to listen")
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _ready(f"{url}{health}"), f"{program.name} to be ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _port(process: subprocess.Popen[bytes], output: Path) -> int | None:
    """The port that the process took: it logs only the one that it was asked for."""
    assert process.poll() is None, f"It has ended: {output.read_text(errors='replace')[-2000:]}"
    found = psutil.Process(process.pid).net_connections("tcp")
    return next((one.laddr.port for one in found if one.status == psutil.CONN_LISTEN), None)


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
