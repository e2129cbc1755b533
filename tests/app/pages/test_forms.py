"""What forms change, and that refusals stand beside their field and change nothing."""

import io
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Membership, Project, Token
from deployments.models import Deployment, DeploymentVersion, EnvironmentVariable, Model, Revision, Rollout
from tests.app import factories
from tests.app.pages.conftest import SECRET, Site

JSON = {"Accept": "application/json"}


def upload(content: bytes | None = None, name: str = "package.zip") -> io.BytesIO:
    file = io.BytesIO(factories.package() if content is None else content)
    file.name = name
    return file


def deploy_form(**changes: Any) -> dict[str, Any]:
    return {
        "name": "churn",
        "source": "package",
        "file": upload(),
        "environment": "python3-11",
        "instance_type": "512mb",
        "minimum_instances": 0,
        "maximum_instances": 2,
        "maximum_idle_time": 300,
        "version": "v1",
        "input_type": "structured",
        "output_type": "structured",
        "input_fields": '[{"name": "x", "data_type": "double"}]',
        "output_fields": "",
        **changes,
    }


def errors(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 422, answer.content
    return answer.json()["errors"]


def test_a_package_becomes_a_deployment(site: Site, editor: Client):
    answer = editor.post(site.project_url("deployment-create"), deploy_form(), headers=JSON)
    assert answer.json() == {"redirect": site.project_url("deployment", "churn")}
    made = Deployment.objects.get(project=site.project, name="churn")
    assert made.input_fields == [{"name": "x", "data_type": "double"}]
    revision = made.default_version.target_revision
    assert (revision.number, revision.kind, revision.file_name) == (1, "package", "package.zip")
    assert made.default_version.rollouts.get().state == Rollout.State.IN_PROGRESS
    page = editor.get(answer.json()["redirect"]).content.decode()
    assert "churn is on its way" in page


def test_without_scripts_the_same_form_redirects(site: Site, editor: Client):
    answer = editor.post(site.project_url("deployment-create"), deploy_form())
    assert (answer.status_code, answer["Location"]) == (302, site.project_url("deployment", "churn"))


def test_a_registered_model_becomes_a_deployment(site: Site, editor: Client):
    form = deploy_form(source="model", model_version=str(site.model_version.pk))
    del form["file"]
    assert editor.post(site.project_url("deployment-create"), form, headers=JSON).status_code == 200
    revision = Deployment.objects.get(name="churn").default_version.target_revision
    assert (revision.kind, revision.model_version) == ("model", site.model_version)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": "Churn!"}),
        ("name", {"name": ""}),
        ("file", {"file": ""}),
        ("file", {"file": upload(b"no zip")}),
        ("file", {"file": upload(factories.package({"readme.txt": "no entry point"}))}),
        ("environment", {"environment": "python2-7"}),
        ("instance_type", {"instance_type": "huge"}),
        ("minimum_instances", {"minimum_instances": 3}),
        ("minimum_instances", {"minimum_instances": "many"}),
        ("maximum_idle_time", {"maximum_idle_time": 0}),
        ("input_fields", {"input_fields": '[{"name": "x", "data_type": "float"}]'}),
        ("input_fields", {"input_fields": "x: double"}),
        ("model_version", {"source": "model"}),
        ("example", {"source": "example", "example": "nope"}),
        ("image", {"source": "image", "image": "", "environment": "container-image"}),
        ("version", {"version": "V 1"}),
    ],
)
def test_bad_input_names_its_field_and_leaves_nothing_behind(
    site: Site, editor: Client, field: str, changes: dict[str, Any]
):
    before = (Deployment.objects.count(), Revision.objects.count())
    told = errors(editor.post(site.project_url("deployment-create"), deploy_form(**changes), headers=JSON))
    assert field in told
    assert (Deployment.objects.count(), Revision.objects.count()) == before
    page = editor.post(site.project_url("deployment-create"), deploy_form(**changes))
    assert page.status_code == 422
    assert 'class="error"' in page.content.decode()


def test_a_taken_name_is_refused(site: Site, editor: Client):
    form = deploy_form(name=site.deployment.name)
    told = errors(editor.post(site.project_url("deployment-create"), form, headers=JSON))
    assert site.deployment.name in told[""][0]


