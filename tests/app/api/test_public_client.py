"""The public `ubiops` client, unchanged, against our API: what needs no cluster. Requests and waiting: tests/e2e."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
import ubiops
from ubiops.exceptions import ApiException

from accounts.models import Role, User
from tests.app import factories
from tests.support.web import serving

pytestmark = pytest.mark.django_db(transaction=True)


def client_of(url: str, person: User) -> ubiops.CoreApi:
    configuration = ubiops.Configuration(host=f"{url}/api/v1")
    configuration.api_key["Authorization"] = f"Token {factories.token(person)}"
    return ubiops.CoreApi(ubiops.ApiClient(configuration))


@pytest.fixture
def url(transactional_db: None) -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def owner() -> User:
    return factories.superuser()


@pytest.fixture
def api(url: str, owner: User) -> Iterator[ubiops.CoreApi]:
    client = client_of(url, owner)
    yield client
    client.api_client.close()


def test_account_and_projects(api: ubiops.CoreApi, owner: User) -> None:
    organization = factories.organization("acme")
    assert api.service_status().status == "ok"
    assert api.user_get().email == owner.email
    assert [o.name for o in api.organizations_list()] == ["acme"]
    assert api.organizations_get("acme").id == str(organization.pk)
    made = api.projects_create(ubiops.ProjectCreate(name="fruit", organization_name="acme", labels={"team": "a"}))
    assert (made.name, made.organization_name, made.labels) == ("fruit", "acme", {"team": "a"})
    assert [p.name for p in api.projects_list(labels="team:a")] == ["fruit"]
    assert api.projects_list(labels="team:b") == []
    assert api.projects_update("fruit", ubiops.ProjectUpdate(name="apples")).name == "apples"
    assert api.projects_get("apples").id == made.id
    assert api.projects_resource_usage("apples").deployments == 0
    api.projects_delete("apples")
    with pytest.raises(ApiException) as gone:
        api.projects_get("apples")
    assert gone.value.status == 404


def test_members_and_service_users(api: ubiops.CoreApi, url: str) -> None:
    project = factories.project("fruit")
    bob = factories.user("bob@example.com")
    api.project_users_create("fruit", ubiops.ProjectUserCreate(user_id=str(bob.pk)))
    assert [u.email for u in api.project_users_list("fruit")] == ["bob@example.com"]
    assert api.project_users_get("fruit", str(bob.pk)).id == str(bob.pk)
    api.project_users_delete("fruit", str(bob.pk))
    assert api.project_users_list("fruit") == []

    expiry = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    robot = api.service_users_create("fruit", ubiops.ServiceUserCreate(name="robot", expiry_date=expiry))
    assert robot.token
    assert [u.name for u in api.service_users_list("fruit")] == ["robot"]
    configuration = ubiops.Configuration(host=f"{url}/api/v1")
    configuration.api_key["Authorization"] = f"Token {robot.token}"
    with ubiops.ApiClient(configuration) as as_robot:
        assert ubiops.CoreApi(as_robot).user_get().email == robot.email
        rotated = api.service_users_token("fruit", robot.id)
        assert rotated.token != robot.token
        with pytest.raises(ApiException) as refused:
            ubiops.CoreApi(as_robot).user_get()
        assert refused.value.status == 401
    api.service_users_update("fruit", robot.id, ubiops.ServiceUserCreate(name="android"))
    assert api.service_users_get("fruit", robot.id).name == "android"
    api.service_users_delete("fruit", robot.id)
    assert not project.service_users.exists()


def test_deployments_versions_and_revisions(api: ubiops.CoreApi, tmp_path: Path) -> None:
    factories.project("fruit")
    made = api.deployments_create(
        "fruit",
        ubiops.DeploymentCreate(
            name="ranker",
            input_type="structured",
            output_type="structured",
            input_fields=[ubiops.DeploymentInputFieldCreate(name="x", data_type="double")],
            output_fields=[ubiops.DeploymentOutputFieldCreate(name="y", data_type="double")],
            labels={"kind": "test"},
        ),
    )
    assert [f.name for f in made.input_fields] == ["x"]
    assert [d.name for d in api.deployments_list("fruit", labels="kind:test")] == ["ranker"]
    version = api.deployment_versions_create(
        "fruit",
        "ranker",
        ubiops.DeploymentVersionCreate(
            version="v1", environment="python3-11", instance_type="512mb", minimum_instances=0, maximum_instances=2
        ),
    )
    assert (version.status, version.environment_name, version.default) == ("unavailable", "python3-11", True)
    assert api.deployments_get("fruit", "ranker").default_version == "v1"
    assert (
        api.deployment_versions_update(
            "fruit", "ranker", "v1", ubiops.DeploymentVersionUpdate(maximum_idle_time=60)
        ).maximum_idle_time
        == 60
    )

    names = {"project_name": "fruit", "deployment_name": "ranker", "version": "v1"}
    package = tmp_path / "package.zip"
    package.write_bytes(factories.package())
    uploaded = api.revisions_file_upload(**names, file=str(package))
    assert uploaded.success
    assert [r.id for r in api.revisions_list("fruit", "ranker", "v1")] == [uploaded.revision]
    revision = api.revisions_get(**names, revision_id=uploaded.revision)
    assert (revision.status, revision.has_request_method) == ("queued", True)
    with api.revisions_file_download(**names, revision_id=uploaded.revision) as file:
        assert file.read() == package.read_bytes()
    rebuilt = api.revisions_rebuild(**names, revision_id=uploaded.revision, data={})
    assert rebuilt.id == uploaded.revision
    seen = api.deployment_versions_get("fruit", "ranker", "v1")
    assert (seen.status, seen.latest_revision) == ("building", uploaded.revision)
    copied = api.deployment_versions_create(
        "fruit", "ranker", ubiops.DeploymentVersionCreate(version="v2", environment="python3-11")
    )
    api.revisions_file_upload("fruit", "ranker", copied.version, source_deployment="ranker", source_version="v1")
    assert len(api.revisions_list("fruit", "ranker", "v2")) == 1
    assert [v.version for v in api.deployment_versions_list("fruit", "ranker")] == ["v1", "v2"]
    api.deployment_versions_delete("fruit", "ranker", "v2")
    api.deployments_update("fruit", "ranker", ubiops.DeploymentUpdate(description="ranks"))
    api.deployments_delete("fruit", "ranker")
    assert api.deployments_list("fruit") == []


def test_the_audit_trail(api: ubiops.CoreApi, owner: User) -> None:
    factories.project("fruit")
    for name in ("ranker", "ranker-2"):
        api.deployments_create("fruit", ubiops.DeploymentCreate(name=name, input_type="plain", output_type="plain"))
    body = ubiops.DeploymentVersionCreate(version="v1", environment="python3-11")
    api.deployment_versions_create("fruit", "ranker", body)
    api.deployment_environment_variables_create(
        "fruit", "ranker", ubiops.EnvironmentVariableCreate(name="KEY", value="hidden", secret=True)
    )
    api.deployments_update("fruit", "ranker", ubiops.DeploymentUpdate(description="ranks"))
    api.deployment_versions_delete("fruit", "ranker", "v1")

    newest = api.project_audit_events_list("fruit", limit=1)[0]
    assert (newest.action, newest.user, newest.object_type) == ("delete", owner.email, "deploymentversion")
    assert newest.object_name == "ranker/v1"
    assert "ranker/v1" in newest.event
    assert newest.date.tzinfo is not None
    assert [e.object_name for e in api.project_audit_events_list("fruit", action="create", offset=2)][:2] == [
        "ranker-2",
        "ranker",
    ]
    trail = api.deployment_audit_events_list("fruit", "ranker")
    assert [(e.action, e.object_type) for e in trail] == [
        ("delete", "deploymentversion"),
        ("update", "deployment"),
        ("create", "environmentvariable"),
        ("create", "deploymentversion"),
        ("create", "deployment"),
    ]
    assert "hidden" not in str(trail)
    assert [e.object_name for e in api.deployment_audit_events_list("fruit", "ranker-2")] == ["ranker-2"]


def test_environment_variables_of_each_scope(api: ubiops.CoreApi) -> None:
    version = factories.version(factories.deployment(factories.project("fruit"), "ranker"), "v1")
    names = {"project_name": "fruit"}
    for scope, more in (
        ("project", {}),
        ("deployment", {"deployment_name": "ranker"}),
        ("deployment_version", {"version": version.version}),
    ):
        names |= more

        def of(verb: str, prefix: str = scope, **kwargs: object) -> object:
            return getattr(api, f"{prefix}_environment_variables_{verb}")(**kwargs)

        body = ubiops.EnvironmentVariableCreate(name=f"{scope}_key".upper(), value="secret value", secret=True)
        made = of("create", **names, data=body)
        assert (made.name, made.value, made.secret) == (body.name, None, True)
        changed = of(
            "update",
            **names,
            id=made.id,
            data=ubiops.EnvironmentVariableCreate(name=body.name, value="open", secret=False),
        )
        assert (changed.value, changed.secret) == ("open", False)
        assert of("get", **names, id=made.id).value == "open"
        assert body.name in [v.name for v in of("list", **names)]
    inherited = {v.name: v for v in api.deployment_version_environment_variables_list("fruit", "ranker", "v1")}
    assert inherited["PROJECT_KEY"].inheritance_type == "project"
    assert inherited["DEPLOYMENT_KEY"].inheritance_name == "ranker"
    assert inherited["DEPLOYMENT_VERSION_KEY"].inheritance_type is None
    factories.deployment(factories.project("other"), "reader")
    second = factories.deployment(version.deployment.project, "second")
    copied = api.deployment_environment_variables_copy(
        "fruit", second.name, ubiops.EnvironmentVariableCopy(source_deployment="ranker")
    )
    assert "DEPLOYMENT_KEY" in [v.name for v in copied if v.inheritance_type is None]


def test_environments_and_instance_types(api: ubiops.CoreApi) -> None:
    factories.project("fruit")
    assert "python3-11" in [e.name for e in api.environments_list("fruit")]
    environment = api.environments_get("fruit", "python3-11")
    assert environment.system
    (tag,) = api.environment_tags_list("fruit", "python3-11")
    assert api.environment_tags_get("fruit", "python3-11", tag.name).status == "success"
    types = {t.name: t for t in api.instance_types_list("fruit").results}
    assert types["512mb"].memory == 512
    group = api.instance_type_groups_create(
        "fruit",
        ubiops.InstanceTypeGroupCreate(
            name="small-first",
            instance_types=[
                ubiops.InstanceTypeItemCreate(id=types["512mb"].id, priority=0, schedule_timeout=30),
                ubiops.InstanceTypeItemCreate(id=types["1024mb"].id, priority=1),
            ],
        ),
    )
    assert [t.name for t in group.instance_types] == ["512mb", "1024mb"]
    assert [g.id for g in api.instance_type_groups_list("fruit").results] == [group.id]
    assert api.instance_type_groups_get("fruit", group.id).name == "small-first"
    renamed = api.instance_type_groups_update("fruit", group.id, ubiops.InstanceTypeGroupUpdate(name="small"))
    assert renamed.name == "small"
    assert api.instance_type_groups_usage("fruit", group.id).results == []
    api.instance_type_groups_delete("fruit", group.id)


def test_instances_and_events(api: ubiops.CoreApi) -> None:
    version = factories.version(factories.deployment(factories.project("fruit"), "ranker"), "v1")
    instance = factories.instance(factories.revision(version), node="node-1")
    now = dt.datetime.now(dt.UTC)
    instance.events.create(
        kind="Normal", reason="Started", description="Container started", time_created=now, time_last_seen=now
    )
    names = {"project_name": "fruit", "deployment_name": "ranker", "version": "v1"}
    (listed,) = api.instances_list(**names).results
    assert (listed.id, listed.status, listed.instance_type.name) == (str(instance.pk), "running", "512mb")
    assert api.instances_get(**names, instance_id=listed.id).node.ipv4_address == "127.1.0.1"
    assert [e.description for e in api.instance_events_list(**names, instance_id=listed.id).results] == [
        "Container started"
    ]
    assert [i.id for i in api.project_instances_list("fruit").results] == [listed.id]
    assert api.project_instances_list("fruit", status="failed").results == []


def test_pages_follow_their_cursor(api: ubiops.CoreApi, url: str) -> None:
    factories.project("fruit")
    first = api.instance_types_list("fruit", limit=3)
    assert len(first.results) == 3
    assert first.previous is None
    cursor = first.next.split("cursor=")[1].split("&")[0].replace("%3D", "=")
    second = api.instance_types_list("fruit", limit=3, cursor=cursor)
    assert {t.name for t in first.results}.isdisjoint(t.name for t in second.results)


def test_refusals_name_the_field(api: ubiops.CoreApi) -> None:
    factories.project("fruit")
    with pytest.raises(ApiException) as refused:
        api.deployments_create(
            "fruit", ubiops.DeploymentCreate(name="Bad Name", input_type="plain", output_type="plain")
        )
    assert refused.value.status == 400
    assert "name" in refused.value.body
    assert "lower-case" in refused.value.body


def test_a_viewer_reads_and_does_not_change(url: str) -> None:
    project = factories.project("fruit")
    viewer = factories.member(project, Role.VIEWER)
    api = client_of(url, viewer)
    assert api.deployments_list("fruit") == []
    with pytest.raises(ApiException) as refused:
        api.deployments_create("fruit", ubiops.DeploymentCreate(name="new", input_type="plain", output_type="plain"))
    assert refused.value.status == 403
    api.api_client.close()
