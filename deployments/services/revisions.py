"""Revisions: uploading packages, deploying models and images, going back, and what differs between two.

A new revision is queued together with the environment build it needs, becomes the version's target and begins a
rollout, all in one transaction; pods follow by the reconciler.
"""

import dataclasses
import re
from typing import IO, Any

from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import User
from deployments.models import DeploymentVersion, EnvironmentBuild, ModelVersion, Revision, Rollout
from deployments.services import artifacts, environments, intent, packages
from deployments.services.artifacts import StoredFile, Upload
from deployments.services.bootstrap import IMAGE_RUNTIME

_IMAGE = re.compile(
    # A registry, which is told from a repository's first part by its dot or port.
    r"^(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::\d{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"  # repository
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"  # tag, digest
)


@dataclasses.dataclass(frozen=True)
class SettingChange:
    name: str
    old: str
    new: str


@dataclasses.dataclass(frozen=True)
class RevisionDiff:
    """What differs from ``old`` to ``new``: settings first, then files by path."""

    old: Revision
    new: Revision
    settings: list[SettingChange]
    files: list[packages.FileChange]


def upload_package(
    actor: User, version: DeploymentVersion, file: Upload | IO[bytes], *, file_name: str = ""
) -> Revision:
    """A revision of an uploaded zip, rolled out. ``file`` is read in pieces and never whole into memory.

    Raises Invalid on ``file`` for a bad package, TooLarge, and Invalid on ``instances`` when the quota is used up.
    """
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    _require_runtime(version, image=False)
    with artifacts.spool(file) as spooled:
        package = packages.inspect(spooled.file, version.environment.language)
        contents = packages.manifest(spooled.file, package.root)
        with transaction.atomic():
            # Before the lock: storing a large file takes its time.
            artifacts.keep(spooled)
            version = intent.lock(version)
            _require_runtime(version, image=False)
            return _deploy(
                actor,
                Revision(
                    version=version,
                    kind=Revision.Kind.PACKAGE,
                    file_name=artifacts.safe_name(file_name or getattr(file, "name", ""), "package.zip"),
                    file=spooled.key,
                    digest=spooled.digest,
                    size=spooled.size,
                    manifest=contents,
                    requirements=package.requirements,
                    environment_variables=package.environment_variables,
                    has_request_method=package.has_request_method,
                    has_requests_method=package.has_requests_method,
                ),
            )


@transaction.atomic
def copy_package(actor: User, version: DeploymentVersion, source: Revision) -> Revision:
    """A revision with the package of another one that the actor may see."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    access.require(actor, Permission.PROJECT_VIEW, source.version.deployment.project)
    if source.kind != Revision.Kind.PACKAGE:
        raise Invalid(source_version=f"'{source}' is no uploaded package; deploy its model or image instead")
    version = intent.lock(version)
    _require_runtime(version, image=False)
    copied = (
        "file_name",
        "file",
        "digest",
        "size",
        "manifest",
        "requirements",
        "environment_variables",
        "has_request_method",
        "has_requests_method",
    )
    return _deploy(
        actor, Revision(version=version, kind=source.kind, **{name: getattr(source, name) for name in copied})
    )


@transaction.atomic
def deploy_model(actor: User, version: DeploymentVersion, model_version: ModelVersion) -> Revision:
    """A revision that serves a version of a registry model of the same project without code."""
    project = version.deployment.project
    access.require(actor, Permission.PROJECT_EDIT, project)
    if model_version.model.project_id != project.pk:
        raise NotFound("Model version", model_version)
    version = intent.lock(version)
    _require_runtime(version, image=False)
    return _deploy(
        actor,
        Revision(
            version=version,
            kind=Revision.Kind.MODEL,
            model_version=model_version,
            file_name=model_version.file_name,
            file=model_version.file,
            digest=model_version.digest,
            size=model_version.size,
            requirements=environments.with_framework(model_version.requirements, model_version.framework),
            has_requests_method=True,
        ),
    )


@transaction.atomic
def deploy_image(actor: User, version: DeploymentVersion, image: str) -> Revision:
    """A revision that runs a container image as it is; the version's environment must be one for images."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    if not isinstance(image, str) or len(image) > 500 or not _IMAGE.match(image):
        raise Invalid(
            image=f"'{str(image)[:80]}' is not the name of an image; "
            "give one such as registry.example.com/team/server:1.2"
        )
    version = intent.lock(version)
    _require_runtime(version, image=True)
    return _deploy(actor, Revision(version=version, kind=Revision.Kind.IMAGE, image=image))


@transaction.atomic
def rollback(actor: User, version: DeploymentVersion, revision: Revision) -> Rollout:
    """New intent that points at an earlier revision of the version. Raises Conflict if it is wanted already."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    version = intent.lock(version)
    revision = _locked_revision(version, revision)
    if version.target_revision_id == revision.pk:
        raise Conflict(f"Revision {revision.number} is the wanted one already; restart the version to try it again")
    return _point_at(actor, version, revision, Rollout.Cause.ROLLBACK)


@transaction.atomic
def rebuild(actor: User, revision: Revision) -> Revision:
    """Builds the revision's environment again if the build failed, and rolls the revision out with new pods.

    A build that succeeded is kept: its name is the hash of its content, so building again makes the same.
    """
    access.require(actor, Permission.PROJECT_EDIT, revision.version.deployment.project)
    version = intent.lock(revision.version)
    revision = _locked_revision(version, revision)
    _point_at(actor, version, revision, Rollout.Cause.REBUILD, restarted_at=timezone.now())
    return revision


def rebuild_all(actor: User, build: EnvironmentBuild) -> int:
    """Rebuilds every revision that is wanted now and waits for a failed build; their number. For the platform team."""
    if not access.is_platform_admin(actor):
        raise Forbidden("Only the platform team rebuilds for all projects")
    waiting = Revision.objects.filter(
        environment_build=build,
        environment_build__state=EnvironmentBuild.State.FAILED,
        version__target_revision=F("pk"),
        version__deployment__project__suspended=False,
    ).select_related("version__deployment__project")
    # Read before the first of them queues the build again.
    return len([rebuild(actor, revision) for revision in list(waiting)])


@transaction.atomic
def restart(actor: User, version: DeploymentVersion) -> Rollout | None:
    """New pods of the same revision, one after the other; None for a version that is idle at zero instances."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    version = intent.lock(version)
    target = version.target_revision
    if target is None:
        raise Conflict(f"Version '{version.version}' has no revision yet; upload one first")
    build = target.environment_build
    if build is not None and environments.retry(build, version.deployment.project):
        _requeue(target)
    rollout = intent.roll_out(version, actor, Rollout.Cause.RESTART, restarted_at=timezone.now())
    audit.record(actor, "restart", version, project=version.deployment.project, new={"revision": target.number})
    return rollout