def test_another_projects_model_cannot_be_deployed(site: Site, editor: Client):
    foreign = factories.model_version()
    form = deploy_form(source="model", model_version=str(foreign.pk))
    assert "model_version" in errors(editor.post(site.project_url("deployment-create"), form, headers=JSON))


def test_a_new_revision_rolls_out(site: Site, editor: Client):
    answer = editor.post(site.url("revision-create"), {"source": "package", "file": upload()}, headers=JSON)
    assert answer.json() == {"redirect": site.url("version")}
    site.version.refresh_from_db()
    assert site.version.target_revision.number == 3
    told = errors(editor.post(site.url("revision-create"), {"source": "package", "file": upload(b"x")}, headers=JSON))
    assert list(told) == ["file"]


def test_one_click_rolls_back(site: Site, editor: Client):
    answer = editor.post(site.url("revision-rollback", site.first.number))
    assert (answer.status_code, answer["Location"]) == (302, site.url("version"))
    site.version.refresh_from_db()
    assert site.version.target_revision == site.first
    again = editor.post(site.url("revision-rollback", site.first.number), follow=True)
    assert "is the wanted one already" in again.content.decode()


def test_the_difference_between_revisions_is_shown(site: Site, editor: Client):
    html = editor.get(site.url("revision", 2)).content.decode()
    assert '<span class="diff-line diff-added">+VERSION = 2</span>' in html
    assert editor.get(site.url("revision", 2) + "?against=7").status_code == 404


def test_restart_and_rebuild_begin_rollouts(site: Site, editor: Client):
    editor.post(site.url("version-restart"))
    assert site.version.rollouts.filter(cause=Rollout.Cause.RESTART).count() == 1
    editor.post(site.url("revision-rebuild", 2))
    assert site.version.rollouts.filter(cause=Rollout.Cause.REBUILD).count() == 1


def settings_form(**changes: Any) -> dict[str, Any]:
    return {
        "version": "v1",
        "environment": "python3-11",
        "instance_type": "512mb",
        "minimum_instances": 1,
        "maximum_instances": 3,
        "maximum_idle_time": 60,
        "request_retention_mode": "metadata",
        "request_retention_time": 3600,
        "instance_processes": 2,
        **changes,
    }


def test_settings_of_a_version_are_saved(site: Site, editor: Client):
    assert editor.post(site.url("version-update"), settings_form())["Location"] == site.url("version-settings")
    site.version.refresh_from_db()
    assert (site.version.minimum_instances, site.version.maximum_instances) == (1, 3)
    assert (site.version.request_retention_mode, site.version.instance_processes) == ("metadata", 2)
    page = editor.post(site.url("version-update"), settings_form(minimum_instances=9))
    assert page.status_code == 422
    assert "minimum_instances 9 is above maximum_instances 3" in page.content.decode()


def test_settings_of_a_deployment_are_saved_and_renaming_moves_its_pages(site: Site, editor: Client):
    form = {
        "name": "renamed",
        "description": "New words",
        "default_version": "v1",
        "input_type": "plain",
        "output_type": "structured",
        "input_fields": "",
        "output_fields": '[{"name": "y", "data_type": "int"}]',
    }
    answer = editor.post(site.url("deployment-update"), form)
    assert answer["Location"] == reverse("version-settings", args=[site.project.name, "renamed", "v1"])
    site.deployment.refresh_from_db()
    assert (site.deployment.description, site.deployment.input_type) == ("New words", "plain")


def test_a_second_version_copies_the_first_and_asks_for_a_revision(site: Site, editor: Client):
    url = site.project_url("version-create", site.deployment.name)
    assert 'value="512mb" selected' in editor.get(f"{url}?from=v1").content.decode()
    answer = editor.post(url, settings_form(version="v2"))
    assert answer["Location"].endswith("/versions/v2/revisions/new/")
    assert DeploymentVersion.objects.get(deployment=site.deployment, version="v2").maximum_instances == 3


