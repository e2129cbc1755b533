"""Finding rows by the names people use. Who may not see the project gets NotFound, as for a name that is not there."""

import uuid
from typing import Any, TypeVar

from django.db import models
from django.db.models import F, Q

from accounts import access
from accounts.access import AnyUser, Permission
from accounts.errors import NotFound
from accounts.models import Project
from deployments.models import (
    Deployment,
    DeploymentVersion,
    Environment,
    Instance,
    InstanceTypeGroup,
    Model,
    ModelVersion,
    Request,
    Revision,
)

Row = TypeVar("Row", bound=models.Model)


def _uuid(kind: str, value: Any) -> uuid.UUID:
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))
    except ValueError:
        raise NotFound(kind, value) from None


def _found(row: Row | None, kind: str, name: object) -> Row:
    if row is None:
        raise NotFound(kind, name)
    return row


def get_deployment(
    user: AnyUser, project: Project, name: str, permission: Permission = Permission.PROJECT_VIEW
) -> Deployment:
    access.require(user, permission, project)
    row = project.deployments.filter(name=name).select_related("project", "default_version").first()
    return _found(row, "Deployment", name)


_VERSIONS = DeploymentVersion.objects.select_related(
    "deployment__project__organization",
    "environment",
    "instance_type",
    "instance_type_group",
    "target_revision",
    "active_revision",
)


def resolve_version(
    user: AnyUser,
    project_name: str,
    deployment_name: str,
    version: str | None,
    permission: Permission = Permission.PROJECT_VIEW,
) -> DeploymentVersion:
    """A version by the names in a path, or the default version without its own: one query beside the gate's.

    Says what is missing only to those who may see the project.
    """
    named = Q(deployment__project__name=project_name, deployment__name=deployment_name)
    of_version = Q(version=version) if version is not None else Q(pk=F("deployment__default_version"))
    row = _VERSIONS.filter(named & of_version).first()
    if row is not None:
        access.require(user, permission, row.deployment.project)
        return row
    deployment = get_deployment(user, access.get_project(user, project_name, permission), deployment_name)
    if version is None:
        raise NotFound("Default version of deployment", deployment.name)
    raise NotFound("Version", version)


def get_version(
    user: AnyUser, deployment: Deployment, version: str, permission: Permission = Permission.PROJECT_VIEW
) -> DeploymentVersion:
    access.require(user, permission, deployment.project)
    return _found(_VERSIONS.filter(deployment=deployment, version=version).first(), "Version", version)


def get_default_version(
    user: AnyUser, deployment: Deployment, permission: Permission = Permission.PROJECT_VIEW
) -> DeploymentVersion:
    access.require(user, permission, deployment.project)
    version = deployment.default_version
    if version is None:
        raise NotFound("Default version of deployment", deployment.name)
    return get_version(user, deployment, version.version, permission)


def get_revision(
    user: AnyUser,
    version: DeploymentVersion,
    revision_id: uuid.UUID | str,
    permission: Permission = Permission.PROJECT_VIEW,
) -> Revision:
    access.require(user, permission, version.deployment.project)
    row = (
        version.revisions.filter(pk=_uuid("Revision", revision_id))
        .select_related("version__deployment__project", "environment_build", "model_version__model", "created_by")
        .first()
    )
    return _found(row, "Revision", revision_id)


def get_instance(user: AnyUser, version: DeploymentVersion, instance_id: uuid.UUID | str) -> Instance:
    access.require(user, Permission.PROJECT_VIEW, version.deployment.project)
    row = version.instances.filter(pk=_uuid("Instance", instance_id)).select_related("revision").first()
    return _found(row, "Instance", instance_id)


def get_project_instance(user: AnyUser, project: Project, instance_id: uuid.UUID | str) -> Instance:
    access.require(user, Permission.PROJECT_VIEW, project)
    row = (
        Instance.objects.filter(version__deployment__project=project, pk=_uuid("Instance", instance_id))
        .select_related("version__deployment", "version__instance_type")
        .first()
    )
    return _found(row, "Instance", instance_id)


def get_request(
    user: AnyUser,
    version: DeploymentVersion,
    request_id: uuid.UUID | str,
    permission: Permission = Permission.PROJECT_VIEW,
) -> Request:
    access.require(user, permission, version.deployment.project)
    row = version.requests.filter(pk=_uuid("Request", request_id)).first()
    return _found(row, "Request", request_id)


def get_model(user: AnyUser, project: Project, name: str, permission: Permission = Permission.PROJECT_VIEW) -> Model:
    access.require(user, permission, project)
    return _found(project.models.filter(name=name).select_related("project").first(), "Model", name)


def get_model_version(
    user: AnyUser, model: Model, number: int | str, permission: Permission = Permission.PROJECT_VIEW
) -> ModelVersion:
    access.require(user, permission, model.project)
    if not str(number).isdecimal() or int(number) >= 2**31:
        raise NotFound("Model version", number)
    row = model.versions.filter(number=int(number)).select_related("model__project", "created_by").first()
    return _found(row, "Model version", number)


def get_instance_type_group(
    user: AnyUser,
    project: Project,
    group_id: uuid.UUID | str,
    permission: Permission = Permission.PROJECT_VIEW,
) -> InstanceTypeGroup:
    access.require(user, permission, project)
    row = (
        project.instance_type_groups.filter(pk=_uuid("Instance type group", group_id))
        .prefetch_related("items__instance_type")
        .first()
    )
    return _found(row, "Instance type group", group_id)


def environments_of(user: AnyUser, project: Project) -> models.QuerySet[Environment]:
    """The base environments and the project's own."""
    access.require(user, Permission.PROJECT_VIEW, project)
    return Environment.objects.filter(models.Q(project=None) | models.Q(project=project)).prefetch_related("tags")


def get_environment(user: AnyUser, project: Project, name: str) -> Environment:
    # The project's own comes first when a base environment has the same name.
    row = environments_of(user, project).filter(name=name).order_by(models.F("project").desc(nulls_last=True)).first()
    return _found(row, "Environment", name)
