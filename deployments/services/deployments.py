"""Deployments and their versions: create, update, delete."""

from typing import Any, TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict
from accounts.models import Project, User
from deployments.models import DataType, Deployment, DeploymentVersion, Revision, Rollout
from deployments.services import environments, intent, quotas, version_settings
from deployments.services.validation import Checker
from deployments.services.version_settings import VersionSettings

# Told to the pods, so that changing one needs new ones.
_POD_FIELDS = frozenset({"name", "input_type", "output_type", "input_fields", "output_fields"})


class DeploymentChanges(TypedDict, total=False):
    """Keywords of `update_deployment`; ``default_version`` is a version's name."""

    name: str
    description: str
    labels: dict[str, str]
    input_type: str
    output_type: str
    input_fields: list[dict[str, Any]]
    output_fields: list[dict[str, Any]]
    default_version: str | None


@transaction.atomic
def create_deployment(
    actor: User,
    project: Project,
    *,
    name: str,
    description: str = "",
    input_type: str = DataType.STRUCTURED,
    output_type: str = DataType.STRUCTURED,
    input_fields: list[dict[str, Any]] | None = None,
    output_fields: list[dict[str, Any]] | None = None,
    supports_request_format: bool = True,
    labels: dict[str, str] | None = None,
) -> Deployment:
    """A deployment without versions. Fields are ``[{"name": str, "data_type": str}]`` (`validation.DATA_TYPES`).

    Raises Invalid by field, Conflict for a name that is taken.
    """
    access.require(actor, Permission.PROJECT_EDIT, project)
    check = Checker()
    columns = {
        "name": check.name("name", name),
        "description": check.text("description", description),
        "input_type": check.choice("input_type", input_type, DataType.values),
        "output_type": check.choice("output_type", output_type, DataType.values),
        "input_fields": check.fields("input_fields", input_fields or []),
        "output_fields": check.fields("output_fields", output_fields or []),
        "supports_request_format": check.flag("supports_request_format", supports_request_format),
        "labels": check.labels("labels", labels or {}),
    }
    _check_plain(check, columns)
    check.done()
    intent.require_active(intent.lock_project(project))
    deployment = Deployment(project=project, **columns)
    _save_unique(deployment, f"There is already a deployment named '{name}' in project '{project.name}'")
    audit.record(actor, "create", deployment, project=project, new=columns)
    return deployment


@transaction.atomic
def update_deployment(actor: User, deployment: Deployment, **changes: Unpack[DeploymentChanges]) -> Deployment:
    """Changes what is given. A new name or schema reaches the pods by a rollout of each version that runs."""
    access.require(actor, Permission.PROJECT_EDIT, deployment.project)
    project = intent.lock_project(deployment.project)
    deployment.refresh_from_db()
    columns = _deployment_columns(deployment, changes)
    old, new = audit.changed(deployment, columns)
    if not new:
        return deployment
    for name, value in new.items():
        setattr(deployment, name, value)
    _save_unique(
        deployment,
        f"There is already a deployment named '{deployment.name}' in project '{project.name}'",
        update_fields=[*new, "last_updated"],
    )
    audit.record(actor, "update", deployment, project=project, old=old, new=new)
    if _POD_FIELDS & set(new):
        for version in deployment.versions.filter(target_revision__isnull=False):
            intent.roll_out(intent.lock(version), actor, Rollout.Cause.SETTINGS)
    return deployment


@transaction.atomic
def delete_deployment(actor: User, deployment: Deployment) -> None:
    """Deletes it with its versions, revisions and requests; what runs in the cluster is removed after."""
    access.require(actor, Permission.PROJECT_EDIT, deployment.project)
    project = intent.lock_project(deployment.project)
    audit.record(
        actor,
        "delete",
        deployment,
        project=project,
        old={"name": deployment.name, "versions": list(deployment.versions.values_list("version", flat=True))},
    )
    deployment.delete()
    intent.collect_garbage_later()


@transaction.atomic
def create_version(actor: User, deployment: Deployment, /, **settings: Unpack[VersionSettings]) -> DeploymentVersion:
    """A version without a revision: it runs once one is uploaded. The first becomes the deployment's default.

    Raises Invalid by field (also when its minimum passes the project's quota), Conflict for a name that is taken.
    """
    access.require(actor, Permission.PROJECT_EDIT, deployment.project)
    columns = version_settings.parse(deployment, settings, None)
    project = intent.lock_project(deployment.project)
    intent.require_active(project)
    deployment.project = project
    version = DeploymentVersion(deployment=deployment, **columns)
    quotas.check(version, version.minimum_instances)
    _save_unique(
        version, f"There is already a version '{version.version}' of deployment '{deployment.name}'", field="version"
    )
    if Deployment.objects.filter(pk=deployment.pk, default_version=None).update(
        default_version=version, last_updated=timezone.now()
    ):
        deployment.default_version = version
    audit.record(actor, "create", version, project=project, new=columns)
    return version


