"""Rows that monitoring looks at, and connections that end with the test."""

import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from accounts.models import Project
from deployments.models import DeploymentVersion, Instance, Revision
from monitoring.models import LogSource
from tests.app import factories
from tests.app.monitoring.place import Place, prometheus_reads


@dataclasses.dataclass
class Fleet:
    """One version with one running instance."""

    project: Project
    version: DeploymentVersion
    revision: Revision
    instance: Instance


@pytest.fixture
def fleet(db: None) -> Fleet:
    version = factories.version(factories.deployment(factories.project(), "churn"))
    revision = factories.revision(version)
    return Fleet(version.deployment.project, version, revision, factories.instance(revision))


@pytest.fixture
def place(fleet: Fleet, transactional_db: None, tmp_path: Path, settings: Any) -> Iterator[Place]:
    """The instance of the fleet is read by a Prometheus, which the platform asks."""
    with prometheus_reads(fleet.instance, tmp_path, settings) as found:
        yield found


@pytest.fixture
async def thread_connections(transactional_db: None) -> AsyncIterator[None]:
    """Asynchronous tests use the database from a thread of their own, whose connection must not outlive the test."""
    yield
    await sync_to_async(connections.close_all)()


def source(fleet: Fleet, **fields: object) -> LogSource:
    instance = factories.instance(fleet.revision)
    return LogSource.objects.create(
        **{
            "project": fleet.project,
            "instance_id": instance.pk,
            "pod_name": instance.pod_name,
            "deployment_id": fleet.version.deployment_id,
            "deployment_name": fleet.version.deployment.name,
            "version_id": fleet.version.pk,
            "version_name": fleet.version.version,
            "revision_id": fleet.revision.pk,
            "revision_number": fleet.revision.number,
            **fields,
        }
    )


def nanoseconds(moment: dt.datetime) -> int:
    return int(moment.timestamp()) * 10**9
