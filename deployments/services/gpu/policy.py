"""Changing the policy: by the platform team only, checked as a whole, with an audit event."""

from collections.abc import Iterable
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import ProtectedError, RestrictedError

from accounts import access, audit
from accounts.errors import Conflict, Invalid
from accounts.models import Project, User
from deployments.models import (
    DeploymentVersion,
    GpuCohort,
    GpuFlavor,
    GpuPolicy,
    GpuPriority,
    GpuQuota,
    GpuTenant,
)
from deployments.services import intent
from deployments.services.gpu import board
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu.fleet import offers
from deployments.services.gpu.gate import require_platform
from deployments.services.gpu.snapshot import pools
from deployments.services.validation import Checker

MAX_DEVICES = 1_000_000
DAY = 86_400


@transaction.atomic
def save(actor: User, row: models.Model, *, projects: Iterable[Project] | None = None) -> list[str]:
    """Saves a changed or new row of the policy; answers warnings about what is allowed but worth knowing.

    ``projects`` are those that may use a priority level. Raises Invalid by field, Conflict for a name that is taken.
    """
    require_platform(actor)
    rules_of.settings_row()
    # One change of the policy at a time, so that each is checked against the others.
    GpuPolicy.objects.select_for_update().get(id=1)
    problems, warnings = check(row)
    if problems:
        raise Invalid(**problems)
    kind = type(row)
    old_row = kind._default_manager.filter(pk=row.pk).first()
    columns = {field.name: getattr(row, field.name) for field in row._meta.fields if field.editable}
    old, new = audit.changed(old_row, columns) if old_row is not None else ({}, columns)
    if isinstance(row, GpuPriority) and row.default:
        GpuPriority.objects.filter(default=True).exclude(pk=row.pk).update(default=False)
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        raise Conflict(f"There is already a {kind._meta.verbose_name} like this; change that one instead") from None
    if isinstance(row, GpuPriority) and projects is not None:
        wanted = sorted(projects, key=lambda project: project.name)
        before = [project.name for project in row.projects.order_by("name")]
        if [project.name for project in wanted] != before:
            old["projects"], new["projects"] = before, [project.name for project in wanted]
            row.projects.set(wanted)
    if old or new:
        audit.record(actor, "update" if old_row is not None else "create", row, project=_project(row), old=old, new=new)
    intent.schedule_gpus_later()
    return warnings


@transaction.atomic
def delete(actor: User, row: models.Model) -> None:
    """Raises Conflict while something uses the row."""
    require_platform(actor)
    audit.record(actor, "delete", row, project=_project(row), old={"name": str(row)})
    try:
        row.delete()
    except (RestrictedError, ProtectedError) as error:
        users = error.restricted_objects if isinstance(error, RestrictedError) else error.protected_objects
        names = ", ".join(sorted(str(user) for user in users)[:5])
        raise Conflict(f"'{row}' is used by {names}; change that first") from None
    intent.schedule_gpus_later()


@transaction.atomic
def set_version_priority(actor: User, version: DeploymentVersion, name: str | None) -> DeploymentVersion:
    """The level at which a version's claims wait; None for the platform's default. Raises Invalid."""
    access.require(actor, access.Permission.PROJECT_EDIT, version.deployment.project)
    version = intent.lock(version)
    level = None
    if name:
        level = usable_levels(version.deployment.project).filter(name=name).first()
        if level is None:
            known = ", ".join(usable_levels(version.deployment.project).values_list("name", flat=True)) or "none"
            raise Invalid(gpu_priority=f"Unknown level '{name}', or not open to this project; its levels: {known}")
    old, new = audit.changed(version, {"gpu_priority": level})
    if new:
        DeploymentVersion.objects.filter(pk=version.pk).update(gpu_priority=level)
        version.gpu_priority = level
        audit.record(actor, "update", version, project=version.deployment.project, old=old, new=new)
        intent.schedule_gpus_later()
    return version


def usable_levels(project: Project) -> models.QuerySet[GpuPriority]:
    """Levels that are open to all, or to this project."""
    return GpuPriority.objects.filter(models.Q(projects=None) | models.Q(projects=project)).distinct()


