"""The one permission gate: every view, API endpoint, socket and service asks here and nowhere else."""

import enum
import uuid

from django.contrib.auth.models import AnonymousUser
from django.db.models import Case, Exists, Q, QuerySet, Subquery, Value, When

from accounts.errors import Forbidden, NotFound
from accounts.models import Membership, Organization, OrganizationMember, Project, Role, User

AnyUser = User | AnonymousUser


class Permission(enum.StrEnum):
    PROJECT_VIEW = "project.view"
    REQUEST_SEND = "request.send"
    PROJECT_EDIT = "project.edit"
    SECRET_WRITE = "secret.write"  # noqa: S105  (the name of a permission)
    PROJECT_ADMIN = "project.admin"


_VIEWER = frozenset({Permission.PROJECT_VIEW, Permission.REQUEST_SEND})
_EDITOR = _VIEWER | {Permission.PROJECT_EDIT, Permission.SECRET_WRITE}
_ADMIN = _EDITOR | {Permission.PROJECT_ADMIN}
GRANTS: dict[Role, frozenset[Permission]] = {Role.VIEWER: _VIEWER, Role.EDITOR: _EDITOR, Role.ADMIN: _ADMIN}


def is_platform_admin(user: AnyUser) -> bool:
    """The platform team: the admin panel, every organization and project."""
    return user.is_active and user.is_superuser


def role_of(user: AnyUser, project: Project) -> Role | None:
    """The user's role in the project; None for an outsider, an inactive or an anonymous user."""
    if not isinstance(user, User) or not user.is_active:
        return None
    if user.is_superuser:
        return Role.ADMIN
    administers = OrganizationMember.objects.filter(
        user=user, organization=project.organization_id, role=OrganizationMember.Role.ADMIN
    )
    role = (
        User.objects.filter(pk=user.pk)
        .values_list(
            Case(
                When(Exists(administers), then=Value(Role.ADMIN.value)),
                default=Subquery(Membership.objects.filter(user=user, project=project).values("role")[:1]),
            ),
            flat=True,
        )
        .first()
    )
    return Role(role) if role else None


def can(user: AnyUser, permission: Permission, project: Project) -> bool:
    role = role_of(user, project)
    return role is not None and permission in GRANTS[role]


def require(user: AnyUser, permission: Permission, project: Project) -> None:
    """Raises NotFound for an outsider and Forbidden for a member whose role does not reach."""
    role = role_of(user, project)
    if role is None:
        raise NotFound("Project", project.name)
    if permission not in GRANTS[role]:
        needed = next(r for r in (Role.VIEWER, Role.EDITOR, Role.ADMIN) if permission in GRANTS[r])
        raise Forbidden(f"This needs the role '{needed.value}' in project '{project.name}'; yours is '{role.value}'")


def projects_of(user: AnyUser) -> QuerySet[Project]:
    """The projects a user may see."""
    if not isinstance(user, User) or not user.is_active:
        return Project.objects.none()
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(
        Q(pk__in=Membership.objects.filter(user=user).values("project"))
        | Q(
            organization__in=OrganizationMember.objects.filter(user=user, role=OrganizationMember.Role.ADMIN).values(
                "organization"
            )
        )
    )


def get_project(user: AnyUser, name: str, permission: Permission = Permission.PROJECT_VIEW) -> Project:
    """The project of that name, if the user may see it. Raises NotFound and Forbidden."""
    project = Project.objects.filter(name=name).select_related("organization").first()
    if project is None:
        raise NotFound("Project", name)
    require(user, permission, project)
    return project


def project_by_id(user: AnyUser, project_id: uuid.UUID, permission: Permission) -> Project:
    project = Project.objects.filter(pk=project_id).first()
    if project is None:
        raise NotFound("Project", project_id)
    require(user, permission, project)
    return project


def organizations_of(user: AnyUser) -> QuerySet[Organization]:
    """Organizations a user belongs to, directly or through a project."""
    if not isinstance(user, User) or not user.is_active:
        return Organization.objects.none()
    if user.is_superuser:
        return Organization.objects.all()
    return Organization.objects.filter(
        Q(pk__in=OrganizationMember.objects.filter(user=user).values("organization"))
        | Q(pk__in=Membership.objects.filter(user=user).values("project__organization"))
    )


def get_organization(user: AnyUser, name: str) -> Organization:
    organization = organizations_of(user).filter(name=name).first()
    if organization is None:
        raise NotFound("Organization", name)
    return organization


def require_project_creation(user: AnyUser, organization: Organization) -> None:
    """Members of the organization and the platform team may create projects in it."""
    if is_platform_admin(user):
        return
    if not isinstance(user, User) or user.is_service:
        raise Forbidden("Only a person can create a project")
    if not OrganizationMember.objects.filter(user=user, organization=organization).exists():
        raise Forbidden(f"Creating a project needs membership of organization '{organization.name}'")
