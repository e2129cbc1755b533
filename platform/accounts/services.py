"""Changes of users, members, service users and tokens. Each checks the gate and leaves an audit event."""

import contextlib
import datetime as dt
import uuid
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import access, audit, tokens
from accounts.access import Permission
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import (
    Membership,
    Organization,
    OrganizationMember,
    Project,
    Role,
    Token,
    User,
    name_validator,
)

SERVICE_DOMAIN = "service.invalid"  # reserved by RFC 2606: mail to a service user goes nowhere


def checked_name(name: Any, field: str = "name") -> str:
    """A valid resource name. Raises Invalid naming the field."""
    if not isinstance(name, str) or not name:
        raise Invalid(**{field: "This field is required"})
    try:
        name_validator(name)
    except ValidationError as error:
        raise Invalid(**{field: error.messages[0]}) from None
    return name


def checked_role(role: Any) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise Invalid(role=f"Unknown role '{role}'; use one of {', '.join(Role.values)}") from None


def checked_expiry(expiry: dt.datetime | None, field: str = "expiry_date") -> dt.datetime | None:
    if expiry is None:
        return None
    if timezone.is_naive(expiry):
        expiry = timezone.make_aware(expiry, dt.UTC)
    if expiry <= timezone.now():
        raise Invalid(**{field: f"{expiry.isoformat()} is in the past; give a later date or leave it empty"})
    return expiry


@transaction.atomic
def create_user(
    actor: User | None, *, email: str, password: str | None, name: str = "", surname: str = "", **flags: bool
) -> User:
    """A person's account, made by the platform team (``actor`` None: by the installation itself)."""
    if actor is not None and not access.is_platform_admin(actor):
        raise Forbidden("Only the platform team creates accounts")
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid(email=f"'{email}' is not an e-mail address") from None
    user = User(email=email.lower(), name=name, surname=surname, **flags)
    if password is not None:
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise Invalid(password=" ".join(error.messages)) from None
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:
        raise Conflict(f"There is already an account for '{email}'") from None
    audit.record(actor or user, "create", user, project=None, new={"email": user.email, **flags})
    return user


@transaction.atomic
def create_organization(actor: User, *, name: str) -> Organization:
    if not access.is_platform_admin(actor):
        raise Forbidden("Only the platform team creates organizations")
    organization = Organization(name=checked_name(name))
    try:
        with transaction.atomic():
            organization.save()
    except IntegrityError:
        raise Conflict(f"There is already an organization named '{name}'") from None
    OrganizationMember.objects.create(organization=organization, user=actor, role=OrganizationMember.Role.ADMIN)
    audit.record(actor, "create", organization, project=None, new={"name": name})
    return organization


def members_of(actor: User, project: Project) -> list[Membership]:
    access.require(actor, Permission.PROJECT_VIEW, project)
    return list(project.memberships.filter(user__is_service=False).select_related("user").order_by("user__email"))


@transaction.atomic
def add_member(actor: User, project: Project, *, email: str, role: str = Role.VIEWER) -> Membership:
    access.require(actor, Permission.PROJECT_ADMIN, project)
    checked = checked_role(role)
    user = User.objects.filter(email=str(email).lower(), is_service=False, is_active=True).first()
    if user is None:
        raise Invalid(email=f"There is no account for '{email}'; ask the platform team to create one")
    membership, created = Membership.objects.get_or_create(project=project, user=user, defaults={"role": checked})
    if not created:
        raise Conflict(f"'{email}' is already a member of '{project.name}' as {membership.role}")
    audit.record(actor, "create", membership, project=project, new={"email": user.email, "role": checked.value})
    return membership


def get_member(actor: User, project: Project, user_id: uuid.UUID | str) -> Membership:
    access.require(actor, Permission.PROJECT_VIEW, project)
    return _membership(project, user_id, service=False)


def _membership(project: Project, user_id: uuid.UUID | str, *, service: bool) -> Membership:
    membership = None
    with contextlib.suppress(ValueError):
        membership = (
            Membership.objects.select_related("user")
            .filter(project=project, user=uuid.UUID(str(user_id)), user__is_service=service)
            .first()
        )
    if membership is None:
        raise NotFound("Service user" if service else "Member", user_id)
    return membership


def _lock_admins(project: Project) -> None:
    # Two admins who remove each other at once must not both succeed.
    Project.objects.select_for_update().get(pk=project.pk)


def _keep_an_admin(project: Project, leaving: Membership) -> None:
    others = project.memberships.filter(role=Role.ADMIN, user__is_service=False).exclude(pk=leaving.pk)
    if leaving.role == Role.ADMIN and not leaving.user.is_service and not others.exists():
        raise Conflict(f"'{leaving.user}' is the last admin of '{project.name}'; make somebody else admin first")


@transaction.atomic
def set_role(actor: User, project: Project, user_id: uuid.UUID | str, *, role: str) -> Membership:
    access.require(actor, Permission.PROJECT_ADMIN, project)
    checked = checked_role(role)
    _lock_admins(project)
    membership = _membership(project, user_id, service=False)
    if checked != Role.ADMIN:
        _keep_an_admin(project, membership)
    old, membership.role = membership.role, checked
    membership.save(update_fields=["role"])
    audit.record(actor, "update", membership, project=project, old={"role": old}, new={"role": checked.value})
    return membership


