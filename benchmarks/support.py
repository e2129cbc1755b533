"""What benchmarks of the running platform share: the whole platform in a folder of its own, driven over REST."""

import io
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

import httpx

from devstack.services import Services
from tests.support.stack import RunningStack

PROJECT = "bench"

ECHO = """
class Deployment:
    def __init__(self, base_directory, context):
        pass

    def request(self, data):
        return {{"number": {number}, "data": data}}
"""


class Platform:
    """A running platform, its REST API and its cluster."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        known = json.loads((stack.folder / "dev.json").read_text())
        self.pids: dict[str, int] = known["pids"]
        self.kubeconfig: str = known["kubeconfig"]
        self.url: str = known["url"] + "/api/v1"
        self.headers = {"Authorization": f"Token {known['api_token']}"}
        self.http = httpx.Client(base_url=self.url, headers=self.headers, timeout=120)

    def call(self, method: str, path: str, **options: Any) -> Any:
        response = self.http.request(method, path, **options)
        if response.status_code >= 400:
            raise SystemExit(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json() if response.content else None

    def deployment(self, name: str) -> str:
        """A deployment of any objects with one version ``v1``; gives the version's path."""
        organization = self.call("GET", "/organizations")[0]["name"]
        if not any(project["name"] == PROJECT for project in self.call("GET", "/projects")):
            self.call("POST", "/projects", json={"name": PROJECT, "organization_name": organization})
        base = f"/projects/{PROJECT}/deployments"
        self.call("POST", base, json={"name": name, "input_type": "structured", "output_type": "structured"})
        settings = {"version": "v1", "environment": "python3-11", "instance_type": "256mb", "minimum_instances": 1}
        self.call("POST", f"{base}/{name}/versions", json=settings)
        return f"{base}/{name}/versions/v1"

    def upload(self, version: str, number: int) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("deployment.py", ECHO.format(number=number))
        self.call("POST", f"{version}/revisions", files={"file": ("package.zip", buffer.getvalue())})

    def answered_by(self, version: str, number: int, seconds: float = 180) -> None:
        """Return as soon as a direct request is answered by the revision with that number."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            response = self.http.post(f"{version}/requests", json={})
            if response.status_code == 200 and (response.json()["result"] or {}).get("number") == number:
                return
            time.sleep(0.01)
        raise SystemExit(f"revision {number} did not answer within {seconds:.0f} s; logs: {self.stack.folder}/logs")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        program = Path(sys.executable).parent / "kubectl"
        command = [str(program), "--kubeconfig", self.kubeconfig, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def objects(self, kind: str, namespace: str = f"ph-{PROJECT}") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("-n", namespace, "get", kind, "-o", "json"))["items"]
        return found


@contextmanager
def platform() -> Iterator[Platform]:
    """The whole platform for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        Path(folder).chmod(0o755)  # pods drop to another user, who reads environments below
        stack = RunningStack(Path(folder) / "state").start()
        try:
            yield Platform(stack)
        finally:
            stack.stop()


@contextmanager
def django_services(**settings: str) -> Iterator[Path]:
    """PostgreSQL and Valkey with an empty schema, and Django set up in this process; gives the folder of their data.

    Import models inside the block. ``settings`` are further environment variables; ``{folder}`` in one is the folder.
    """
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # pods drop to another user
        planned = Services.plan(folder)
        (folder / "state" / "static").mkdir(parents=True)
        os.environ.update(
            planned.environment(),
            DJANGO_SETTINGS_MODULE="pilothouse.settings",
            PILOTHOUSE_SECRET_KEY=secrets.token_urlsafe(40),
            PILOTHOUSE_STATE_DIR=str(folder / "state"),
            PILOTHOUSE_PLAIN_HTTP="1",
            PILOTHOUSE_LOG_LEVEL="ERROR",
            PYTHONPATH=str(ROOT / "platform"),
            **{key: value.format(folder=folder) for key, value in settings.items()},
        )
        with planned.running():
            import django

            django.setup()
            from django.core.management import call_command

            call_command("migrate", verbosity=0)
            yield folder
