"""Members, service users and tokens: who may change them, what is refused, what is left in the audit trail."""

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts import audit, services, tokens
from accounts.errors import Conflict, Forbidden, Invalid, NotFound, ServiceError, Unauthenticated
from accounts.models import AuditEvent, Membership, Project, Role, Token, User
from tests.app import factories

pytestmark = pytest.mark.django_db

TOMORROW = timezone.now() + dt.timedelta(days=1)


def admin_only_calls(project: Project) -> dict[str, Callable[[User], Any]]:
    bob = factories.member(project, Role.VIEWER)
    fresh = factories.user()
    keeper = factories.member(project, Role.ADMIN)
    service, _ = services.create_service_user(keeper, project, name="robot")
    return {
        "add_member": lambda actor: services.add_member(actor, project, email=fresh.email),
        "set_role": lambda actor: services.set_role(actor, project, bob.pk, role="editor"),
        "remove_member": lambda actor: services.remove_member(actor, project, bob.pk),
        "create_service_user": lambda actor: services.create_service_user(actor, project, name="other"),
        "update_service_user": lambda actor: services.update_service_user(actor, project, service.pk, name="new"),
        "rotate": lambda actor: services.rotate_service_token(actor, project, service.pk),
        "get_service_user": lambda actor: services.get_service_user(actor, project, service.pk),
        "list_service_users": lambda actor: services.service_users_of(actor, project),
        "delete_service_user": lambda actor: services.delete_service_user(actor, project, service.pk),
    }


ADMIN_ONLY = (
    "add_member",
    "set_role",
    "remove_member",
    "create_service_user",
    "update_service_user",
    "rotate",
    "get_service_user",
    "list_service_users",
    "delete_service_user",
)


@pytest.mark.parametrize("call", ADMIN_ONLY)
def test_only_an_admin_manages_members_and_service_users(call: str) -> None:
    project = factories.project()
    people = factories.people(project)
    action = admin_only_calls(project)[call]
    before = AuditEvent.objects.count()
    for who, refusal in (("outsider", NotFound), ("viewer", Forbidden), ("editor", Forbidden)):
        with pytest.raises(refusal):
            action(people[who])
    assert AuditEvent.objects.count() == before
    action(people["admin"])


def test_every_change_leaves_old_and_new_values() -> None:
    project = factories.project()
    admin = factories.member(project, Role.ADMIN)
    bob = factories.user("bob@example.com")
    services.add_member(admin, project, email="BOB@example.com", role="viewer")
    services.set_role(admin, project, bob.pk, role="editor")
    services.remove_member(admin, project, bob.pk)
    created, updated, deleted = AuditEvent.objects.filter(project=project).order_by("id")
    assert (created.action, created.new) == ("create", {"email": "bob@example.com", "role": "viewer"})
    assert (updated.action, updated.old, updated.new) == ("update", {"role": "viewer"}, {"role": "editor"})
    assert (deleted.action, deleted.old) == ("delete", {"email": "bob@example.com", "role": "editor"})
    assert {event.actor for event in (created, updated, deleted)} == {admin}


def test_the_trail_outlives_the_project_and_the_actor() -> None:
    project = factories.project(name="gone")
    admin = factories.member(project, Role.ADMIN, factories.user("ann@example.com"))
    services.create_service_user(admin, project, name="robot")
    project.delete()
    admin.delete()
    event = AuditEvent.objects.get(object_name="robot")
    assert (event.project, event.project_name, event.actor, event.actor_name) == (None, "gone", None, "ann@example.com")


def test_the_last_admin_can_neither_leave_nor_step_down() -> None:
    project = factories.project()
    admin = factories.member(project, Role.ADMIN)
    with pytest.raises(Conflict, match="last admin"):
        services.remove_member(admin, project, admin.pk)
    with pytest.raises(Conflict, match="last admin"):
        services.set_role(admin, project, admin.pk, role="viewer")
    second = factories.member(project, Role.ADMIN)
    services.remove_member(admin, project, admin.pk)
    assert [m.user for m in project.memberships.all()] == [second]


@pytest.mark.django_db(transaction=True)
def test_two_admins_who_remove_each_other_at_once_leave_one() -> None:
    project = factories.project()
    first, second = factories.member(project, Role.ADMIN), factories.member(project, Role.ADMIN)
    barrier = threading.Barrier(2)
    refused: list[ServiceError] = []

    def remove(actor: User, other: User) -> None:
        try:
            barrier.wait(10)
            services.remove_member(actor, project, other.pk)
        except ServiceError as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert Membership.objects.filter(project=project, role=Role.ADMIN).count() == 1
    assert len(refused) == 1


def test_a_member_may_leave() -> None:
    project = factories.project()
    factories.member(project, Role.ADMIN)
    viewer = factories.member(project, Role.VIEWER)
    services.remove_member(viewer, project, viewer.pk)
    assert not project.memberships.filter(user=viewer).exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"email": "nobody@example.com"}, "email"),
        ({"email": "bob@example.com", "role": "owner"}, "role"),
    ],
)
def test_a_bad_member_is_refused_by_field(arguments: dict[str, str], field: str) -> None:
    project = factories.project()
    admin = factories.member(project, Role.ADMIN)
    factories.user("bob@example.com")
    with pytest.raises(Invalid) as refusal:
        services.add_member(admin, project, **arguments)
    assert set(refusal.value.fields) == {field}
    assert project.memberships.count() == 1


