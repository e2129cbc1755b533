"""Queued requests: kept, run when an instance is there, and never lost with a worker."""

import datetime as dt
from typing import Any

import celery.exceptions
import pytest
from aiohttp import web
from django.utils import timezone

from accounts.errors import Conflict, Invalid
from accounts.models import User
from deployments import valkey
from deployments.models import DeploymentVersion, Request
from deployments.services import requests
from deployments.tasks import requests as tasks
from deployments.tasks import sweeping
from tests.app import factories
from tests.app.requests.conftest import Pods, failing, hang_up

Status = Request.Status


def run(row: Request) -> Request:
    tasks.run_request.run(str(row.pk))
    row.refresh_from_db()
    return row


def test_queued_then_done(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    instance = pods.start()
    rows = requests.create_requests(sender, version, [{"n": 1}, {"n": 2}])
    assert {row.status for row in Request.objects.all()} == {Status.PENDING}
    done = run(rows[0])
    assert (done.status, done.result, done.instance, done.attempts) == (Status.COMPLETED, {"n": 1}, instance, 1)
    kept = done.expires_at - timezone.now()
    assert abs(kept - dt.timedelta(seconds=version.request_retention_time)) < dt.timedelta(minutes=1)
    # The same message once more, and one about a row that is gone, change nothing.
    run(rows[0])
    (told,) = pods.seen[instance.address]
    assert (told["x-pilothouse-request-mode"], told["x-pilothouse-user-id"]) == ("batch", str(sender.pk))
    gone = str(rows[1].pk)
    rows[1].delete()
    tasks.run_request.run(gone)


def test_without_an_instance_it_waits_and_comes_again(
    sender: User, version: DeploymentVersion, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PATIENCE_SECONDS", 0.1)
    (row,) = requests.create_requests(sender, version, [{}])
    with pytest.raises(celery.exceptions.Retry):
        run(row)
    row.refresh_from_db()
    assert (row.status, row.attempts, row.time_started) == (Status.PENDING, 0, None)
    pods.start()
    assert run(row).status == Status.COMPLETED


def test_it_does_not_wait_for_ever(sender: User, version: DeploymentVersion) -> None:
    (row,) = requests.create_requests(sender, version, [{}], timeout=5)
    Request.objects.filter(pk=row.pk).update(time_created=timezone.now() - dt.timedelta(seconds=6))
    assert run(row).status == Status.FAILED
    assert "within 5 seconds" in row.error_message


def test_a_failing_function_fails_the_request(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(failing(500, "ValueError", "no"))
    (row,) = requests.create_requests(sender, version, [{}])
    assert run(row).error_message == "ValueError: no"


def test_a_request_that_kills_its_instances_ends(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(hang_up)
    (row,) = requests.create_requests(sender, version, [{}])
    for _ in range(tasks.ATTEMPTS - 1):
        with pytest.raises(celery.exceptions.Retry):
            run(row)
    assert run(row).status == Status.FAILED
    assert "went away" in row.error_message


@pytest.mark.parametrize(
    ("mode", "data", "result"), [("full", {"a": 1}, {"a": 1}), ("metadata", None, None), ("none", None, {"a": 1})]
)
def test_retention(sender: User, version: DeploymentVersion, pods: Pods, mode: str, data: Any, result: Any) -> None:
    pods.start()
    DeploymentVersion.objects.filter(pk=version.pk).update(request_retention_mode=mode)
    (row,) = requests.create_requests(sender, version, [{"a": 1}])
    run(row)
    # A queued request without retention still has its result for whoever asked for it.
    assert (row.request_data, row.result) == (data, result)


def test_an_idle_version_is_woken(sender: User, version: DeploymentVersion) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(desired_instances=0)
    version.refresh_from_db()
    requests.create_requests(sender, version, [{}])
    version.refresh_from_db()
    assert version.desired_instances == 1


def test_bounds(sender: User, version: DeploymentVersion) -> None:
    with pytest.raises(Invalid):
        requests.create_requests(sender, version, [])
    with pytest.raises(Invalid):
        requests.create_requests(sender, version, [{}] * (requests.MOST_AT_ONCE + 1))
    version.maximum_queue_size = 2
    with pytest.raises(Conflict, match="at most 2"):
        requests.create_requests(sender, version, [{}] * 3)
    assert not Request.objects.exists()


def test_one_bad_item_queues_none(sender: User, version: DeploymentVersion) -> None:
    with pytest.raises(Invalid):
        requests.create_requests(sender, version, [{}, "text"])
    assert not Request.objects.exists()


def processing(version: DeploymentVersion, **fields: Any) -> Request:
    started = timezone.now() - dt.timedelta(minutes=5)
    return factories.request(
        version, batch=True, status=Status.PROCESSING, time_started=started, request_data={}, **fields
    )


def test_what_lost_its_worker_is_queued_again_at_the_second_look(version: DeploymentVersion) -> None:
    lost, alive = processing(version, attempts=1), processing(version, attempts=1)
    valkey.client().set(f"pilothouse:running:{alive.pk}", "1")
    assert tasks.recover(timezone.now()) == 0
    tasks.recover(timezone.now())
    lost.refresh_from_db()
    alive.refresh_from_db()
    assert (lost.status, alive.status) == (Status.PENDING, Status.PROCESSING)


def test_what_was_interrupted_too_often_fails(version: DeploymentVersion) -> None:
    row = processing(version, attempts=tasks.ATTEMPTS)
    tasks.recover(timezone.now())
    tasks.recover(timezone.now())
    row.refresh_from_db()
    assert row.status == Status.FAILED
    assert "interrupted" in row.error_message


def test_what_lost_its_message_is_sent_again_once_a_minute(version: DeploymentVersion) -> None:
    now = timezone.now() + dt.timedelta(minutes=5)
    factories.request(version, batch=True, request_data={})
    assert tasks.recover(now) == 1
    assert tasks.recover(now) == 0


def test_old_requests_are_forgotten(version: DeploymentVersion) -> None:
    before = timezone.now() - dt.timedelta(seconds=1)
    factories.request(version, status=Status.COMPLETED, expires_at=before)
    waiting = factories.request(version, status=Status.PENDING, expires_at=before)
    kept = factories.request(version, status=Status.COMPLETED)
    sweeping.expire_requests()
    assert set(Request.objects.values_list("pk", flat=True)) == {waiting.pk, kept.pk}


def test_the_character_that_the_database_does_not_keep(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    with pytest.raises(Invalid, match=r"U\+0000") as caught:
        requests.create_requests(sender, version, [{"a": "x"}, {"a": ["x\0"]}])
    assert list(caught.value.fields) == ["data"]
    assert not Request.objects.exists()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"result": {"a": "x\0y"}})

    pods.start(answer)
    done = run(requests.create_requests(sender, version, [{}])[0])
    assert (done.status, done.result) == (Status.COMPLETED, {"a": "x\ufffdy"})


def test_a_failure_may_name_that_character(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(failing(500, "ValueError", "no \0"))
    done = run(requests.create_requests(sender, version, [{}])[0])
    assert (done.status, done.error_message) == (Status.FAILED, "ValueError: no \ufffd")