@pytest.mark.parametrize(("scope", "column"), [("version", "version"), ("deployment", "deployment")])
def test_variables_are_added_and_deleted(site: Site, editor: Client, scope: str, column: str):
    form = {"name": "API_KEY", "value": "hush", "secret": "on", "scope": scope}
    assert editor.post(site.url("version-variable-create"), form).status_code == 302
    made = EnvironmentVariable.objects.get(name="API_KEY")
    assert made.secret
    assert getattr(made, column) == getattr(site, column)
    html = editor.get(site.url("version-settings")).content.decode()
    assert "API_KEY" in html
    assert "hush" not in html
    editor.post(site.url("version-variable-delete", made.pk), {"scope": scope})
    assert not EnvironmentVariable.objects.filter(pk=made.pk).exists()


def test_a_secret_is_replaced_and_an_empty_value_keeps_it(site: Site, editor: Client):
    url = site.url("version-variable", site.variable.pk)
    assert SECRET not in editor.get(url).content.decode()
    assert editor.post(url, {"name": "DB_PASSWORD", "value": "", "secret": "on"}).status_code == 302
    site.variable.refresh_from_db()
    assert site.variable.value == SECRET
    editor.post(url, {"name": "DB_PASSWORD", "value": "another", "secret": "on"})
    site.variable.refresh_from_db()
    assert site.variable.value == "another"
    page = editor.post(url, {"name": "DB_PASSWORD", "value": ""})
    assert "the secret one is not shown again" in page.content.decode()


def test_a_projects_variable_is_changed(site: Site, editor: Client):
    url = site.project_url("project-variable", site.shared.pk)
    assert "https://api.example.com" in editor.get(url).content.decode()
    editor.post(url, {"name": "API_URL", "value": "https://other.example.com"})
    site.shared.refresh_from_db()
    assert site.shared.value == "https://other.example.com"


def test_a_bad_variable_is_refused_at_its_field(site: Site, editor: Client):
    page = editor.post(site.url("version-variable-create"), {"name": "PILOTHOUSE_X", "value": "1"})
    assert page.status_code == 422
    assert "is set by the platform" in page.content.decode()


@pytest.mark.parametrize(
    ("route", "typed"), [("deployment-delete", "name"), ("version-delete", "version"), ("project-delete", "project")]
)
def test_deleting_needs_the_name(site: Site, admin: Client, route: str, typed: str):
    names = {"name": site.deployment.name, "version": "v1", "project": site.project.name}
    args = {"name": site.names[:2], "version": site.names, "project": site.names[:1]}[typed]
    url = reverse(route, args=args)
    kind = {"name": Deployment, "version": DeploymentVersion, "project": Project}[typed]
    admin.post(url, {"name": "something else"})
    before = kind.objects.count()
    assert admin.post(url, {"name": names[typed]}).status_code == 302
    assert kind.objects.count() == before - 1


def test_a_model_is_registered_with_its_first_version(site: Site, editor: Client):
    form = {
        "name": "iris",
        "file": upload(b"\x80\x04pickle", "model.joblib"),
        "framework": "sklearn-joblib",
        "requirements": "scikit-learn==1.5.2",
        "inputs": '[{"name": "x", "data_type": "double"}]',
    }
    answer = editor.post(site.project_url("model-create"), form, headers=JSON)
    assert answer.json() == {"redirect": site.project_url("model", "iris")}
    version = Model.objects.get(name="iris").versions.get()
    assert version.signature["inputs"] == [{"name": "x", "data_type": "double"}]
    bad = {**form, "name": "bad", "file": upload(b"#!/bin/sh", "model.joblib")}
    assert list(errors(editor.post(site.project_url("model-create"), bad, headers=JSON))) == ["file"]
    assert not Model.objects.filter(name="bad").exists()


def test_a_model_in_use_is_kept_and_says_who_uses_it(site: Site, editor: Client):
    factories.revision(site.version, kind="model", model_version=site.model_version)
    page = editor.post(site.project_url("model-delete", site.model.name), follow=True)
    assert "is used by" in page.content.decode()
    assert Model.objects.filter(pk=site.model.pk).exists()


