"""Projects: create, update, suspend, quotas, delete, and what they use."""

import hashlib
import re
from typing import Any, TypedDict, Unpack

from django.conf import settings
from django.db import IntegrityError, transaction

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Forbidden
from accounts.models import Membership, Organization, Project, Role, User
from deployments.models import DeploymentVersion, Rollout
from deployments.services import environments, intent, quotas
from deployments.services.validation import Checker

_NAMESPACE_LENGTH = 63
_ORIGIN = re.compile(r"^https?://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?\Z")
_POD_COLUMNS = frozenset({"name"})


class ProjectChanges(TypedDict, total=False):
    """Keywords of `update_project`. ``suspend`` stops every instance of the project and refuses its requests."""

    name: str
    description: str
    labels: dict[str, str]
    advanced_permissions: bool
    credits: float | None
    cors_origins: list[str]
    suspend: bool
    suspended_reason: str


@transaction.atomic
def create_project(
    actor: User,
    organization: Organization,
    *,
    name: str,
    description: str = "",
    labels: dict[str, str] | None = None,
    advanced_permissions: bool = False,
    credits: float | None = None,
    cors_origins: list[str] | None = None,
) -> Project:
    """A project whose creator is its admin. Raises Invalid by field, Conflict for a name that is taken.

    Names are unique in the installation, since the public API addresses a project by its name alone.
    """
    access.require_project_creation(actor, organization)
    columns = _columns(
        {
            "name": name,
            "description": description,
            "labels": labels or {},
            "advanced_permissions": advanced_permissions,
            "credits": credits,
            "cors_origins": cors_origins or [],
        }
    )
    project = Project(organization=organization, namespace=_free_namespace(name), **columns)
    _save(project)
    Membership.objects.create(project=project, user=actor, role=Role.ADMIN)
    audit.record(actor, "create", project, project=project, new={**columns, "namespace": project.namespace})
    return project


@transaction.atomic
def update_project(actor: User, project: Project, **changes: Unpack[ProjectChanges]) -> Project:
    """Changes what is given. A new name reaches the pods by a rollout; the namespace keeps its name."""
    access.require(actor, Permission.PROJECT_ADMIN, project)
    project = intent.lock_project(project)
    old, new = audit.changed(project, _columns(changes))
    if "suspended" in new and not new["suspended"]:
        old["suspended_reason"], new["suspended_reason"] = project.suspended_reason, ""
    if not new:
        return project
    for name, value in new.items():
        setattr(project, name, value)
    _save(project, update_fields=[*new, "last_updated"])
    audit.record(actor, "update", project, project=project, old=old, new=new)
    running = DeploymentVersion.objects.filter(
        deployment__project=project, target_revision__isnull=False
    ).select_related("deployment__project")
    if "suspended" in new:
        for version in running:
            intent.change(intent.lock(version))
    elif _POD_COLUMNS & set(new) and not project.suspended:
        for version in running:
            intent.roll_out(intent.lock(version), actor, Rollout.Cause.SETTINGS)
    return project


@transaction.atomic
def set_quotas(
    actor: User,
    project: Project,
    *,
    cpu: float | None,
    memory: int | None,
    accelerators: int | None,
) -> Project:
    """Ceilings over what the project may run at once: cores, MiB, devices; None for no ceiling.

    What runs already stays, also above a lowered ceiling; it only cannot grow. For the platform team.
    """
    if not access.is_platform_admin(actor):
        raise Forbidden("Only the platform team sets quotas; ask it for more")
    check = Checker()
    columns = {
        "quota_cpu": None if cpu is None else check.number("cpu", cpu),
        "quota_memory": None if memory is None else check.integer("memory", memory),
        "quota_accelerators": None if accelerators is None else check.integer("accelerators", accelerators),
    }
    check.done()
    project = intent.lock_project(project)
    old, new = audit.changed(project, columns)
    if new:
        for name, value in new.items():
            setattr(project, name, value)
        project.save(update_fields=[*new, "last_updated"])
        audit.record(actor, "update", project, project=project, old=old, new=new)
    return project


