"""A project with one of everything, and browsers in which its people are signed in."""

import dataclasses
import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Project, User
from deployments.models import (
    Deployment,
    DeploymentVersion,
    EnvironmentBuild,
    EnvironmentVariable,
    Instance,
    Model,
    ModelVersion,
    Request,
    Revision,
    Rollout,
)
from tests.app import factories

Phase = DeploymentVersion.Phase
SECRET = "correct-horse-battery"


@dataclasses.dataclass
class Site:
    """``first`` is an older revision, ``second`` the one that serves."""

    project: Project
    people: dict[str, User]
    deployment: Deployment
    version: DeploymentVersion
    first: Revision
    second: Revision
    rollout: Rollout
    instance: Instance
    request: Request
    model: Model
    model_version: ModelVersion
    variable: EnvironmentVariable
    shared: EnvironmentVariable

    @property
    def names(self) -> list[str]:
        """What the addresses of the version's pages hold."""
        return [self.project.name, self.deployment.name, self.version.version]

    def url(self, route: str, *more: object) -> str:
        return reverse(route, args=[*self.names, *more])

    def project_url(self, route: str, *more: object) -> str:
        return reverse(route, args=[self.project.name, *more])


@pytest.fixture
def site(db: None) -> Site:
    now = timezone.now()
    project = factories.project()
    deployment = factories.deployment(project, description="Tells wines apart")
    version = factories.version(deployment, phase=Phase.SERVING, ready_instances=1, observed_generation=1)
    first = factories.revision(version, status=Revision.Status.SUCCESS)
    build = EnvironmentBuild.objects.create(
        hash="a" * 64, runtime="python3.11", state="success", log="Resolved 3 packages"
    )
    second = factories.revision(
        version,
        factories.package({"deployment.py": factories.ECHO + "\nVERSION = 2\n"}),
        status=Revision.Status.SUCCESS,
        environment_build=build,
        manifest=[{"path": "deployment.py", "size": 1, "crc": 1}],
        created_by=None,
    )
    version.active_revision = second
    version.save()
    rollout = factories.rollout(
        second,
        state=Rollout.State.COMPLETE,
        **{f"{step}_at": now for step in ("environment", "scheduled", "starting", "ready", "serving", "finished")},
    )
    model_version = factories.model_version(factories.model(project))
    variable = EnvironmentVariable.objects.create(
        project=project, version=version, name="DB_PASSWORD", value=SECRET, secret=True
    )
    return Site(
        project=project,
        people=factories.people(project),
        deployment=deployment,
        version=version,
        first=first,
        second=second,
        rollout=rollout,
        instance=factories.instance(second),
        request=factories.request(
            version,
            status=Request.Status.COMPLETED,
            request_data={"x": 1},
            result={"y": 2},
            time_started=now,
            time_completed=now + dt.timedelta(milliseconds=12),
        ),
        model=model_version.model,
        model_version=model_version,
        variable=variable,
        shared=EnvironmentVariable.objects.create(project=project, name="API_URL", value="https://api.example.com"),
    )


@pytest.fixture
def browser_of(site: Site) -> Callable[[str], Client]:
    """A browser in which the named person is signed in; nobody for ``anonymous``."""

    def browser(name: str) -> Client:
        client = Client()
        if name != "anonymous":
            client.force_login(site.people[name])
        return client

    return browser


@pytest.fixture
def editor(browser_of: Callable[[str], Client]) -> Client:
    return browser_of("editor")


@pytest.fixture
def admin(browser_of: Callable[[str], Client]) -> Client:
    return browser_of("admin")
