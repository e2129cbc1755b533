"""The permission gate: who may do what, and that an outsider cannot tell a hidden project from a missing one."""

import pytest
from django.contrib.auth.models import AnonymousUser

from accounts import access
from accounts.access import Permission
from accounts.errors import Forbidden, NotFound
from accounts.models import OrganizationMember, Role
from tests.app import factories

pytestmark = pytest.mark.django_db

EXPECTED = {
    "admin": set(Permission),
    "editor": set(Permission) - {Permission.PROJECT_ADMIN},
    "viewer": {Permission.PROJECT_VIEW, Permission.REQUEST_SEND},
    "outsider": set(),
}


@pytest.mark.parametrize("who", EXPECTED)
def test_each_role_has_its_permissions_and_no_other(who: str) -> None:
    project = factories.project()
    person = factories.people(project)[who]
    assert {permission for permission in Permission if access.can(person, permission, project)} == EXPECTED[who]


def test_outsider_gets_the_same_refusal_as_for_a_project_that_does_not_exist() -> None:
    project = factories.project(name="secret")
    outsider = factories.user()
    with pytest.raises(NotFound) as hidden:
        access.get_project(outsider, "secret")
    project.delete()
    with pytest.raises(NotFound) as missing:
        access.get_project(outsider, "secret")
    assert hidden.value.message == missing.value.message


def test_a_member_whose_role_does_not_reach_is_told_which_role_does() -> None:
    project = factories.project(name="apples")
    viewer = factories.member(project, Role.VIEWER)
    with pytest.raises(Forbidden, match="needs the role 'editor' in project 'apples'; yours is 'viewer'"):
        access.require(viewer, Permission.PROJECT_EDIT, project)


def test_an_inactive_member_and_an_anonymous_user_have_no_role() -> None:
    project = factories.project()
    gone = factories.member(project, Role.ADMIN, factories.user(is_active=False))
    for person in (gone, AnonymousUser()):
        assert access.role_of(person, project) is None
        assert not access.projects_of(person).exists()
        assert not access.organizations_of(person).exists()


def test_an_organization_admin_is_admin_of_its_projects_and_a_plain_member_is_not() -> None:
    admin, member = factories.user(), factories.user()
    organization = factories.organization(admin=admin)
    OrganizationMember.objects.create(organization=organization, user=member)
    project = factories.project(organization=organization)
    elsewhere = factories.project()
    assert access.role_of(admin, project) == Role.ADMIN
    assert access.role_of(admin, elsewhere) is None
    assert access.role_of(member, project) is None
    assert list(access.projects_of(admin)) == [project]


def test_an_organization_admin_with_a_lower_project_role_stays_admin() -> None:
    admin = factories.user()
    project = factories.project(organization=factories.organization(admin=admin))
    factories.member(project, Role.VIEWER, admin)
    assert access.role_of(admin, project) == Role.ADMIN


def test_projects_of_lists_each_project_once() -> None:
    admin = factories.user()
    project = factories.project(organization=factories.organization(admin=admin))
    factories.member(project, Role.EDITOR, admin)
    assert list(access.projects_of(admin)) == [project]


def test_who_may_create_projects() -> None:
    admin, member, stranger = factories.user(), factories.user(), factories.user()
    organization = factories.organization(admin=admin)
    OrganizationMember.objects.create(organization=organization, user=member)
    service = factories.user(is_service=True, project=factories.project(organization=organization))
    for person in (admin, member, factories.superuser()):
        access.require_project_creation(person, organization)
    for person in (stranger, service):
        with pytest.raises(Forbidden):
            access.require_project_creation(person, organization)