@transaction.atomic
def remove_member(actor: User, project: Project, user_id: uuid.UUID | str) -> None:
    """An admin removes anybody, a member may leave; the last admin stays."""
    access.require(actor, Permission.PROJECT_VIEW, project)
    if str(actor.pk) != str(user_id):
        access.require(actor, Permission.PROJECT_ADMIN, project)
    _lock_admins(project)
    membership = _membership(project, user_id, service=False)
    _keep_an_admin(project, membership)
    audit.record(
        actor, "delete", membership, project=project, old={"email": membership.user.email, "role": membership.role}
    )
    membership.delete()


def service_members_of(actor: User, project: Project) -> list[Membership]:
    access.require(actor, Permission.PROJECT_VIEW, project)
    return list(project.memberships.filter(user__is_service=True).select_related("user").order_by("user__name"))


def service_users_of(actor: User, project: Project) -> list[User]:
    access.require(actor, Permission.PROJECT_ADMIN, project)
    return list(project.service_users.order_by("name").prefetch_related("tokens", "memberships"))


def get_service_user(actor: User, project: Project, user_id: uuid.UUID | str) -> User:
    access.require(actor, Permission.PROJECT_ADMIN, project)
    return _membership(project, user_id, service=True).user


@transaction.atomic
def create_service_user(
    actor: User,
    project: Project,
    *,
    name: str = "",
    description: str = "",
    expiry_date: dt.datetime | None = None,
    role: str = Role.VIEWER,
) -> tuple[User, str]:
    """A user for other software, and its token, which is shown this once."""
    access.require(actor, Permission.PROJECT_ADMIN, project)
    checked = checked_role(role)
    expiry = checked_expiry(expiry_date)
    if not name or len(name) > 100:
        raise Invalid(name="Give the service user a name of at most 100 characters")
    user = User(
        email=f"{uuid.uuid4().hex}@{SERVICE_DOMAIN}",
        name=name,
        description=description,
        is_service=True,
        project=project,
    )
    user.set_unusable_password()
    user.save()
    Membership.objects.create(project=project, user=user, role=checked)
    _, secret = tokens.issue(user, name=name, expires_at=expiry)
    audit.record(
        actor,
        "create",
        user,
        project=project,
        new={"name": name, "role": checked.value, "expiry_date": expiry, "token": audit.SECRET},
    )
    return user, secret


@transaction.atomic
def update_service_user(
    actor: User,
    project: Project,
    user_id: uuid.UUID | str,
    *,
    name: str | None = None,
    description: str | None = None,
    role: str | None = None,
    **expiry: dt.datetime | None,
) -> User:
    """Changes what is given; ``expiry_date`` (which may be None: never) is that of its token."""
    access.require(actor, Permission.PROJECT_ADMIN, project)
    membership = _membership(project, user_id, service=True)
    user = membership.user
    changes = {key: value for key, value in (("name", name), ("description", description)) if value is not None}
    if "name" in changes and not 0 < len(changes["name"]) <= 100:
        raise Invalid(name="Give the service user a name of at most 100 characters")
    old, new = audit.changed(user, changes)
    for key, value in new.items():
        setattr(user, key, value)
    user.save(update_fields=list(new))
    if role is not None and role != membership.role:
        checked = checked_role(role)
        old["role"], new["role"] = membership.role, checked.value
        membership.role = checked
        membership.save(update_fields=["role"])
    if "expiry_date" in expiry:
        new["expiry_date"] = checked_expiry(expiry["expiry_date"])
        user.tokens.update(expires_at=new["expiry_date"])
    if new:
        audit.record(actor, "update", user, project=project, old=old, new=new)
    return user


@transaction.atomic
def rotate_service_token(
    actor: User, project: Project, user_id: uuid.UUID | str, *, expiry_date: dt.datetime | None = None
) -> tuple[User, str]:
    """A new token for a service user; the old ones end at once."""
    access.require(actor, Permission.PROJECT_ADMIN, project)
    expiry = checked_expiry(expiry_date)
    user = _membership(project, user_id, service=True).user
    user.tokens.all().delete()
    _, secret = tokens.issue(user, name=user.name, expires_at=expiry)
    audit.record(actor, "rotate", user, project=project, new={"token": audit.SECRET, "expiry_date": expiry})
    return user, secret


@transaction.atomic
def delete_service_user(actor: User, project: Project, user_id: uuid.UUID | str) -> None:
    access.require(actor, Permission.PROJECT_ADMIN, project)
    user = _membership(project, user_id, service=True).user
    audit.record(actor, "delete", user, project=project, old={"name": user.name})
    user.delete()


@transaction.atomic
def create_token(actor: User, *, name: str = "", expires_at: dt.datetime | None = None) -> tuple[Token, str]:
    """A personal token of the actor, with all of the actor's rights."""
    if actor.is_service:
        raise Forbidden("A service user's token is rotated by an admin of its project")
    if len(name) > 100:
        raise Invalid(name="Use at most 100 characters")
    token, secret = tokens.issue(actor, name=name, expires_at=checked_expiry(expires_at, "expires_at"))
    audit.record(actor, "create", token, project=None, new={"name": name, "expires_at": token.expires_at})
    return token, secret


@transaction.atomic
def revoke_token(actor: User, token_id: uuid.UUID | str) -> None:
    try:
        token = Token.objects.filter(user=actor, pk=uuid.UUID(str(token_id))).first()
    except ValueError:
        token = None
    if token is None:
        raise NotFound("Token", token_id)
    audit.record(actor, "delete", token, project=None, old={"name": token.name})
    token.delete()