def _project(row: models.Model) -> Project | None:
    found = getattr(row, "project", None)
    return found if isinstance(found, Project) else None


# -- checks -----------------------------------------------------------------------------------------------------


def check(row: models.Model) -> tuple[dict[str, str], list[str]]:
    """Problems by field, and warnings, of a row of the policy as it would be saved."""
    checker = Checker()
    warnings: list[str] = []
    match row:
        case GpuFlavor():
            _flavor(checker, row, warnings)
        case GpuCohort():
            checker.name("name", row.name)
            _weight(checker, row.weight)
            _cycle(checker, row)
        case GpuTenant():
            _weight(checker, row.weight)
        case GpuQuota():
            _quota(checker, row, warnings)
        case GpuPriority():
            checker.name("name", row.name)
            checker.integer("value", row.value, least=-1000, most=1000)
        case GpuPolicy():
            _settings(checker, row)
    return checker.problems, warnings


def _weight(checker: Checker, value: Any) -> None:
    """With weight 0 a project borrows only what nobody else wants; that is allowed and meant."""
    checker.number("weight", value, least=0, most=1000)


def _flavor(checker: Checker, row: GpuFlavor, warnings: list[str]) -> None:
    checker.name("name", row.name)
    if not row.resource or "/" not in row.resource:
        checker.problem("resource", f"'{row.resource}' is not an extended resource; give one such as nvidia.com/gpu")
    if not isinstance(row.products, list) or not all(isinstance(one, str) and one for one in row.products):
        checker.problem("products", 'Give a list of product labels, for example ["NVIDIA-A100-SXM4-80GB"], or []')
    checker.labels("node_selector", row.node_selector)
    checker.number("price", row.price)
    if checker.problems:
        return
    found = pools()
    if not any(offers(row, pool) for pool in found):
        seen = sorted({pool.product for pool in found if pool.resource == row.resource})
        known = (
            f"products seen with {row.resource}: {', '.join(seen)}" if seen else f"no node offers {row.resource} now"
        )
        warnings.append(f"Flavor '{row.name}' matches no node; {known}. Claims on it wait until one does.")


def _cycle(checker: Checker, row: GpuCohort) -> None:
    path, above = [row.name], row.parent
    while above is not None:
        path.append(above.name)
        if above.pk == row.pk:
            checker.problem("parent", f"Cohorts would form a cycle: {' > '.join(path)}. Choose another parent")
            return
        above = GpuCohort.objects.select_related("parent").get(pk=above.pk).parent


def _quota(checker: Checker, row: GpuQuota, warnings: list[str]) -> None:
    for name in ("nominal", "borrowing_limit", "lending_limit"):
        value = getattr(row, name)
        if value is not None or name == "nominal":
            checker.integer(name, value, least=0, most=MAX_DEVICES)
    if (row.project is None) == (row.cohort is None):
        checker.problem("project", "Give either a project or a cohort")
    if checker.problems or row.project is None:
        return
    if row.lending_limit is not None and row.lending_limit > row.nominal:
        warnings.append(f"A lending limit of {row.lending_limit} above the quota of {row.nominal} limits nothing.")
    used = board.used_by(row.project).get(row.flavor.name, 0)
    if row.nominal < used:
        warnings.append(
            f"Project {row.project} uses {used} x {row.flavor}, more than its new quota of {row.nominal}. Nothing is "
            "stopped for that; others may get back what it borrows."
        )


def _settings(checker: Checker, row: GpuPolicy) -> None:
    if row.idle_minutes is not None:
        checker.integer("idle_minutes", row.idle_minutes, least=1, most=365 * 24 * 60)
    checker.integer("minimum_run_seconds", row.minimum_run_seconds, least=0, most=30 * DAY)
    checker.integer("hold_after_seconds", row.hold_after_seconds, least=0, most=30 * DAY)
    checker.number("half_life_hours", row.half_life_hours, least=0.1, most=24 * 365)
    checker.number("usage_weight", row.usage_weight, least=0, most=1000)
    if row.fair_sharing not in GpuPolicy.FairSharing.values:
        known = ", ".join(GpuPolicy.FairSharing.values)
        checker.problem("fair_sharing", f"Unknown '{row.fair_sharing}'; use one of {known}")
