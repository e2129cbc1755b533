"""Which build a revision runs in: the content hash of a runtime, requirements and the model server.

Source of the hash and of normalisation: `serving.environment`.
"""

import datetime as dt
from collections.abc import Iterator
from functools import partial
from itertools import chain, count
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from accounts.errors import Invalid
from accounts.models import Project
from deployments.models import (
    DeploymentVersion,
    DiscardedEnvironment,
    Environment,
    EnvironmentBuild,
    EnvironmentTag,
    Framework,
    Instance,
    Revision,
    Rollout,
)
from deployments.services.bootstrap import IMAGE_RUNTIME
from kube import specs
from serving.environment import (
    RequirementsError,
    environment_hash,
    normalise,
    normalise_requirements,
    platform_tag,
    serving_archive,
)
from serving.package import ENTRY_POINTS

# What serving a registry model without code needs on top of the model's own requirements.
FRAMEWORK_REQUIREMENTS: dict[str, tuple[str, ...]] = {
    Framework.SKLEARN_JOBLIB: ("scikit-learn", "joblib", "numpy"),
    Framework.SKLEARN_SKOPS: ("scikit-learn", "skops", "numpy"),
    Framework.ONNX: ("onnxruntime", "numpy"),
}
_DEPTH = 10
# Of one pass, so that its transaction is short and a pod's environment variable holds the names.
MOST_DISCARDED = 50

State = EnvironmentBuild.State


def resolve(project: Project, text: object, tag: object = "") -> tuple[Environment, str]:
    """The environment of that name (``name`` or ``name:tag``): the project's own first, then a base one.

    Raises Invalid naming the field ``environment`` or ``environment_tag`` and what there is to choose from.
    """
    name, _, inline_tag = str(text or "").partition(":")
    wanted = str(tag or "") or inline_tag
    candidates = Environment.objects.filter(name=name)
    environment = candidates.filter(project=project).first() or candidates.filter(project=None).first()
    if environment is None:
        known = Environment.objects.filter(Q(project=project) | Q(project=None), deprecated=False)
        names = ", ".join(sorted(set(known.values_list("name", flat=True))))
        raise Invalid(environment=f"Unknown environment '{name}'; choose one of {names}")
    if wanted and not EnvironmentTag.objects.filter(environment=environment, name=wanted).exists():
        names = ", ".join(environment.tags.values_list("name", flat=True)) or "none"
        raise Invalid(environment_tag=f"Environment '{name}' has no tag '{wanted}'; its tags: {names}")
    return environment, wanted


def runtimes() -> list[str]:
    """Runtimes a base environment may have."""
    return [*settings.PILOTHOUSE_RUNTIME_IMAGES, IMAGE_RUNTIME]


def checked_requirements(text: str, field: str = "requirements") -> str:
    """requirements.txt as given, if a build can use it. Raises Invalid with the line at fault."""
    try:
        normalise_requirements(text)
    except RequirementsError as error:
        raise Invalid(**{field: str(error)}) from None
    return text


def with_framework(requirements: str, framework: str) -> str:
    """A model's requirements and what its framework's adapter needs, the model's own pins first."""
    named = {_package(line) for line in normalise_requirements(requirements).splitlines()}
    missing = [name for name in FRAMEWORK_REQUIREMENTS[framework] if name not in named]
    return "\n".join([requirements.strip(), *missing]).strip() + "\n"


def _package(line: str) -> str:
    end = next((i for i, character in enumerate(line) if not (character.isalnum() or character == "-")), len(line))
    return line[:end].lower()


def requirements_of(environment: Environment, revision: Revision) -> str:
    """All requirements a revision has in an environment: of the chain of bases, outermost last, then its own."""
    parts = [revision.requirements, *(layer.requirements for layer in _layers(environment))]
    return "\n".join(part.strip() for part in reversed(parts) if part.strip())


def _layers(environment: Environment) -> Iterator[Environment]:
    """An environment and what it is built upon."""
    layer: Environment | None = environment
    for _ in range(_DEPTH):
        if layer is None:
            break
        yield layer
        layer = layer.base


def tree_for(version: DeploymentVersion, revision: Revision) -> str:
    """Where on the volume a build belongs: its project's own tree as soon as anything in it is from the project.

    Installing packages runs code that they bring, and what a project names is not to be trusted by another.
    """
    runtime = version.environment.runtime
    own = any(layer.project_id for layer in _layers(version.environment))
    if own or normalise(runtime, revision.requirements):
        return project_tree(version.deployment.project)
    return specs.SHARED


def project_tree(project: Project) -> str:
    return project.pk.hex


