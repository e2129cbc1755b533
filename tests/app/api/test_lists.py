"""Lists: the number of queries does not grow with the rows, and parts of a list are what was asked for."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Project, Role
from accounts.services import create_service_user
from tests.app import factories
from tests.app.api.conftest import Call

pytestmark = pytest.mark.django_db

LISTS = (
    "/projects",
    "/projects/fruit/users",
    "/projects/fruit/service-users",
    "/projects/fruit/deployments",
    "/projects/fruit/deployments/d-0/versions",
    "/projects/fruit/deployments/d-0/versions/v-0/revisions",
    "/projects/fruit/deployments/d-0/versions/v-0/rollouts",
    "/projects/fruit/deployments/d-0/versions/v-0/instances",
    "/projects/fruit/instances",
    "/projects/fruit/models",
    "/projects/fruit/models/m-0/versions",
    "/projects/fruit/environments",
    "/projects/fruit/environment-variables",
    "/projects/fruit/audit",
    "/projects/fruit/deployments/d-0/audit",
)


@pytest.mark.parametrize("path", LISTS)
def test_the_number_of_queries_does_not_grow(path: str, call: Call) -> None:
    project = factories.project("fruit")
    admin = factories.member(project, Role.ADMIN)
    counts = []
    for size in (range(2), range(2, 7)):
        for number in size:
            grow(project, number)
        with CaptureQueriesContext(connection) as queries:
            assert call(admin, "GET", path).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def grow(project: Project, number: int) -> None:
    admin = factories.member(project, Role.ADMIN)
    factories.member(factories.project(), Role.VIEWER, admin)
    create_service_user(admin, project, name=f"robot-{number}")
    if not project.deployments.filter(name="d-0").exists():
        factories.version(factories.deployment(project, "d-0"), "v-0")
        factories.model(project, "m-0")
    else:
        factories.version(factories.deployment(project, f"d-{number}"), "v")
        factories.model(project, f"m-{number}")
    first = project.deployments.get(name="d-0")
    factories.version(first, f"w-{number}")
    version = first.versions.get(version="v-0")
    revision = factories.revision(version, created_by=admin)
    factories.rollout(revision, state="complete", created_by=admin)
    factories.instance(revision)
    factories.model_version(project.models.get(name="m-0"), created_by=admin)
    project.environment_variables.create(name=f"KEY_{number}", value="x")


def test_a_part_of_a_list(call: Call) -> None:
    project = factories.project("fruit")
    viewer = factories.member(project, Role.VIEWER)
    for name in "abcde":
        factories.deployment(project, name)

    def names(query: str) -> list[str]:
        return [row["name"] for row in call(viewer, "GET", f"/projects/fruit/deployments{query}").json()]

    assert names("") == list("abcde")
    assert names("?limit=2") == ["a", "b"]
    assert names("?limit=2&offset=3") == ["d", "e"]
    assert names("?offset=4") == ["e"]
    refused = call(viewer, "GET", "/projects/fruit/deployments?limit=x")
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["limit"])


def test_labels_filter_a_list(call: Call) -> None:
    project = factories.project("fruit")
    viewer = factories.member(project, Role.VIEWER)
    factories.deployment(project, "a", labels={"team": "x", "tier": "1"})
    factories.deployment(project, "b", labels={"team": "x", "tier": "2"})
    path = "/projects/fruit/deployments?labels="
    assert [d["name"] for d in call(viewer, "GET", path + "team:x").json()] == ["a", "b"]
    assert [d["name"] for d in call(viewer, "GET", path + "team:x,tier:2").json()] == ["b"]
    refused = call(viewer, "GET", path + "team")
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["labels"])
