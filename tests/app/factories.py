"""Rows for tests, made directly: plain functions with sensible defaults, each keyword overriding a field.

Services are not used here, so that a test of one service does not depend on another. Needs the base environments and
instance types that a migrated database holds.
"""

import datetime as dt
import hashlib
import io
import itertools
import uuid
import zipfile
from collections.abc import Iterable
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts import tokens
from accounts.models import Membership, Organization, OrganizationMember, Project, Role, User
from deployments.models import (
    Deployment,
    DeploymentVersion,
    Environment,
    Instance,
    InstanceType,
    InstanceTypeGroup,
    InstanceTypeGroupItem,
    Model,
    ModelVersion,
    Request,
    Revision,
    Rollout,
)

_numbers = itertools.count(1)

ECHO = """\
class Deployment:
    def __init__(self, base_directory, context):
        pass

    def request(self, data):
        return data
"""


def unique(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


def user(email: str = "", *, password: str | None = None, **fields: Any) -> User:
    """A person; without ``password`` one that cannot sign in (hashing a password is slow)."""
    person = User(email=email or f"{unique('user')}@example.com", **fields)
    person.set_password(password)
    person.save()
    return person


def superuser(**fields: Any) -> User:
    return user(is_staff=True, is_superuser=True, **fields)


def organization(name: str = "", *, admin: User | None = None) -> Organization:
    made = Organization.objects.create(name=name or unique("org"))
    if admin is not None:
        OrganizationMember.objects.create(organization=made, user=admin, role=OrganizationMember.Role.ADMIN)
    return made


def project(name: str = "", *, organization: Organization | None = None, **fields: Any) -> Project:
    name = name or unique("project")
    fields.setdefault("namespace", f"ph-{name}")
    return Project.objects.create(
        name=name, organization=organization or Organization.objects.create(name=unique("org")), **fields
    )


def member(project: Project, role: str = Role.VIEWER, person: User | None = None) -> User:
    """A user with a role in the project."""
    person = person or user()
    Membership.objects.create(project=project, user=person, role=role)
    return person


def people(project: Project) -> dict[str, User]:
    """One user of each standing: admin, editor, viewer and outsider."""
    return {
        "admin": member(project, Role.ADMIN),
        "editor": member(project, Role.EDITOR),
        "viewer": member(project, Role.VIEWER),
        "outsider": user(),
    }


def token(person: User, **fields: Any) -> str:
    """The secret of a new API token, for ``Authorization: Token <secret>``."""
    return tokens.issue(person, **fields)[1]


def environment(name: str = "python3-11") -> Environment:
    """A base environment of the installation."""
    return Environment.objects.get(project=None, name=name)


def instance_type(name: str = "512mb", **fields: Any) -> InstanceType:
    if not fields:
        return InstanceType.objects.get(name=name)
    return InstanceType.objects.create(name=name, **{"cpu": 0.25, "memory": 512, **fields})


def instance_type_group(project: Project, name: str, *types: str) -> InstanceTypeGroup:
    """A group of instance types in this order."""
    group = InstanceTypeGroup.objects.create(project=project, name=name)
    for place, kind in enumerate(types):
        InstanceTypeGroupItem.objects.create(group=group, instance_type=instance_type(kind), priority=place)
    return group


def versions_at_once(rows: Iterable[tuple[Deployment, dict[str, Any]]], **revision: Any) -> list[DeploymentVersion]:
    """Thousands of new deployments, each with version ``v1`` of the given columns and a revision it aims at, in few
    queries."""
    wanted = list(rows)
    Deployment.objects.bulk_create([row for row, _ in wanted], batch_size=1000)
    versions = DeploymentVersion.objects.bulk_create(
        [DeploymentVersion(deployment=row, version="v1", **columns) for row, columns in wanted], batch_size=1000
    )
    revisions = Revision.objects.bulk_create(
        [Revision(version=version, number=1, **revision) for version in versions], batch_size=1000
    )
    for version, made in zip(versions, revisions, strict=True):
        version.target_revision = made
    DeploymentVersion.objects.bulk_update(versions, ["target_revision"], batch_size=1000)
    return versions


def deployment(project: Project | None = None, name: str = "", **fields: Any) -> Deployment:
    fields.setdefault("input_fields", [{"name": "x", "data_type": "double"}])
    fields.setdefault("output_fields", [{"name": "y", "data_type": "double"}])
    return Deployment.objects.create(
        project=project or globals()["project"](), name=name or unique("deployment"), **fields
    )


def version(deployment: Deployment | None = None, name: str = "v1", **fields: Any) -> DeploymentVersion:
    """A version without a revision; the first of a deployment becomes its default."""
    deployment = deployment or globals()["deployment"]()
    fields.setdefault("environment", environment())
    if "instance_type_group" not in fields:
        fields.setdefault("instance_type", instance_type())
    made = DeploymentVersion.objects.create(deployment=deployment, version=name, **fields)
    if deployment.default_version is None:
        deployment.default_version = made
        deployment.save(update_fields=["default_version"])
    return made


def package(files: dict[str, str | bytes] | None = None) -> bytes:
    """A zip with these files, the same bytes each time; an echo deployment unless told."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in (files if files is not None else {"deployment.py": ECHO}).items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)  # dated 1980, not now
    return buffer.getvalue()


def stored(content: bytes) -> dict[str, Any]:
    """Puts bytes into the storage; gives the columns `file`, `digest` and `size` that point at them."""
    digest = hashlib.sha256(content).hexdigest()
    key = f"sha256/{digest[:2]}/{digest[2:]}"
    if not default_storage.exists(key):
        default_storage.save(key, ContentFile(content))
    return {"file": key, "digest": digest, "size": len(content)}


def revision(
    version: DeploymentVersion | None = None, content: bytes | None = None, *, target: bool = True, **fields: Any
) -> Revision:
    """A package revision whose artifact is in the storage; the version's target unless told otherwise."""
    version = version or globals()["version"]()
    last = version.revisions.order_by("-number").values_list("number", flat=True).first() or 0
    fields.setdefault("number", last + 1)
    fields.setdefault("file_name", "package.zip")
    if fields.get("kind", Revision.Kind.PACKAGE) == Revision.Kind.PACKAGE:
        fields = {**stored(package() if content is None else content), **fields}
    made = Revision.objects.create(version=version, **fields)
    if target:
        version.target_revision = made
        version.desired_instances = max(version.minimum_instances, 1)
        version.save(update_fields=["target_revision", "desired_instances"])
    return made


def rollout(revision: Revision, **fields: Any) -> Rollout:
    return Rollout.objects.create(
        **{
            "version": revision.version,
            "to_revision": revision,
            "generation": revision.version.generation,
            "cause": Rollout.Cause.UPLOAD,
            **fields,
        }
    )


def instance(revision: Revision, **fields: Any) -> Instance:
    """A running, ready pod unless told otherwise."""
    now = timezone.now()
    return Instance.objects.create(
        **{
            "id": uuid.uuid4(),
            "version": revision.version,
            "revision": revision,
            "pod_name": unique("pod"),
            "address": "127.1.0.1",
            "status": Instance.Status.RUNNING,
            "ready": True,
            "time_created": now,
            "ready_at": now,
            **fields,
        }
    )


def request(version: DeploymentVersion, **fields: Any) -> Request:
    fields.setdefault("expires_at", timezone.now() + dt.timedelta(days=7))
    return Request.objects.create(version=version, **fields)


def model(project: Project | None = None, name: str = "", **fields: Any) -> Model:
    return Model.objects.create(project=project or globals()["project"](), name=name or unique("model"), **fields)


def model_version(model: Model | None = None, content: bytes = b"\x80\x04model", **fields: Any) -> ModelVersion:
    model = model or globals()["model"]()
    last = model.versions.order_by("-number").values_list("number", flat=True).first() or 0
    return ModelVersion.objects.create(
        **{
            "model": model,
            "number": last + 1,
            "framework": "sklearn-joblib",
            "requirements": "scikit-learn==1.5.0\n",
            "file_name": "model.joblib",
            **stored(content),
            **fields,
        }
    )
