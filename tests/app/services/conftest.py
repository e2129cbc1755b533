"""One project with one of everything, and the people around it."""

import dataclasses
import io
from typing import Any

import pytest

from accounts.models import Organization, Project, User
from deployments.models import Deployment, DeploymentVersion, Model, ModelVersion, Revision
from deployments.services import intent
from tests.app import factories


@dataclasses.dataclass
class World:
    organization: Organization
    project: Project
    admin: User
    editor: User
    viewer: User
    outsider: User
    deployment: Deployment
    version: DeploymentVersion
    revision: Revision
    model: Model
    model_version: ModelVersion

    def person(self, standing: str) -> User:
        return getattr(self, standing)


@pytest.fixture
def world(db: None) -> World:
    organization = factories.organization()
    project = factories.project(organization=organization)
    people = factories.people(project)
    deployment = factories.deployment(project)
    version = factories.version(deployment)
    revision = factories.revision(version)
    model_version = factories.model_version(factories.model(project))
    return World(
        organization=organization,
        project=project,
        **people,
        deployment=deployment,
        version=version,
        revision=revision,
        model=model_version.model,
        model_version=model_version,
    )


@pytest.fixture
def wake_ups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the reconciler, at once and not at commit: tests roll back."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(intent, "reconcile_later", lambda version_id: asked.append(("reconcile", version_id)))
    monkeypatch.setattr(intent, "collect_garbage_later", lambda: asked.append(("collect_garbage",)))
    return asked


def zipped(files: dict[str, str | bytes] | None = None) -> io.BytesIO:
    file = io.BytesIO(factories.package(files))
    file.name = "package.zip"
    return file
