"""Runs builds and servers as pods do: with a clean environment and nothing of ours on the path."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

DEADLINE = 60.0
# Not the virtual environment's: a pod's image has a Python of its own.
BASE_PYTHON = sys.base_prefix + "/bin/python3"


class BuildFailed(AssertionError):
    """A build that a test needs did not succeed; the text is its log."""


def clean_environment(**variables: str) -> dict[str, str]:
    """What a container sees: a path, a home of its own, and what the pod declares."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8", **variables}


def build(
    folder: Path,
    key: str,
    files: dict[str, bytes],
    python: str = BASE_PYTHON,
    arguments: tuple[str, ...] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run build.py as its pod does. The package cache is this machine's, so that only the first run downloads."""
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
    with tempfile.TemporaryDirectory() as mounted:
        for name, content in files.items():
            (Path(mounted) / name).write_bytes(content)
        environ = clean_environment(
            PILOTHOUSE_ENV_HASH=key, PILOTHOUSE_ENVIRONMENTS_DIR=str(folder), UV_CACHE_DIR=cache
        )
        # The settings that point to this machine's index, as a cluster's images have them.
        environ |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_CERT"))}
        return subprocess.run(
            [python, f"{mounted}/build.py", *arguments],
            env=environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process on a port of its own; its output goes to a file."""

    def __init__(self, env: Path, package: Path, **variables: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        descriptor, self._log_path = tempfile.mkstemp(prefix="serving-", suffix=".log")
        environ = clean_environment(
            PILOTHOUSE_PACKAGE_DIR=str(package),
            PILOTHOUSE_PORT=str(self.port),
            PILOTHOUSE_DEPLOYMENT="demo",
            PILOTHOUSE_VERSION="v1",
            PILOTHOUSE_DRAIN_SECONDS="0",
            HOME="/nonexistent",
            **{"POD_IP": "127.0.0.1"},
        )
        self.process = subprocess.Popen(
            [str(env / "bin" / "python"), "-m", "pilothouse_serving"],
            env=environ | variables,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(descriptor)
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.unlink(self._log_path)

    @property
    def log(self) -> str:
        return Path(self._log_path).read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of the log with this event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith('{"time"')]
        return [line for line in lines if line["event"] == name]

    def wait_ready(self) -> None:
        self.wait_for(lambda: self.status("/v2/health/ready") == 200)

    def wait_for(self, condition: Any) -> None:
        """Wait until `condition` holds; fails with the log when the server ends or the deadline passes."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def wait_exit(self) -> int:
        return self.process.wait(DEADLINE)

    def status(self, path: str) -> int:
        """The status of a GET; 0 when nothing answers."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def post(self, path: str, body: Any, **arguments: Any) -> httpx.Response:
        return self.client.post(path, json=body, **arguments)

    def request(self, data: Any) -> Any:
        """The result of one request, which must succeed."""
        answer = self.post("/request", data)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def stream(self, data: Any) -> list[tuple[str, str]]:
        """(event, data) of a streamed request."""
        return list(self.iter_stream(data))

    def iter_stream(self, data: Any) -> Any:
        with self.client.stream("POST", "/request", json=data, headers={"Accept": "text/event-stream"}) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            event, lines = "message", []
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    lines.append(line[6:])
                elif not line and lines:
                    yield event, "\n".join(lines)
                    event, lines = "message", []
