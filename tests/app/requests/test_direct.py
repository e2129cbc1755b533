"""Direct requests: to whom they go, what comes back, what is kept."""

import asyncio
import datetime as dt
import time
import uuid
from typing import Any

import pytest
from aiohttp import web
from django.utils import timezone

from accounts.errors import Conflict, Forbidden, Invalid, NotFound, Timeout, TooLarge, Unavailable
from accounts.models import Project, User
from deployments import background, hints
from deployments.models import DeploymentVersion, Instance, Request
from deployments.services import load, requests, routing
from tests.app import factories
from tests.app.requests.conftest import Pods, echo, failing, hang_up, never


def ask(actor: User, version: DeploymentVersion, data: Any, seconds: float = 10) -> Request:
    return background.run(requests.direct_request(actor, version, data, seconds), timeout=60)


def test_an_answer_and_its_row(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    instance = pods.start()
    answer = ask(sender, version, {"a": [1, 2.5, None]})
    assert (answer.status, answer.result) == (Request.Status.COMPLETED, {"a": [1, 2.5, None]})
    row = Request.objects.get()
    assert (row.pk, row.instance, row.created_by) == (answer.pk, instance, sender)
    assert row.request_data == row.result == {"a": [1, 2.5, None]}
    assert row.input_size
    assert row.output_size
    assert row.time_completed
    kept_for = row.expires_at - row.time_created
    assert kept_for == dt.timedelta(seconds=version.request_retention_time)
    (told,) = pods.seen[instance.address]
    assert told["x-request-id"] == str(row.pk)
    assert (told["x-pilothouse-request-mode"], told["x-pilothouse-user-id"]) == ("express", str(sender.pk))


@pytest.mark.parametrize(("mode", "rows"), [("full", 1), ("metadata", 1), ("none", 0)])
def test_what_is_kept_follows_the_retention_mode(
    sender: User, version: DeploymentVersion, pods: Pods, mode: str, rows: int
) -> None:
    version.request_retention_mode = mode
    pods.start()
    answer = ask(sender, version, {"secret": 1})
    assert answer.result == {"secret": 1}
    assert Request.objects.count() == rows
    if mode == "metadata":
        row = Request.objects.get()
        assert (row.request_data, row.result, row.status) == (None, None, "completed")
        assert row.input_size


def test_a_failing_function_is_an_answer_without_its_internals(
    sender: User, version: DeploymentVersion, pods: Pods
) -> None:
    pods.start(failing(500, "KeyError", "'x'"))
    answer = ask(sender, version, {})
    assert (answer.status, answer.error_message) == (Request.Status.FAILED, "KeyError: 'x'")
    assert Request.objects.get().error_message == "KeyError: 'x'"


def test_an_answer_that_is_no_result(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    async def nonsense(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>")

    pods.start(nonsense)
    answer = ask(sender, version, {})
    assert answer.status == Request.Status.FAILED
    assert "HTTP 200" in answer.error_message


def test_nobody_listens_at_one_of_two(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(listen=False)
    pods.start(listen=False)
    pods.start()
    for number in range(5):
        assert ask(sender, version, {"n": number}).result == {"n": number}


def test_a_pod_that_goes_away_over_a_request_is_given_up_for_another(
    sender: User, version: DeploymentVersion, pods: Pods
) -> None:
    dying = pods.start(hang_up)
    good = pods.start()
    for number in range(8):
        assert ask(sender, version, {"n": number}).result == {"n": number}
    assert len(pods.seen[good.address]) == 8
    assert pods.seen.get(dying.address)


def test_a_request_that_kills_is_not_fed_to_everybody(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    for _ in range(4):
        pods.start(hang_up)
    with pytest.raises(Unavailable, match="went away"):
        ask(sender, version, {})
    assert sum(len(headers) for headers in pods.seen.values()) == 2
    assert Request.objects.get().status == Request.Status.FAILED


def test_time_is_up(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(never)
    with pytest.raises(Timeout, match="within 1 seconds"):
        ask(sender, version, {}, seconds=1)
    row = Request.objects.get()
    assert (row.status, row.timeout) == (Request.Status.FAILED, 1)


def test_without_an_instance_the_reason_is_told(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(phase="scheduling", reason_message="0/1 nodes have room.")
    with pytest.raises(Unavailable, match="0/1 nodes have room") as caught:
        ask(sender, version, {}, seconds=1)
    assert caught.value.retry_after


def test_a_failed_version_is_not_waited_for(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(phase="failed", reason_message="It fails when imported.")
    with pytest.raises(Unavailable, match="fails when imported"):
        ask(sender, version, {}, seconds=300)


def test_the_first_request_wakes_an_idle_version(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(desired_instances=0, phase="idle")
    waiting = background.submit(requests.direct_request(sender, version, {"a": 1}, 30))
    while DeploymentVersion.objects.get(pk=version.pk).desired_instances == 0:
        assert not waiting.done()
    pods.start()
    assert waiting.result(30).result == {"a": 1}
    row = DeploymentVersion.objects.get(pk=version.pk)
    assert (row.desired_instances, row.generation) == (1, version.generation + 1)


def test_a_request_that_waits_wakes_again_what_went_idle(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(desired_instances=0, phase="idle")
    waiting = background.submit(requests.direct_request(sender, version, {"a": 1}, 120))
    for _ in range(2):
        while not DeploymentVersion.objects.filter(pk=version.pk, desired_instances=1).update(desired_instances=0):
            assert not waiting.done()
            time.sleep(0.05)
    while DeploymentVersion.objects.get(pk=version.pk).desired_instances == 0:
        assert not waiting.done()
        time.sleep(0.05)
    pods.start()
    assert waiting.result(120).result == {"a": 1}


def test_load_goes_to_the_one_with_fewest_under_way(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return await echo(request)

    for _ in range(3):
        pods.start(slow)

    async def many() -> list[Request]:
        return await asyncio.gather(*(requests.direct_request(sender, version, {}, 10) for _ in range(9)))

    background.run(many(), timeout=30)
    assert sorted(len(headers) for headers in pods.seen.values()) == [3, 3, 3]
    assert Request.objects.count() == 9


def test_a_pod_that_is_being_stopped_gets_nothing_new(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    stopping, other = pods.start(), pods.start()
    Instance.objects.filter(pk=stopping.pk).update(ready=False, status=Instance.Status.STOPPING)
    for _ in range(4):
        ask(sender, version, {})
    assert list(pods.seen) == [other.address]


def test_a_hint_makes_new_instances_known_at_once(
    sender: User, version: DeploymentVersion, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "FRESH_SECONDS", 3600)
    old = pods.start()
    ask(sender, version, {})
    new = pods.start()
    Instance.objects.filter(pk=old.pk).update(ready=False)
    deadline = time.monotonic() + 20
    while new.address not in pods.seen:
        assert time.monotonic() < deadline
        hints.changed(version.pk, version.deployment_id, version.deployment.project_id)
        ask(sender, version, {})


def test_input_against_the_schema_names_each_field(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start()
    version.deployment.input_fields = [
        {"name": "n", "data_type": "int"},
        {"name": "rows", "data_type": "array_double"},
        {"name": "gone", "data_type": "string"},
    ]
    with pytest.raises(Invalid) as caught:
        ask(sender, version, {"n": True, "rows": [1, "x"], "more": 1})
    assert set(caught.value.fields) == {"n", "rows", "gone", "more"}
    assert "whole number" in caught.value.fields["n"]
    assert "missing" in caught.value.fields["gone"]
    assert Request.objects.count() == 0
    assert pods.seen == {}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", [0, -5, 2**60], [1.5, "1", True, None]),
        ("double", [0, 1.5], ["1", False]),
        ("string", ["", "x"], [1, None, []]),
        ("bool", [True, False], [0, "true"]),
        ("dict", [{}, {"a": 1}], [[], "x"]),
        ("array_int", [[], [1, 2]], [[1, "x"], 1, {}]),
        ("array_string", [["a"]], [[1]]),
        ("array_array_double", [[[1.0], []]], [[1.0]]),
        ("file", ["ubiops-file://default/x"], [1]),
    ],
)
def test_data_types(version: DeploymentVersion, kind: str, good: list[Any], bad: list[Any]) -> None:
    version.deployment.input_fields = [{"name": "f", "data_type": kind}]
    for value in good:
        requests.validate_input(version.deployment, {"f": value})
    for value in bad:
        with pytest.raises(Invalid) as caught:
            requests.validate_input(version.deployment, {"f": value})
        assert list(caught.value.fields) == ["f"]


def test_plain_input_is_text(version: DeploymentVersion) -> None:
    version.deployment.input_type = "plain"
    requests.validate_input(version.deployment, "hello")
    with pytest.raises(Invalid, match="plain text"):
        requests.validate_input(version.deployment, {"a": 1})


def test_too_large(sender: User, version: DeploymentVersion, pods: Pods, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    with pytest.raises(TooLarge, match="100"):
        ask(sender, version, {"a": "x" * 200})


@pytest.mark.parametrize("seconds", [0, -1, 10**9, True, "5"])
def test_timeouts_have_bounds(sender: User, version: DeploymentVersion, seconds: Any) -> None:
    with pytest.raises(Invalid) as caught:
        ask(sender, version, {}, seconds)
    assert "timeout" in caught.value.fields


def test_outsiders_find_nothing(version: DeploymentVersion, pods: Pods) -> None:
    pods.start()
    with pytest.raises(NotFound):
        ask(factories.user(), version, {})
    assert pods.seen == {}


def test_nothing_deployed_and_suspended(sender: User, version: DeploymentVersion) -> None:
    Project.objects.filter(pk=version.deployment.project_id).update(suspended=True)
    version.deployment.project.refresh_from_db()
    with pytest.raises(Conflict, match="suspended"):
        ask(sender, version, {})
    version.deployment.project.suspended = False
    version.target_revision = None
    with pytest.raises(Unavailable, match="Upload a revision first"):
        ask(sender, version, {})


def test_a_row_can_be_got_and_deleted_by_those_who_may(sender: User, version: DeploymentVersion) -> None:
    row = factories.request(version)
    assert requests.get(sender, version.deployment, row.pk).pk == row.pk
    assert requests.get(sender, version, str(row.pk)).pk == row.pk
    for unknown in (uuid.uuid4(), "nonsense"):
        with pytest.raises(NotFound):
            requests.get(sender, version, unknown)
    with pytest.raises(NotFound):
        requests.get(factories.user(), version, row.pk)
    with pytest.raises(Forbidden):
        requests.delete(sender, version, row.pk)
    requests.delete(factories.member(version.deployment.project, "editor"), version, row.pk)
    assert not Request.objects.exists()


def test_load_is_seen_by_other_processes(sender: User, version: DeploymentVersion, pods: Pods) -> None:
    pods.start(never)
    waiting = background.submit(requests.direct_request(sender, version, {}, 2))
    while load.read([version.pk])[version.pk].running != 1:
        assert not waiting.done()
    assert load.read([version.pk])[version.pk].last
    with pytest.raises(Timeout):
        waiting.result(30)
    while load.read([version.pk])[version.pk].running != 0:
        pass
    assert timezone.now().timestamp() - load.read([version.pk])[version.pk].last < 60
