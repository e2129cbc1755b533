"""Rows of direct requests: together in one write, one by one where the database refuses, again where it was away."""

import asyncio
import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import User
from deployments import background
from deployments.models import DeploymentVersion, Instance, Request
from deployments.services import request_rows, requests
from deployments.services.async_database import AsyncConnection
from tests.app import factories
from tests.app.requests.conftest import Pods


def save(*rows: Request) -> list[Exception | None]:
    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*map(request_rows.save, rows), return_exceptions=True)

    return background.run(all_at_once(), timeout=60)


def row(version: DeploymentVersion, **columns: Any) -> Request:
    """One that is not stored yet."""
    return Request(version_id=version.pk, expires_at=timezone.now() + dt.timedelta(days=7), **columns)


@pytest.mark.parametrize(
    "value", [None, "text", "grüße 🙂", 0, 1.5, True, [], {}, {"a": [1, None, {"b": "'\\\""}]}, 2**63 - 1]
)
def test_values_come_back_as_they_were(version: DeploymentVersion, value: Any) -> None:
    asked = row(version, request_data=value, result=value, error_message="it's \\ so")
    assert save(asked) == [None]
    found = Request.objects.get()
    names = [field.attname for field in Request._meta.concrete_fields]
    assert [getattr(found, name) for name in names] == [getattr(asked, name) for name in names]


def test_rows_that_end_together_share_a_write(version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    execute = AsyncConnection.execute

    async def counted(self: AsyncConnection, sql: str, parameters: Any) -> None:
        writes.append(sql)
        await execute(self, sql, parameters)

    monkeypatch.setattr(AsyncConnection, "execute", counted)
    assert save(*(row(version) for _ in range(20))) == [None] * 20
    assert Request.objects.count() == 20
    assert len(writes) == 1


def test_what_the_database_does_not_keep_spoils_neither_the_answer_nor_other_rows(
    sender: User, version: DeploymentVersion, pods: Pods
) -> None:
    pods.start()

    async def both() -> list[Request]:
        ask = [requests.direct_request(sender, version, data, 30) for data in ({"a\0": "x\0y"}, {"a": 1})]
        return await asyncio.gather(*ask)

    odd, plain = background.run(both(), timeout=60)
    assert (odd.result, plain.result) == ({"a\0": "x\0y"}, {"a": 1})
    assert Request.objects.get(pk=odd.pk).request_data == {"a\ufffd": "x\ufffdy"}
    assert Request.objects.get(pk=plain.pk).result == {"a": 1}


def test_deeply_nested_values(version: DeploymentVersion) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    assert save(row(version, result=deep), row(version)) == [None, None]
    assert Request.objects.count() == 2


def test_rows_of_what_was_deleted_meanwhile(version: DeploymentVersion) -> None:
    other = factories.version(version.deployment, "v2")
    user = factories.member(version.deployment.project)
    assert version.target_revision is not None
    instance = factories.instance(version.target_revision)
    rows = [
        row(other),
        row(version, created_by_id=user.pk, instance_id=instance.pk),
        row(version),
    ]
    other.delete()
    User.objects.filter(pk=user.pk).delete()
    Instance.objects.filter(pk=instance.pk).delete()
    assert save(*rows) == [None] * 3
    kept = Request.objects.get(pk=rows[1].pk)
    assert (kept.instance_id, kept.created_by_id) == (None, None)
    assert set(Request.objects.values_list("pk", flat=True)) == {rows[1].pk, rows[2].pk}


def test_a_connection_that_broke_is_opened_again(version: DeploymentVersion) -> None:
    assert save(row(version)) == [None]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'INSERT INTO%'"
        )
        assert cursor.fetchone()[0] >= 1
    assert save(row(version)) == [None]
    assert Request.objects.count() == 2


def test_closing_waits_for_what_is_being_written(version: DeploymentVersion) -> None:
    async def save_and_close() -> None:
        saving = asyncio.create_task(request_rows.save(row(version)))
        await asyncio.sleep(0)
        await request_rows.close()
        await saving

    background.run(save_and_close(), timeout=60)
    assert Request.objects.count() == 1
