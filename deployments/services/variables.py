"""Environment variables of projects, deployments and versions. The nearest scope wins; secrets are write-only."""

import dataclasses
import re
import uuid
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import Project, User
from deployments.models import Deployment, DeploymentVersion, EnvironmentVariable, Revision, Rollout
from deployments.services import intent

Scope = Project | Deployment | DeploymentVersion

MAX_NAME = 200
MAX_VALUE = 64 * 1024
# All variables of a version become one Secret, which Kubernetes limits to 1 MiB.
MAX_TOTAL = 900 * 1024
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED_PREFIXES = ("PILOTHOUSE_", "KUBERNETES_")
_RESERVED = frozenset({"PATH", "HOME", "HOSTNAME", "POD_IP", "LD_PRELOAD", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable as it may be shown: ``value`` is None for a secret.

    ``inheritance_type`` is "project" or "deployment" and ``inheritance_name`` its name where the variable comes from
    further out, None where it belongs to the scope itself.
    """

    id: uuid.UUID
    name: str
    value: str | None
    secret: bool
    inheritance_type: str | None = None
    inheritance_name: str | None = None


def check_name(name: Any) -> str:
    """A usable name. Raises Invalid on the field ``name``."""
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > MAX_NAME:
        raise Invalid(
            name=f"{str(name)[:80]!r} is not allowed; use letters, digits and underscores, not starting with a digit, "
            f"at most {MAX_NAME}"
        )
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        raise Invalid(name=f"'{name}' is set by the platform; choose another name")
    return name


def list_variables(actor: User, scope: Scope) -> list[Variable]:
    """The scope's variables and those it inherits and does not override, by name."""
    access.require(actor, Permission.PROJECT_VIEW, _project(scope))
    return sorted((_shown(row, scope) for row in _nearest(_visible_from(scope)).values()), key=lambda shown: shown.name)


def get_variable(actor: User, scope: Scope, variable_id: uuid.UUID | str) -> Variable:
    """One of the scope's own variables. Raises NotFound."""
    access.require(actor, Permission.PROJECT_VIEW, _project(scope))
    return _shown(_own_variable(scope, variable_id), scope)


@transaction.atomic
def create_variable(actor: User, scope: Scope, *, name: str, value: str = "", secret: bool = False) -> Variable:
    """Adds a variable; versions it reaches are rolled over. Raises Invalid, and Conflict for a name that is taken."""
    project = _permitted(actor, scope)
    row = EnvironmentVariable(
        **_owner(scope), name=check_name(name), value=_checked_value(value), secret=_checked_flag(secret)
    )
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        raise Conflict(f"There is already a variable named '{name}' here; change that one") from None
    audit.record(actor, "create", row, project=project, new=_audited(row.name, row.value, row.secret))
    _apply(actor, scope, {row.name})
    return _shown(row, scope)


@transaction.atomic
def update_variable(
    actor: User,
    scope: Scope,
    variable_id: uuid.UUID | str,
    *,
    name: str | None = None,
    value: str | None = None,
    secret: bool | None = None,
) -> Variable:
    """Changes what is given. A secret can only be made readable together with a new value."""
    project = _permitted(actor, scope)
    row = _own_variable(scope, variable_id, lock=True)
    old = _audited(row.name, row.value, row.secret)
    before = (row.name, row.value, row.secret)
    if secret is not None and row.secret and not _checked_flag(secret) and value is None:
        raise Invalid(value="Give a new value to make this variable readable; the secret one is not shown again")
    row.name = check_name(name) if name is not None else row.name
    row.value = _checked_value(value) if value is not None else row.value
    row.secret = _checked_flag(secret) if secret is not None else row.secret
    if (row.name, row.value, row.secret) == before:
        return _shown(row, scope)
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        raise Conflict(f"There is already a variable named '{row.name}' here; change that one") from None
    audit.record(actor, "update", row, project=project, old=old, new=_audited(row.name, row.value, row.secret))
    if (row.name, row.value) != before[:2]:
        _apply(actor, scope, {row.name, before[0]})
    return _shown(row, scope)


@transaction.atomic
def delete_variable(actor: User, scope: Scope, variable_id: uuid.UUID | str) -> None:
    project = _permitted(actor, scope)
    row = _own_variable(scope, variable_id, lock=True)
    audit.record(actor, "delete", row, project=project, old=_audited(row.name, row.value, row.secret))
    row.delete()
    _apply(actor, scope, {row.name})


@transaction.atomic
def copy_variables(actor: User, scope: Scope, source: Scope) -> list[Variable]:
    """Copies the source's own variables, secrets too, over those of the scope. Both are of one project."""
    project = _permitted(actor, scope)
    if _project(source).pk != project.pk:
        raise Invalid(source_deployment="Variables can be copied within one project only")
    copied = set()
    for row in _own(source):
        kept, _ = EnvironmentVariable.objects.update_or_create(
            **_owner(scope), name=row.name, defaults={"value": row.value, "secret": row.secret}
        )
        audit.record(actor, "copy", kept, project=project, new=_audited(kept.name, kept.value, kept.secret))
        copied.add(row.name)
    if copied:
        _apply(actor, scope, copied)
    return list_variables(actor, scope)


def effective(version: DeploymentVersion, revision: Revision | None = None) -> dict[str, str]:
    """The variables of pods of the version that run a revision (its target unless given), by name.

    With the values of secrets: for the reconciler alone.
    """
    revision = revision or version.target_revision
    declared = revision.environment_variables if revision is not None else {}
    return {**declared, **{name: row.value for name, row in _nearest(_visible_from(version)).items()}}


def _permitted(actor: User, scope: Scope) -> Project:
    project = _project(scope)
    access.require(actor, Permission.SECRET_WRITE, project)
    return intent.lock_project(project)


def _project(scope: Scope) -> Project:
    match scope:
        case Project():
            return scope
        case Deployment():
            return scope.project
    return scope.deployment.project


def _owner(scope: Scope) -> dict[str, Any]:
    """The columns that tie a variable to its scope."""
    return {
        "project": _project(scope),
        "deployment": scope if isinstance(scope, Deployment) else None,
        "version": scope if isinstance(scope, DeploymentVersion) else None,
    }


def _own(scope: Scope) -> QuerySet[EnvironmentVariable]:
    return EnvironmentVariable.objects.filter(**_owner(scope))


def _own_variable(scope: Scope, variable_id: uuid.UUID | str, *, lock: bool = False) -> EnvironmentVariable:
    rows = _own(scope).select_for_update(of=("self",)) if lock else _own(scope)
    try:
        row = rows.filter(pk=uuid.UUID(str(variable_id))).first()
    except ValueError:
        row = None
    if row is None:
        raise NotFound("Environment variable", variable_id)
    return row


def _visible_from(scope: Scope) -> QuerySet[EnvironmentVariable]:
    reach = Q(deployment=None, version=None)
    if isinstance(scope, Deployment):
        reach |= Q(deployment=scope)
    elif isinstance(scope, DeploymentVersion):
        reach |= Q(deployment=scope.deployment_id) | Q(version=scope)
    return EnvironmentVariable.objects.filter(reach, project=_project(scope)).select_related("project", "deployment")


def _distance(row: EnvironmentVariable) -> int:
    return 0 if row.version_id is not None else 1 if row.deployment_id is not None else 2


def _nearest(rows: QuerySet[EnvironmentVariable]) -> dict[str, EnvironmentVariable]:
    return {row.name: row for row in sorted(rows, key=_distance, reverse=True)}


def _shown(row: EnvironmentVariable, scope: Scope) -> Variable:
    owned = _owner(scope)
    inherited = (row.deployment_id, row.version_id) != (
        owned["deployment"].pk if owned["deployment"] else None,
        owned["version"].pk if owned["version"] else None,
    )
    kind = "deployment" if row.deployment_id is not None else "project"
    return Variable(
        row.pk,
        row.name,
        None if row.secret else row.value,
        row.secret,
        kind if inherited else None,
        (str(row.deployment) if kind == "deployment" else row.project.name) if inherited else None,
    )


def _checked_value(value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(value="Give a text")
    if len(value.encode()) > MAX_VALUE:
        raise Invalid(value=f"{len(value.encode())} bytes; at most {MAX_VALUE} are allowed")
    if "\0" in value:
        raise Invalid(value="The character with code 0 is not allowed")
    return value


def _checked_flag(secret: Any) -> bool:
    if not isinstance(secret, bool):
        raise Invalid(secret=f"{secret!r} is neither true nor false")
    return secret


def _audited(name: str, value: str, secret: bool) -> dict[str, Any]:
    return {"name": name, "value": audit.SECRET if secret else value, "secret": secret}


def _apply(actor: User, scope: Scope, names: set[str]) -> None:
    """Rolls over the versions with a revision whose variables change, and holds the size of them all."""
    versions = DeploymentVersion.objects.filter(deployment__project=_project(scope))
    if isinstance(scope, Deployment):
        versions = versions.filter(deployment=scope)
    elif isinstance(scope, DeploymentVersion):
        versions = versions.filter(pk=scope.pk)
    for version in versions.filter(target_revision__isnull=False).select_related(
        "deployment__project", "target_revision"
    ):
        total = sum(len(name) + len(value.encode()) for name, value in effective(version).items())
        if total > MAX_TOTAL:
            raise Invalid(
                value=f"All variables of {version} together would take {total} bytes; {MAX_TOTAL} are allowed"
            )
        nearest = _nearest(_visible_from(version).filter(name__in=names))
        overridden = {name for name, row in nearest.items() if _distance(row) < _depth(scope)}
        if names - overridden:
            intent.roll_out(intent.lock(version), actor, Rollout.Cause.VARIABLES)


def _depth(scope: Scope) -> int:
    """The `_distance` of variables of this scope."""
    return 0 if isinstance(scope, DeploymentVersion) else 1 if isinstance(scope, Deployment) else 2