def test_files_are_downloaded(site: Site, editor: Client):
    answer = editor.get(site.url("revision-file", 1))
    assert b"".join(answer.streaming_content) == factories.package()
    assert "package.zip" in answer["Content-Disposition"]


def test_a_new_token_is_shown_once(site: Site, editor: Client):
    shown = editor.post(reverse("token-create"), {"name": "notebook", "lifetime": "30"}).content.decode()
    token = Token.objects.get(user=site.people["editor"])
    secret = shown.split('<code id="new-token">')[1].split("<")[0]
    assert secret.startswith(token.hint)
    later = editor.get(reverse("account")).content.decode()
    assert secret not in later
    assert token.hint in later
    editor.post(reverse("token-revoke", args=[token.pk]))
    assert not Token.objects.exists()


def test_somebody_elses_token_cannot_be_revoked(site: Site, editor: Client):
    factories.token(site.people["admin"])
    editor.post(reverse("token-revoke", args=[Token.objects.get().pk]))
    assert Token.objects.count() == 1


def test_the_password_is_changed_and_the_session_stays(site: Site):
    person = site.people["viewer"]
    person.set_password("the-old-password")
    person.save()
    client = Client()
    client.force_login(person)
    form = {"old_password": "the-old-password", "new_password1": "9-new-words", "new_password2": "9-new-words"}
    assert client.post(reverse("password-change"), {**form, "old_password": "wrong"}).status_code == 422
    assert client.post(reverse("password-change"), form).status_code == 302
    assert client.get(reverse("account")).status_code == 200
    person.refresh_from_db()
    assert person.check_password("9-new-words")


def test_members_are_added_changed_and_removed(site: Site, admin: Client):
    person = site.people["outsider"]
    admin.post(site.project_url("member-add"), {"email": person.email, "role": "viewer"})
    admin.post(site.project_url("member-role", person.pk), {"role": "editor"})
    assert Membership.objects.get(project=site.project, user=person).role == "editor"
    admin.post(site.project_url("member-remove", person.pk))
    assert not Membership.objects.filter(user=person).exists()
    page = admin.post(site.project_url("member-add"), {"email": "nobody@example.com", "role": "viewer"})
    assert "There is no account for" in page.content.decode()


def test_a_member_may_leave_but_not_the_last_admin(site: Site, admin: Client, browser_of: Any):
    viewer = site.people["viewer"]
    assert browser_of("viewer").post(site.project_url("member-remove", viewer.pk))["Location"] == "/projects/"
    page = admin.post(site.project_url("member-remove", site.people["admin"].pk), follow=True)
    assert "is the last admin" in page.content.decode()


def test_a_service_users_token_is_shown_once_and_rotated(site: Site, admin: Client):
    form = {"name": "website", "role": "viewer", "lifetime": "365"}
    first = admin.post(site.project_url("service-user-create"), form).content.decode()
    secret = first.split('<code id="new-token">')[1].split("<")[0]
    user = site.project.service_users.get()
    rotated = admin.post(site.project_url("service-user-rotate", user.pk)).content.decode()
    assert secret not in rotated
    assert 'id="new-token"' in rotated
    assert "new-token" not in admin.get(site.project_url("project-service-users")).content.decode()
    admin.post(site.project_url("service-user-delete", user.pk))
    assert not site.project.service_users.exists()


def test_a_project_is_created_by_a_member_of_the_organization_only(site: Site, editor: Client):
    assert editor.get(reverse("project-create")).status_code == 403
    organization = site.project.organization
    organization.members.create(user=site.people["editor"])
    form = {"name": "fresh", "organization_name": organization.name, "description": ""}
    assert editor.post(reverse("project-create"), form)["Location"] == reverse("deployments", args=["fresh"])
    page = editor.post(reverse("project-create"), {**form, "name": "Not A Name"})
    assert page.status_code == 422
    assert "lower-case" in page.content.decode()


def test_forms_need_the_csrf_token(site: Site):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(site.people["admin"])
    answer = strict.post(site.project_url("project-delete"), {"name": site.project.name})
    assert answer.status_code == 403
    assert Project.objects.filter(pk=site.project.pk).exists()
    assert "Please send it again" in answer.content.decode()
