"""A project with one of everything, and browsers in which its people are signed in."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Project, User
from deployments import cluster as clusters
from deployments.models import (
    Deployment,
    DeploymentVersion,
    EnvironmentBuild,
    EnvironmentVariable,
    GpuClaim,
    Instance,
    InstanceTypeGroup,
    Model,
    ModelVersion,
    Request,
    Revision,
    Rollout,
)
from kube.logs import Line
from monitoring import previous
from monitoring.logstore import reading
from monitoring.models import AlertRule, Webhook
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
    webhook: Webhook
    rule: AlertRule
    claim: GpuClaim
    group: InstanceTypeGroup

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
    webhook = Webhook.objects.create(
        project=project,
        name="chat",
        event="alert",
        url=f"https://chat.example.com/{SECRET}",
        headers=json.dumps([{"key": "X-Key", "value": SECRET, "protected": True}]),
        secret=SECRET,
    )
    rule = AlertRule.objects.create(project=project, name="errors", kind="error_rate", threshold=0.05)
    rule.webhooks.add(webhook)
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
        webhook=webhook,
        rule=rule,
        claim=GpuClaim.objects.create(
            project=project, version=version, label="ranker/v1", devices=1, cpu_milli=1000, memory_mib=1024
        ),
        group=factories.instance_type_group(project, "small-first", "512mb", "1024mb"),
    )


@pytest.fixture
def pod_logs(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Line]]:
    """Lines by pod, as a cluster would give them; with the suffix " previous" those of the container before.

    " package" is the suffix of what the container wrote that brings the package.
    """
    logs: dict[str, list[Line]] = {}

    async def read(session: object, cluster: object, namespace: str, pod: str, container: str, **options: Any) -> Any:
        name = f"{pod} previous" if options.get("previous") else pod
        name = name if container == "serving" else f"{name} {container}"
        return [line for line in logs.get(name, []) if line.time >= options.get("since", 0)]

    class Here:
        def ssl_context(self) -> None:
            return None

        def find(self, *args: Any, **options: Any) -> list[Any]:
            return []

    for module in (reading, previous):
        monkeypatch.setattr(module, "read", read)
    monkeypatch.setattr(clusters, "current", Here)
    return logs


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
