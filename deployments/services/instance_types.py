"""Instance type groups of projects. Instance types themselves are made by the platform team in the admin panel."""

import uuid
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import RestrictedError

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, NotFound
from accounts.models import Project, User
from deployments.models import InstanceType, InstanceTypeGroup, InstanceTypeGroupItem, Rollout
from deployments.services import intent
from deployments.services.validation import Checker

MAX_ITEMS = 20
DAY = 86400


@transaction.atomic
def create_group(
    actor: User, project: Project, *, name: str, instance_types: list[dict[str, Any]]
) -> InstanceTypeGroup:
    """A group of instance types to try in order: ``[{"id": UUID or name, "priority": int, "schedule_timeout": s}]``.

    The lowest ``priority`` comes first (by default the place in the list); after ``schedule_timeout`` seconds without
    a node the next is tried. Raises Invalid by field, Conflict for a name that is taken.
    """
    access.require(actor, Permission.PROJECT_EDIT, project)
    check = Checker()
    name = check.name("name", name)
    items = _items(check, instance_types)
    check.done()
    group = InstanceTypeGroup(project=intent.lock_project(project), name=name)
    _save(group)
    _replace(group, items)
    audit.record(actor, "create", group, project=project, new={"name": name, "instance_types": _told(items)})
    return group


@transaction.atomic
def update_group(
    actor: User,
    group: InstanceTypeGroup,
    *,
    name: str | None = None,
    instance_types: list[dict[str, Any]] | None = None,
) -> InstanceTypeGroup:
    """Changes what is given; versions that use the group are rolled over when its types change."""
    access.require(actor, Permission.PROJECT_EDIT, group.project)
    project = intent.lock_project(group.project)
    group = _locked(group)
    check = Checker()
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    if name is not None and check.name("name", name) != group.name:
        old["name"], new["name"] = group.name, name
    items = _items(check, instance_types) if instance_types is not None else None
    check.done()
    before = _told(list(group.items.select_related("instance_type")))
    if items is not None and _told(items) != before:
        old["instance_types"], new["instance_types"] = before, _told(items)
    if not new:
        return group
    group.name = new.get("name", group.name)
    _save(group)
    if items is not None and "instance_types" in new:
        _replace(group, items)
        for version in group.versions.filter(target_revision__isnull=False):
            intent.roll_out(intent.lock(version), actor, Rollout.Cause.SETTINGS)
    audit.record(actor, "update", group, project=project, old=old, new=new)
    return group


@transaction.atomic
def delete_group(actor: User, group: InstanceTypeGroup) -> None:
    """Raises Conflict while a version uses it."""
    access.require(actor, Permission.PROJECT_EDIT, group.project)
    project = intent.lock_project(group.project)
    group = _locked(group)
    audit.record(actor, "delete", group, project=project, old={"name": group.name})
    try:
        group.delete()
    except RestrictedError:
        users = ", ".join(str(version) for version in group.versions.select_related("deployment")[:5])
        raise Conflict(f"Group '{group.name}' is used by {users}; choose another instance type there first") from None


def _locked(group: InstanceTypeGroup) -> InstanceTypeGroup:
    row = InstanceTypeGroup.objects.select_for_update().filter(pk=group.pk).first()
    if row is None:
        raise NotFound("Instance type group", group.name)
    return row


def _items(check: Checker, value: Any) -> list[InstanceTypeGroupItem]:
    field = "instance_types"
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ITEMS or not all(isinstance(i, dict) for i in value):
        check.problem(field, f'Give 1 to {MAX_ITEMS} instance types, for example [{{"id": "...", "priority": 0}}]')
        return []
    items: list[InstanceTypeGroupItem] = []
    for position, given in enumerate(value):
        check.unknown(given, ("id", "priority", "schedule_timeout"))
        found = _instance_type(given.get("id"))
        if found is None:
            names = ", ".join(InstanceType.objects.filter(enabled=True).values_list("name", flat=True))
            check.problem(field, f"Unknown instance type '{given.get('id')}'; choose from {names}")
            continue
        if any(item.instance_type == found for item in items):
            check.problem(field, f"Instance type '{found.name}' is given twice")
        timeout = given.get("schedule_timeout")
        items.append(
            InstanceTypeGroupItem(
                instance_type=found,
                priority=check.integer(field, _or(given.get("priority"), position), least=0, most=1000),
                schedule_timeout=None if timeout is None else check.integer(field, timeout, least=1, most=DAY),
            )
        )
    return sorted(items, key=lambda item: item.priority)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _instance_type(value: Any) -> InstanceType | None:
    enabled = InstanceType.objects.filter(enabled=True)
    try:
        return enabled.filter(pk=uuid.UUID(str(value))).first()
    except ValueError:
        return enabled.filter(name=str(value)).first()


def _replace(group: InstanceTypeGroup, items: list[InstanceTypeGroupItem]) -> None:
    group.items.all().delete()
    for item in items:
        item.group = group
    InstanceTypeGroupItem.objects.bulk_create(items)


def _told(items: list[InstanceTypeGroupItem]) -> list[dict[str, Any]]:
    return [
        {"name": item.instance_type.name, "priority": item.priority, "schedule_timeout": item.schedule_timeout}
        for item in items
    ]


def _save(group: InstanceTypeGroup) -> None:
    try:
        with transaction.atomic():
            group.save()
    except IntegrityError:
        raise Conflict(f"There is already a group named '{group.name}'; choose another name") from None
