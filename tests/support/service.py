"""A deployment on a running platform, driven through the public API as any client would."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx

from tests.support.stack import RunningStack, StackError, eventually

KUBECTL = Path(sys.executable).with_name("kubectl")
VERSION = "v1"
VERSION_LABEL = "pilothouse.io/version-id"
REVISION_LABEL = "pilothouse.io/revision-id"
ROLLOUT_SECONDS = 180.0


def package(code: str, requirements: str = "") -> bytes:
    """A deployment package with one file of code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("deployment.py", code)
        if requirements:
            archive.writestr("requirements.txt", requirements)
    return buffer.getvalue()


def ensure_project(stack: RunningStack, name: str) -> None:
    """A project in the installation's first organization."""
    with stack.api() as api:
        if api.get(f"/projects/{name}").status_code == 404:
            organization = api.get("/organizations").raise_for_status().json()[0]["name"]
            answer = api.post("/projects", json={"name": name, "organization_name": organization})
            assert answer.status_code == 201, answer.text


class Service:
    """One deployment with one version that keeps one instance running."""

    def __init__(self, stack: RunningStack, name: str, *, project: str = "faults", **settings: Any) -> None:
        ensure_project(stack, project)
        self._stack = stack
        self._path = f"/projects/{project}/deployments/{name}"
        with stack.api() as api:
            made = api.post(
                f"/projects/{project}/deployments",
                json={
                    "name": name,
                    "input_type": "structured",
                    "output_type": "structured",
                    "input_fields": [{"name": "seconds", "data_type": "double"}],
                    "output_fields": [{"name": "answer", "data_type": "int"}],
                },
            )
            assert made.status_code == 201, made.text
            version = api.post(
                f"{self._path}/versions",
                json={"version": VERSION, "minimum_instances": 1, "maximum_instances": 2, **settings},
            )
            assert version.status_code == 201, version.text
            self.version_id: str = version.json()["id"]

    def upload(self, code: str, requirements: str = "") -> str:
        """The id of the new revision, whose rollout begins at once."""
        with self._stack.api() as api:
            answer = api.post(
                f"{self._path}/versions/{VERSION}/revisions",
                files={"file": ("package.zip", package(code, requirements), "application/zip")},
            )
        assert answer.status_code == 201, answer.text
        revision: str = answer.json()["revision"]
        return revision

    def rollouts(self) -> list[dict[str, Any]]:
        """Newest first; empty while the platform cannot be asked."""
        try:
            with self._stack.api() as api:
                answer = api.get(f"{self._path}/versions/{VERSION}/rollouts")
        except httpx.TransportError:
            return []
        found: list[dict[str, Any]] = answer.json()["results"] if answer.status_code == 200 else []
        return found

    def wait_rollout(self, revision: str, *states: str) -> dict[str, Any]:
        """The rollout to ``revision`` once it is in one of ``states``."""

        def reached() -> dict[str, Any] | None:
            of_revision = [rollout for rollout in self.rollouts() if rollout["to_revision"] == revision]
            return next((rollout for rollout in of_revision if rollout["state"] in states), None)

        what = f"rollout {' or '.join(states)}"
        try:
            rollout: dict[str, Any] = eventually(reached, what, seconds=ROLLOUT_SECONDS, pause=0.2)
        except StackError as error:
            raise StackError(f"{error}; it is {self.rollouts()[:1]}") from None
        return rollout

    def wait_step(self, revision: str, step: str) -> None:
        """Return once the rollout to ``revision`` has passed ``step`` (such as ``starting_at``) and is under way."""

        def passed() -> bool:
            return any(r["to_revision"] == revision and r[step] for r in self.rollouts())

        eventually(passed, f"{step} of the rollout", seconds=ROLLOUT_SECONDS, pause=0.1)

    def request(self, client: httpx.Client, seconds: float = 0) -> httpx.Response:
        return client.post(f"{self._path}/requests", json={"seconds": seconds})

    def answer(self) -> int:
        with self._stack.api() as api:
            response = self.request(api)
        assert response.status_code == 200, response.text
        value: int = response.json()["result"]["answer"]
        return value

    def queue(self, count: int, seconds: float) -> list[str]:
        """The ids of so many batch requests."""
        with self._stack.api() as api:
            answer = api.post(f"{self._path}/requests/batch", json=[{"seconds": seconds}] * count)
        assert answer.status_code == 201, answer.text
        return [row["id"] for row in answer.json()]

    def get_request(self, request_id: str) -> dict[str, Any]:
        with self._stack.api() as api:
            row: dict[str, Any] = api.get(f"{self._path}/requests/{request_id}").raise_for_status().json()
        return row

    def in_cluster(self, kind: str) -> list[dict[str, Any]]:
        """What the cluster holds for this version, without what is on its way out."""
        done = subprocess.run(
            [KUBECTL, "--kubeconfig", self._stack.dev()["kubeconfig"], "get", kind, "--all-namespaces",
             "--selector", f"{VERSION_LABEL}={self.version_id}", "--output", "json"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def assert_whole(self, revision: str) -> None:
        """The rollout to ``revision`` is complete, once, and nothing is double or half made."""
        rollouts = [rollout for rollout in self.rollouts() if rollout["to_revision"] == revision]
        assert [rollout["state"] for rollout in rollouts] == ["complete"]
        assert [rollout for rollout in self.rollouts() if rollout["state"] == "in_progress"] == []
        assert len(self.in_cluster("deployments")) == 1

        def settled() -> bool:
            pods = self.in_cluster("pods")
            return [pod["metadata"]["labels"][REVISION_LABEL] for pod in pods] == [revision]

        eventually(settled, "one pod, of the new revision")
