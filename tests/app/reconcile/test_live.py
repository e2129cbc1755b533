"""Everything together on a cluster: the watcher wakes, lines arrive, logs are found, no request fails in a rollout."""

import asyncio
import io
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from django.db import connections
from pytest_django import Settings

from accounts.models import User
from deployments import background
from deployments.models import DeploymentVersion, Request, Rollout
from deployments.services import requests, revisions, routing
from deployments.services.threads import in_thread
from deployments.tasks import reconciling
from kube.connect import Cluster
from monitoring import watching
from monitoring.followers import hub
from monitoring.logs import query_logs
from tests.app import factories
from tests.app.reconcile.conftest import newest, roll
from tests.support.s3 import store

TALKATIVE = """
import time
class Deployment:
    def __init__(self, base_directory, context):
        print("revision {number} is up", flush=True)
    def request(self, data):
        print("asked", data, flush=True)
        time.sleep(0.05)
        return {number}
"""

STREAMING = """
class Deployment:
    def request(self, data, context):
        if not data["word"]:
            raise ValueError("a word is needed")
        for word in data["word"].split():
            context["streaming_update"](word)
        return data["word"].upper()
"""


def upload(actor: User, version: DeploymentVersion, number: int) -> None:
    content = factories.package({"deployment.py": TALKATIVE.format(number=number)})
    revisions.upload_package(actor, version, io.BytesIO(content), file_name="package.zip")


@pytest.fixture
def watcher(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The watcher, with each wake-up made a pass at once, in place of a worker."""

    def wake(key: uuid.UUID | str, **_: object) -> bool:
        try:
            reconciling.reconcile(uuid.UUID(str(key)))
        finally:
            connections.close_all()  # of the watcher's thread
        return True

    monkeypatch.setattr(watching.triggers, "wake", wake)
    found = watching.Watcher(cluster)
    found.start()
    yield
    found.stop()


def test_changes_in_the_cluster_alone_carry_a_rollout_to_its_end(
    watcher: None, cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    upload(editor, version, 1)
    reconciling.reconcile(version.pk)
    deadline = time.monotonic() + 90
    while newest(version).state == Rollout.State.IN_PROGRESS:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert newest(version).state == Rollout.State.COMPLETE


def test_rolling_under_constant_load_fails_no_request(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    upload(editor, version, 0)
    roll(version)
    asked = DeploymentVersion.objects.select_related("deployment__project", "target_revision").get(pk=version.pk)
    over = threading.Event()
    answers: Counter[object] = Counter()

    async def one() -> None:
        while not over.is_set():
            row = await requests.direct_request(editor, asked, {}, 30)
            answers[row.result if row.status == Request.Status.COMPLETED else row.error_message] += 1

    async def load() -> None:
        try:
            await asyncio.gather(*(one() for _ in range(4)))
        finally:
            await routing.close()

    running = background.submit(load())
    try:
        for number in (1, 2):
            upload(editor, version, number)
            assert roll(version).state == Rollout.State.COMPLETE
            before = answers[number]
            deadline = time.monotonic() + 30
            while answers[number] == before:
                assert not running.done(), running.exception()
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        over.set()
    running.result(60)
    assert set(answers) == {0, 1, 2}


def test_requests_reach_instances_through_the_api_server(
    cluster: Cluster, editor: User, version: DeploymentVersion, settings: Settings
) -> None:
    """As from outside of a cluster: answers, parts of a stream and failures come back as they do without the detour."""
    settings.PILOTHOUSE_ROUTE = "apiserver"
    revisions.upload_package(
        editor, version, io.BytesIO(factories.package({"deployment.py": STREAMING})), file_name="package.zip"
    )
    assert roll(version).state == Rollout.State.COMPLETE
    asked = DeploymentVersion.objects.select_related("deployment__project", "target_revision").get(pk=version.pk)

    async def ask() -> tuple[Request, list[str], Request]:
        try:
            row = await requests.direct_request(editor, asked, {"word": "plain"}, 30)
            parts = [
                part.text
                async for part in requests.stream_request(editor, asked, {"word": "a b c"}, 30)
                if isinstance(part, requests.Part)
            ]
            return row, parts, await requests.direct_request(editor, asked, {"word": ""}, 30)
        finally:
            await routing.close()

    row, parts, failed = background.run(ask(), timeout=90)
    assert (row.status, row.result) == (Request.Status.COMPLETED, "PLAIN")
    assert parts == ["a", "b", "c"]
    assert (failed.status, failed.error_message) == (Request.Status.FAILED, "ValueError: a word is needed")


def test_packages_come_from_an_object_store(
    cluster: Cluster, editor: User, version: DeploymentVersion, settings: Settings
) -> None:
    with store() as bucket:
        settings.STORAGES = {**settings.STORAGES, "default": bucket.storage()}
        upload(editor, version, 3)
        assert len(bucket.objects()) == 1
        assert roll(version).state == Rollout.State.COMPLETE
        asked = DeploymentVersion.objects.select_related("deployment__project", "target_revision").get(pk=version.pk)

        async def ask() -> Request:
            try:
                return await requests.direct_request(editor, asked, {}, 30)
            finally:
                await routing.close()

        assert background.run(ask(), timeout=60).result == 3


def test_lines_are_followed_and_found(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    upload(editor, version, 7)
    roll(version)

    async def follow() -> list[str]:
        subscription = hub().subscribe(version.pk)
        found = DeploymentVersion.objects.select_related("deployment__project", "target_revision")
        row = await in_thread(lambda: found.get(pk=version.pk))
        await requests.direct_request(editor, row, {"word": "hello"}, 30)
        seen: list[str] = []
        async with asyncio.timeout(30):
            while not any("hello" in text for text in seen):
                await subscription.filled.wait()
                if batch := subscription.take()[0]:
                    seen += [line.text for line in batch.lines]
        await hub().close()
        await routing.close()
        return seen

    seen = background.run(follow(), timeout=60)
    assert "revision 7 is up" in seen

    name = version.deployment.name
    project = version.deployment.project
    entries = query_logs(project, f"| deployment_name=`{name}` and deployment_version=`v1`")
    assert "revision 7 is up" in [entry.text for entry in entries]
    assert [entry.timestamp for entry in entries] == sorted(entry.timestamp for entry in entries)
    (found,) = query_logs(project, '{deployment_name=~".+"} |= "asked" |~ "hel+o"')
    assert found.labels["deployment_version"] == "v1"
    assert found.labels["instance_id"] == str(version.instances.get(deleted_at=None).pk)
    assert query_logs(project, '|= "asked"', start=found.timestamp + 1) == []
    assert query_logs(project, '|= "asked"', end=found.timestamp) == []
    assert query_logs(factories.project(), '|= "asked"') == []
    # The build of the environment is part of the story.
    assert [entry for entry in entries if entry.labels.get("environment_build_id")]