def build_for(version: DeploymentVersion, revision: Revision) -> EnvironmentBuild | None:
    """The build a revision needs in the version's environment, found by content hash or made; None for an image.

    A build that failed is queued again: the reason may have been an index that was down. Raises Invalid if the
    requirements cannot be used.
    """
    environment = version.environment
    if revision.kind == Revision.Kind.IMAGE:
        return None
    if environment.runtime == IMAGE_RUNTIME:
        raise Invalid(
            environment=f"Environment '{environment.name}' runs container images; "
            "choose a Python or R environment for a package or a model"
        )
    languages = _languages(revision)
    if languages and environment.language not in languages:
        raise Invalid(
            environment=f"Environment '{environment.name}' is for {environment.language.title()}; revision "
            f"{revision.number} needs one for {' or '.join(sorted(languages)).title()}"
        )
    try:
        requirements = normalise(environment.runtime, requirements_of(environment, revision))
        tree = tree_for(version, revision)
    except RequirementsError as error:
        raise Invalid(requirements=str(error)) from None
    project = version.deployment.project
    owner = "" if tree == specs.SHARED else tree
    key = environment_hash(environment.runtime, requirements, serving_archive()[1], platform_tag(), owner)
    defaults: dict[str, Any] = {
        "runtime": environment.runtime,
        "requirements": requirements,
        "project": project,
        "directory": partial(_free_directory, f"{tree}/{key}"),  # called once an old row is known to be gone
    }
    while True:
        build, created = EnvironmentBuild.objects.get_or_create(hash=key, defaults=defaults)
        # From here on nobody discards it: see `discard_unused`. One that was discarded just now is made again.
        if created or EnvironmentBuild.objects.filter(pk=build.pk).update(last_used_at=timezone.now()):
            break
    if not created:
        retry(build, project)
    return build


def _free_directory(wanted: str) -> str:
    """The folder, or one named after it while the pod that removes an old folder of that name may still be at it."""
    taken = set(DiscardedEnvironment.objects.filter(directory__startswith=wanted).values_list("directory", flat=True))
    names = chain([wanted], (f"{wanted}.{number}" for number in count(1)))
    return next(name for name in names if name not in taken)


@transaction.atomic
def in_tree(version: DeploymentVersion, revision: Revision, build: EnvironmentBuild) -> EnvironmentBuild:
    """The build to go on with: another one, of the same, for one that was asked for before there were trees."""
    if build.tree or build.state not in (State.QUEUED, State.BUILDING):
        return build
    try:
        made = build_for(version, revision)
    except Invalid:
        return build  # its environment has changed since, and it is late in the end
    assert made is not None  # a revision of an image has no build
    Revision.objects.filter(pk=revision.pk).update(environment_build=made)
    revision.environment_build = made
    if EnvironmentBuild.objects.filter(pk=build.pk, revisions=None).delete()[0]:
        DiscardedEnvironment.objects.create(directory=build.directory)
    return made


def discard_tree(project: Project) -> None:
    """Forgets all builds of a project that is deleted, and notes its tree for removal, cache and all."""
    tree = project_tree(project)
    EnvironmentBuild.objects.filter(directory__startswith=f"{tree}/").delete()
    DiscardedEnvironment.objects.filter(directory__startswith=f"{tree}/").delete()
    DiscardedEnvironment.objects.create(directory=tree)


def discard_unused(now: dt.datetime) -> int:
    """Forgets builds that no version has needed for the retention time, and notes their folders for removal.

    Needed are those of what a version runs, should run, ran last, or passes to and from; of instances that are left;
    and of builds that are under way. Gives their number; zero where the retention is switched off.
    """
    needed = _needed()
    EnvironmentBuild.objects.filter(needed).update(last_used_at=now)
    if not settings.PILOTHOUSE_ENVIRONMENT_RETENTION_DAYS:
        return 0
    before = now - dt.timedelta(days=settings.PILOTHOUSE_ENVIRONMENT_RETENTION_DAYS)
    with transaction.atomic():
        unused = list(
            EnvironmentBuild.objects.select_for_update(skip_locked=True)
            .filter(~needed, last_used_at__lt=before, state__in=[State.SUCCESS, State.FAILED])
            .order_by("last_used_at")[:MOST_DISCARDED]
        )
        DiscardedEnvironment.objects.bulk_create([DiscardedEnvironment(directory=row.directory) for row in unused])
        EnvironmentBuild.objects.filter(pk__in=[row.pk for row in unused]).delete()
    return len(unused)


def _needed() -> Q:
    revisions = Revision.objects.filter(environment_build=OuterRef("pk"))
    versions = DeploymentVersion.objects.filter(
        Q(target_revision=OuterRef("pk")) | Q(active_revision=OuterRef("pk")),
    )
    rollouts = Rollout.objects.filter(
        Q(to_revision=OuterRef("pk")) | Q(from_revision=OuterRef("pk")), state=Rollout.State.IN_PROGRESS
    )
    instances = Instance.objects.filter(revision=OuterRef("pk"), deleted_at=None)
    return Q(Exists(revisions.filter(Exists(versions) | Exists(rollouts) | Exists(instances))))


def _languages(revision: Revision) -> set[str]:
    """What a revision can be run by; empty when its content does not tell."""
    if revision.kind == Revision.Kind.MODEL:
        return {"python"}
    paths = {entry["path"] for entry in revision.manifest}
    return {language for entry_point, language in ENTRY_POINTS.items() if entry_point in paths}


def retry(build: EnvironmentBuild, project: Project) -> bool:
    """Queues a failed build again in the project's namespace; whether it did."""
    return bool(
        EnvironmentBuild.objects.filter(pk=build.pk, state=EnvironmentBuild.State.FAILED).update(
            state=EnvironmentBuild.State.QUEUED,
            attempt=F("attempt") + 1,
            project=project,
            reason_code="",
            error_message="",
            started_at=None,
            finished_at=None,
            deadline_at=None,
        )
    )
