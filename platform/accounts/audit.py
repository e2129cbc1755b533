"""The audit trail: one row for every change, written in the change's own transaction."""

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.functional import Promise

from accounts.models import AuditEvent, Project, User

SECRET = "(secret)"  # noqa: S105  (what stands in for one)


def record(
    actor: User,
    action: str,
    obj: models.Model,
    *,
    project: Project | None,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
) -> AuditEvent:
    """Stores who changed what. Callers pass `SECRET` in place of a secret's value."""
    return AuditEvent.objects.create(
        project=project if project is not None and project.pk else None,
        project_name=project.name if project is not None else "",
        actor=actor,
        actor_name=str(actor),
        action=action,
        object_type=obj._meta.model_name or "",
        object_id=str(obj.pk),
        object_name=str(obj)[:254],
        old=_plain(old or {}),
        new=_plain(new or {}),
    )


def changed(obj: models.Model, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Old and new values of the fields that really change, for `record`."""
    old = {name: getattr(obj, name) for name, value in changes.items() if getattr(obj, name) != value}
    return old, {name: changes[name] for name in old}


def between(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of two descriptions of one thing with the same keys: what differs, for `record`."""
    keys = [key for key in new if new[key] != old[key]]
    return {key: old[key] for key in keys}, {key: new[key] for key in keys}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values, cls=_Encoder))


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        if isinstance(o, models.Model | Promise):
            return str(o)
        return super().default(o)
