"""A project with one of everything, and a way to call the API as anybody."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import services
from accounts.models import Project, Role, User
from deployments.models import EnvironmentBuild, EnvironmentVariable, Instance, InstanceTypeGroup
from monitoring.models import AlertRule, CustomMetric, CustomSeries, Delivery, Webhook
from tests.app import factories


@dataclasses.dataclass
class World:
    """Rows of one project, with `names` for the path parameters of every endpoint."""

    project: Project
    people: dict[str, User]
    names: dict[str, str]
    instance: Instance


@pytest.fixture
def world(db: None) -> World:
    project = factories.project(name="fruit")
    people = factories.people(project)
    keeper = factories.member(project, Role.ADMIN)
    robot, _ = services.create_service_user(keeper, project, name="robot")
    deployment = factories.deployment(project, "ranker")
    version = factories.version(deployment, "v1")
    build = EnvironmentBuild.objects.create(hash="0" * 64, runtime="python3.11", state="success", log="done")
    first = factories.revision(version, environment_build=build)
    second = factories.revision(version, factories.package({"deployment.py": factories.ECHO + "# 2\n"}))
    rollout = factories.rollout(second, state="complete")
    instance = factories.instance(second)
    model = factories.model(project, "wine")
    factories.model_version(model)
    group = InstanceTypeGroup.objects.create(project=project, name="small-first")
    variables = {
        name: str(EnvironmentVariable.objects.create(project=project, name=name.upper(), value="x", **scope).pk)
        for name, scope in (
            ("project_variable", {}),
            ("deployment_variable", {"deployment": deployment}),
            ("version_variable", {"version": version}),
        )
    }
    metric = CustomMetric.objects.create(project=project, name="custom.weight", metric_type="gauge")
    hook = Webhook.objects.create(project=project, name="pager", event="alert", url="https://example.com/", secret="x")
    rule = AlertRule.objects.create(project=project, name="slow", kind="latency")
    rule.webhooks.add(hook)
    test = Delivery.objects.create(
        project=project, occasion="test:1", trial="{}", payload={}, next_attempt_at=timezone.now()
    )
    return World(
        project,
        people,
        {
            "organization_name": project.organization.name,
            "project_name": "fruit",
            "deployment_name": "ranker",
            "version": "v1",
            "revision_id": str(first.pk),
            "other_id": str(second.pk),
            "rollout_id": str(rollout.pk),
            "instance_id": str(instance.pk),
            "model_name": "wine",
            "number": "1",
            "group_id": str(group.pk),
            "environment_name": "python3-11",
            "tag_name": "v1",
            "user_id": str(factories.member(project, Role.VIEWER).pk),
            "service_user_id": str(robot.pk),
            "request_id": str(factories.request(version, batch=True).pk),
            "metric_name": metric.name,
            "series_id": str(CustomSeries.objects.create(metric=metric).pk),
            "webhook_name": hook.name,
            "test_id": str(test.pk),
            "rule_name": rule.name,
            **variables,
        },
        instance,
    )


Call = Callable[..., Any]


@pytest.fixture
def call() -> Call:
    """`call(user, "GET", "/status", {...})`: the answer to a user, or to nobody with None."""

    def send(user: User | None, method: str, path: str, body: Any = None, format: str = "json") -> Any:
        client = APIClient(raise_request_exception=True)
        if user is not None:
            client.credentials(HTTP_AUTHORIZATION=f"Token {factories.token(user)}")
        return (
            client.generic(method, f"/api/v1{path}")
            if body is None
            else getattr(client, method.lower())(f"/api/v1{path}", body, format=format)
        )

    return send