@transaction.atomic
def delete_project(actor: User, project: Project) -> None:
    """Deletes the project with all that is in it; its namespace in the cluster is removed after."""
    access.require(actor, Permission.PROJECT_ADMIN, project)
    project = Project.objects.select_for_update().get(pk=intent.lock_project(project).pk)
    old = {
        "namespace": project.namespace,
        "deployments": list(project.deployments.values_list("name", flat=True)),
        "models": list(project.models.values_list("name", flat=True)),
    }
    # The trail outlives the project by its name.
    audit.record(actor, "delete", project, project=project, old=old)
    environments.discard_tree(project)
    project.delete()
    intent.collect_garbage_later()


def resource_usage(actor: User, project: Project) -> dict[str, Any]:
    """Counts in the public API's shape, and quotas beside what is used of them (cores, MiB, devices)."""
    access.require(actor, Permission.PROJECT_VIEW, project)
    used = quotas.usage(project)
    return {
        "deployments": project.deployments.count(),
        "deployment_versions": DeploymentVersion.objects.filter(deployment__project=project).count(),
        "models": project.models.count(),
        "pipelines": 0,
        "pipeline_versions": 0,
        "buckets": 0,
        "environments": project.environments.count(),
        "cpu": {"used": used.cpu, "quota": project.quota_cpu},
        "memory": {"used": used.memory, "quota": project.quota_memory},
        "accelerators": {"used": used.accelerators, "quota": project.quota_accelerators},
    }


def namespace_name(name: str, attempt: int = 0) -> str:
    """A DNS label (RFC 1123) from the installation's prefix and a project's name.

    A digest of both takes the place of what does not fit, and tells attempts apart.
    """
    whole = f"{settings.PILOTHOUSE_NAMESPACE_PREFIX}{name}"
    if attempt == 0 and len(whole) <= _NAMESPACE_LENGTH and not whole.startswith("kube-") and whole != "default":
        return whole
    suffix = hashlib.sha256(f"{whole} {attempt}".encode()).hexdigest()[:8]
    return f"{whole[: _NAMESPACE_LENGTH - 9].removeprefix('kube-').rstrip('-')}-{suffix}"


def _free_namespace(name: str) -> str:
    attempt = 0
    # Taken by a project that was renamed since.
    while Project.objects.filter(namespace=namespace_name(name, attempt)).exists():
        attempt += 1
    return namespace_name(name, attempt)


def _columns(given: dict[str, Any] | ProjectChanges) -> dict[str, Any]:
    check = Checker()
    check.unknown(given, ProjectChanges.__annotations__)
    columns: dict[str, Any] = {}
    for field, value in given.items():
        match field:
            case "name":
                columns[field] = check.name(field, value)
            case "description":
                columns[field] = check.text(field, value or "")
            case "suspended_reason":
                columns[field] = check.text(field, value or "", longest=300)
            case "labels":
                columns[field] = check.labels(field, value if value is not None else {})
            case "advanced_permissions":
                columns[field] = check.flag(field, value)
            case "suspend":
                columns["suspended"] = check.flag(field, value)
            case "credits":
                columns[field] = None if value is None else check.number(field, value)
            case "cors_origins":
                columns[field] = _origins(check, value if value is not None else [])
    check.done()
    return columns


def _origins(check: Checker, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 100:
        check.problem("cors_origins", 'Give a list of at most 100, for example ["https://app.example.com"]')
        return []
    for origin in value:
        if not isinstance(origin, str) or not _ORIGIN.match(origin):
            check.problem(
                "cors_origins", f"{origin!r} is no origin; give scheme and host, such as https://app.example.com:8443"
            )
    return value


def _save(project: Project, update_fields: list[str] | None = None) -> None:
    try:
        with transaction.atomic():
            project.save(update_fields=update_fields)
    except IntegrityError:
        raise Conflict(f"There is already a project named '{project.name}'; choose another name") from None
