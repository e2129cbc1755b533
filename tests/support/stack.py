"""The whole platform as a process, for browser and fault tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
# What the test session set for itself is not for the platform under test.
OWN_VARIABLES = ("DATABASE_URL", "REDIS_URL", "KUBECONFIG", "DJANGO_SETTINGS_MODULE", "PILOTHOUSE_", "PORT")
START_SECONDS = 180.0
READY = "Pilothouse is ready"


class StackError(AssertionError):
    """The platform did not come up, go down or do what was waited for; the message ends with its output."""


def eventually(condition: Callable[[], Any], what: str, *, seconds: float = 60, pause: float = 0.1) -> Any:
    """The first true result of ``condition``. Generous on purpose: it guards against hanging, measures nothing."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise StackError(f"Waited {seconds:.0f} s in vain: {what}")
        time.sleep(pause)


class RunningStack:
    """``python -m devstack run`` in a folder of its own. Start it again after `stop` or `kill` with `start`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)},
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            **environment,
        }
        self._output = folder / "output.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RunningStack":
        """Return when the platform says that it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "devstack", "run", "--dir", str(self.folder), "--port", "0", "--no-seed"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: READY in self.output() or self._ended(), "the platform", seconds=START_SECONDS)
        except StackError as error:
            self.stop()
            raise StackError(f"{error}\n{self.output()}") from None
        if self._ended():
            raise StackError(f"The platform did not start.\n{self.output()}")
        return self

    def stop(self) -> int:
        """SIGTERM; the exit status. Nothing that the platform started may still run afterwards."""
        if self.process is None:
            return 0
        children = self.descendants()
        self.process.terminate()
        status = self.process.wait(120)
        self.process = None
        left = [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        if left:
            raise StackError(f"Still running after the stop: {left}")
        return status

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process by its name in dev.json ("supervisor" included); its pid."""
        pid: int = self.dev()["pids"][name]
        os.kill(pid, number)
        if name == "supervisor" and self.process is not None:
            self.process.wait()
            self.process = None
        return pid

    def wait_restarted(self, name: str, old_pid: int) -> int:
        """The pid of the process that took the place of ``old_pid``."""

        def new_pid() -> int | None:
            pid: int | None = self.dev()["pids"].get(name)
            return pid if pid not in (None, old_pid) else None

        pid: int = eventually(new_pid, f"{name} to be started again")
        return pid

    @contextmanager
    def down(self, name: str) -> Iterator[None]:
        """The process is killed and stays away for the block: the supervisor, which brings it back, stands still."""
        supervisor: int = self.dev()["pids"]["supervisor"]
        os.kill(supervisor, signal.SIGSTOP)
        try:
            old = self.kill(name)
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)
        self.wait_restarted(name, old)

    def dev(self) -> dict[str, Any]:
        """The content of dev.json."""
        content: dict[str, Any] = json.loads((self.folder / "dev.json").read_text())
        return content

    @property
    def url(self) -> str:
        return str(self.dev()["url"])

    def api(self, **options: Any) -> httpx.Client:
        """A client of the REST API as the admin; close it after use."""
        dev = self.dev()
        return httpx.Client(
            base_url=f"{dev['url']}/api/v1",
            headers={"Authorization": f"Token {dev['api_token']}"},
            timeout=60,
            trust_env=False,
            **options,
        )

    def output(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def descendants(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None