def test_a_member_is_added_once_and_never_a_service_user() -> None:
    project, other = factories.project(), factories.project()
    admin = factories.member(project, Role.ADMIN)
    with pytest.raises(Conflict, match="already a member"):
        services.add_member(admin, project, email=admin.email)
    robot, _ = services.create_service_user(factories.member(other, Role.ADMIN), other, name="robot")
    with pytest.raises(Invalid):
        services.add_member(admin, project, email=robot.email)
    with pytest.raises(NotFound):
        services.get_service_user(admin, project, robot.pk)
    with pytest.raises(NotFound):
        services.get_member(admin, project, "not-a-uuid")


def test_a_service_user_signs_in_by_token_only_until_it_is_rotated_or_deleted() -> None:
    project = factories.project()
    admin = factories.member(project, Role.ADMIN)
    robot, first = services.create_service_user(admin, project, name="robot", role="editor")
    assert tokens.authenticate(first)[0] == robot
    assert not robot.has_usable_password()
    _, second = services.rotate_service_token(admin, project, robot.pk)
    with pytest.raises(Unauthenticated, match="not valid"):
        tokens.authenticate(first)
    assert tokens.authenticate(second)[0] == robot
    services.delete_service_user(admin, project, robot.pk)
    with pytest.raises(Unauthenticated):
        tokens.authenticate(second)


def test_secrets_are_kept_as_digests_and_stay_out_of_the_trail() -> None:
    project = factories.project()
    admin = factories.member(project, Role.ADMIN)
    _, secret = services.create_service_user(admin, project, name="robot")
    token, personal = services.create_token(admin, name="laptop")
    for text in (secret, personal):
        assert not Token.objects.filter(digest=text).exists()
        assert not any(text in str(event.new) + str(event.old) for event in AuditEvent.objects.all())
    assert token.hint != personal
    assert personal.startswith(token.hint)


def test_an_expired_token_says_so() -> None:
    person = factories.user()
    token, secret = services.create_token(person, expires_at=TOMORROW)
    Token.objects.filter(pk=token.pk).update(expires_at=timezone.now())
    with pytest.raises(Unauthenticated, match="expired at"):
        tokens.authenticate(secret)


def test_a_token_of_a_deactivated_user_is_worth_nothing() -> None:
    person = factories.user()
    _, secret = services.create_token(person)
    person.is_active = False
    person.save()
    with pytest.raises(Unauthenticated):
        tokens.authenticate(secret)


def test_expiry_must_lie_ahead_and_can_be_changed() -> None:
    project = factories.project()
    admin = factories.member(project, Role.ADMIN)
    yesterday = timezone.now() - dt.timedelta(days=1)
    with pytest.raises(Invalid) as refusal:
        services.create_service_user(admin, project, name="robot", expiry_date=yesterday)
    assert set(refusal.value.fields) == {"expiry_date"}
    robot, _ = services.create_service_user(admin, project, name="robot")
    services.update_service_user(admin, project, robot.pk, expiry_date=TOMORROW)
    assert robot.tokens.get().expires_at == TOMORROW


def test_a_token_is_revoked_by_its_user_alone() -> None:
    person, other = factories.user(), factories.user()
    token, _ = services.create_token(person)
    with pytest.raises(NotFound):
        services.revoke_token(other, token.pk)
    services.revoke_token(person, token.pk)
    assert not person.tokens.exists()


def test_a_service_user_makes_no_token_for_itself() -> None:
    project = factories.project()
    robot, _ = services.create_service_user(factories.member(project, Role.ADMIN), project, name="robot")
    with pytest.raises(Forbidden):
        services.create_token(robot)


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [("not an address", "a long enough pass", "email"), ("ann@example.com", "12345", "password")],
)
def test_a_bad_account_is_refused_by_field(email: str, password: str, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        services.create_user(factories.superuser(), email=email, password=password)
    assert set(refusal.value.fields) == {field}
    assert not User.objects.filter(email=email).exists()


def test_accounts_are_made_by_the_platform_team_once_per_address() -> None:
    boss = factories.superuser()
    services.create_user(boss, email="Ann@Example.com", password="correct horse battery")
    with pytest.raises(Conflict):
        services.create_user(boss, email="ann@example.COM", password="correct horse battery")
    with pytest.raises(Forbidden):
        services.create_user(factories.user(), email="bob@example.com", password="correct horse battery")


def test_organizations_are_made_by_the_platform_team() -> None:
    boss = factories.superuser()
    services.create_organization(boss, name="acme")
    with pytest.raises(Conflict):
        services.create_organization(boss, name="acme")
    with pytest.raises(Invalid):
        services.create_organization(boss, name="Acme Inc.")
    with pytest.raises(Forbidden):
        services.create_organization(factories.user(), name="other")


def test_only_what_changed_is_recorded() -> None:
    project = factories.project()
    project.description = "old"
    old, new = audit.changed(project, {"description": "new", "suspended": False})
    assert (old, new) == ({"description": "old"}, {"description": "new"})