def open_file(actor: User, revision: Revision) -> StoredFile:
    """The uploaded package or model file, for download. Raises NotFound for an image."""
    access.require(actor, Permission.PROJECT_VIEW, revision.version.deployment.project)
    return artifacts.stored_file(revision)


def diff(actor: User, old: Revision, new: Revision) -> RevisionDiff:
    """What differs between two revisions of one deployment: settings, files, and lines of text files."""
    access.require(actor, Permission.PROJECT_VIEW, new.version.deployment.project)
    if old.version.deployment_id != new.version.deployment_id:
        raise NotFound("Revision", old.pk)
    found = packages.changes(_files(old), _files(new))
    if found and old.kind == new.kind == Revision.Kind.PACKAGE:
        with artifacts.open_key(old.file) as before, artifacts.open_key(new.file) as after:
            found = packages.with_text(found, before, after)
    else:
        found = [dataclasses.replace(change, note="Binary file") for change in found]
    return RevisionDiff(old, new, _setting_changes(old, new), found)


def _files(revision: Revision) -> list[packages.Entry]:
    if revision.kind == Revision.Kind.MODEL:
        return [{"path": revision.file_name, "size": revision.size, "crc": revision.digest}]
    return list(revision.manifest)


def _setting_changes(old: Revision, new: Revision) -> list[SettingChange]:
    def told(revision: Revision) -> dict[str, str]:
        build = revision.environment_build
        return {
            "kind": revision.kind,
            "environment": build.runtime if build is not None else "",
            "image": revision.image,
            "model": str(revision.model_version or ""),
            "request method": "yes" if revision.has_request_method else "no",
            "requests method": "yes" if revision.has_requests_method else "no",
            "environment variables": ", ".join(sorted(revision.environment_variables)),
        }

    before, after = told(old), told(new)
    return [SettingChange(name, before[name], after[name]) for name in before if before[name] != after[name]]


def _deploy(actor: User, revision: Revision) -> Revision:
    """Numbers and stores a revision of a locked version, with its build, and begins its rollout."""
    version = revision.version
    last = version.revisions.aggregate(last=Max("number"))["last"] or 0
    revision.number = last + 1
    revision.environment_build = environments.build_for(version, revision)
    revision.created_by = actor
    revision.save()
    intent.roll_out(version, actor, Rollout.Cause.UPLOAD, revision=revision)
    audit.record(actor, "deploy", revision, project=version.deployment.project, new=_described(revision))
    return revision


def _described(revision: Revision) -> dict[str, Any]:
    told = {
        "number": revision.number,
        "kind": revision.kind,
        "file_name": revision.file_name,
        "digest": revision.digest,
        "image": revision.image,
        "model_version": revision.model_version,
    }
    return {name: value for name, value in told.items() if value}


def _point_at(
    actor: User, version: DeploymentVersion, revision: Revision, cause: Rollout.Cause, **columns: Any
) -> Rollout:
    old = version.target_revision
    # The version's environment may have changed since the revision ran last.
    build = environments.build_for(version, revision)
    if build != revision.environment_build:
        Revision.objects.filter(pk=revision.pk).update(environment_build=build)
        revision.environment_build = build
    if revision.status == Revision.Status.FAILED or (build and build.state != EnvironmentBuild.State.SUCCESS):
        _requeue(revision)
    rollout = intent.roll_out(version, actor, cause, revision=revision, **columns)
    assert rollout is not None  # there is one whenever a revision is given
    audit.record(
        actor,
        cause.value,
        version,
        project=version.deployment.project,
        old={"revision": old.number if old is not None else None},
        new={"revision": revision.number},
    )
    return rollout


def _requeue(revision: Revision) -> None:
    Revision.objects.filter(pk=revision.pk).update(status=Revision.Status.QUEUED, error_message="")
    revision.status, revision.error_message = Revision.Status.QUEUED, ""


def _locked_revision(version: DeploymentVersion, revision: Revision) -> Revision:
    row = (
        version.revisions.select_for_update(of=("self",))
        .select_related("environment_build", "model_version")
        .filter(pk=revision.pk)
        .first()
    )
    if row is None:
        raise NotFound("Revision", revision.pk)
    row.version = version
    return row


def _require_runtime(version: DeploymentVersion, *, image: bool) -> None:
    name, is_image = version.environment.name, version.environment.runtime == IMAGE_RUNTIME
    if image and not is_image:
        raise Invalid(environment=f"'{name}' runs packages and models; choose container-image to deploy an image")
    if is_image and not image:
        raise Invalid(environment=f"'{name}' runs container images; choose a Python or R environment for this")
