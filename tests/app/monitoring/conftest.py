"""Rows that monitoring looks at."""

import dataclasses
import datetime as dt

import pytest

from accounts.models import Project
from deployments.models import DeploymentVersion, Instance, Revision
from monitoring.models import LogSource
from tests.app import factories


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