@transaction.atomic
def update_version(
    actor: User, version: DeploymentVersion, /, **settings: Unpack[VersionSettings]
) -> DeploymentVersion:
    """Changes what is given: pods are rolled over where they are concerned, instances moved within the new bounds.

    Raises Invalid by field (also when the wanted instances pass the project's quota), Conflict for a taken name.
    """
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    version = intent.lock(version)
    project = version.deployment.project
    old, new = audit.changed(version, version_settings.parse(version.deployment, settings, version))
    if not new:
        return version
    name = new.get("version")
    if name and DeploymentVersion.objects.filter(deployment=version.deployment, version=name).exists():
        raise Conflict(f"There is already a version '{name}' of deployment '{version.deployment}'; choose another")
    desired = _desired_within(version, new)
    quotas.check(
        version,
        max(desired, new.get("minimum_instances", version.minimum_instances)),
        field=next((field for field in ("minimum_instances", "maximum_instances") if field in new), "instance_type"),
        instance_type=new.get("instance_type", version.instance_type),
        group=new.get("instance_type_group", version.instance_type_group),
    )
    new_intent = new if desired == version.desired_instances else {**new, "desired_instances": desired}
    if version_settings.POD_COLUMNS & set(new):
        _roll_settings(version, actor, new_intent)
    elif version_settings.SCALE_COLUMNS & set(new):
        intent.change(version, **new_intent)
    else:
        DeploymentVersion.objects.filter(pk=version.pk).update(last_updated=timezone.now(), **new)
        for field, value in new.items():
            setattr(version, field, value)
    audit.record(actor, "update", version, project=project, old=old, new=new)
    return version


@transaction.atomic
def delete_version(actor: User, version: DeploymentVersion) -> None:
    """Deletes it with its revisions and requests; what runs in the cluster is removed after."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    version = intent.lock(version)
    audit.record(actor, "delete", version, project=version.deployment.project, old={"version": version.version})
    version.delete()
    intent.collect_garbage_later()


def _roll_settings(version: DeploymentVersion, actor: User, columns: dict[str, Any]) -> None:
    target: Revision | None = version.target_revision
    if target is None or "environment" not in columns:
        intent.roll_out(version, actor, Rollout.Cause.SETTINGS, **columns)
        return
    version.environment = columns["environment"]
    build = environments.build_for(version, target)
    if build != target.environment_build:
        Revision.objects.filter(pk=target.pk).update(
            environment_build=build, status=Revision.Status.QUEUED, error_message=""
        )
    # Also when idle: another environment has to be proven once.
    intent.roll_out(version, actor, Rollout.Cause.SETTINGS, revision=target, **columns)


def _desired_within(version: DeploymentVersion, new: dict[str, Any]) -> int:
    minimum = new.get("minimum_instances", version.minimum_instances)
    maximum = new.get("maximum_instances", version.maximum_instances)
    if version.target_revision_id is None:
        return 0
    return min(max(version.desired_instances, minimum), maximum)


def _deployment_columns(deployment: Deployment, changes: DeploymentChanges) -> dict[str, Any]:
    check = Checker()
    check.unknown(changes, DeploymentChanges.__annotations__)
    columns: dict[str, Any] = {}
    for field, value in changes.items():
        match field:
            case "name":
                columns[field] = check.name(field, value)
            case "description":
                columns[field] = check.text(field, value or "")
            case "labels":
                columns[field] = check.labels(field, value if value is not None else {})
            case "input_type" | "output_type":
                columns[field] = check.choice(field, value, DataType.values)
            case "input_fields" | "output_fields":
                columns[field] = check.fields(field, value if value is not None else [])
            case "default_version":
                columns[field] = _default_version(check, deployment, value)
    _check_plain(check, {**_types(deployment), **columns})
    check.done()
    return columns


def _types(deployment: Deployment) -> dict[str, Any]:
    names = ("input_type", "output_type", "input_fields", "output_fields")
    return {name: getattr(deployment, name) for name in names}


def _check_plain(check: Checker, columns: dict[str, Any]) -> None:
    for side in ("input", "output"):
        if columns[f"{side}_type"] == DataType.PLAIN and columns[f"{side}_fields"]:
            check.problem(
                f"{side}_fields", f"A plain {side} has no fields; leave them empty or set {side}_type to structured"
            )


def _default_version(check: Checker, deployment: Deployment, name: Any) -> DeploymentVersion | None:
    if name is None:
        return None
    found = deployment.versions.filter(version=str(name)).first()
    if found is None:
        names = ", ".join(deployment.versions.values_list("version", flat=True)) or "none yet"
        check.problem("default_version", f"Unknown version '{name}'; this deployment's versions: {names}")
    return found


def _save_unique(
    row: Deployment | DeploymentVersion, message: str, *, field: str = "name", update_fields: list[str] | None = None
) -> None:
    try:
        with transaction.atomic():
            row.save(update_fields=update_fields)
    except IntegrityError:
        raise Conflict(f"{message}; choose another {field}") from None
