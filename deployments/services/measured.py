"""What the collector of numbers has measured of instances; it alone writes these columns."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from django.db import transaction

from deployments import hints
from deployments.models import Instance

# A peak that grows by less is not worth a write.
GROWTH = 1.02


@dataclass(frozen=True, slots=True)
class Measured:
    """One reading of an instance: ``memory`` in bytes, 0 and None for what it does not tell."""

    loading_at: dt.datetime | None = None
    memory: int = 0
    gpu_busy_at: dt.datetime | None = None


def save(instances: Iterable[Instance], told: Mapping[uuid.UUID, Measured]) -> int:
    """Save what is new; the rows are changed along. How many were."""
    changed = 0
    for instance in instances:
        columns = _new(instance, told.get(instance.pk, Measured()))
        if not columns:
            continue
        changed += Instance.objects.filter(pk=instance.pk).update(**columns)
        for name, value in columns.items():
            setattr(instance, name, value)
        if "loading_at" in columns:
            deployment = instance.version.deployment
            told_of = (instance.version_id, deployment.pk, deployment.project_id)
            transaction.on_commit(partial(hints.changed, *told_of))
    return changed


def _new(instance: Instance, told: Measured) -> dict[str, object]:
    columns: dict[str, object] = {}
    # A container that was restarted loads anew; the timeline is of the first start. The cluster's times are whole
    # seconds of other clocks: loading begins after the container, and before the instance is ready.
    if told.loading_at is not None and instance.loading_at is None and instance.started_at and not instance.restarts:
        columns["loading_at"] = max(min(told.loading_at, instance.ready_at or told.loading_at), instance.started_at)
    if told.memory > instance.memory_peak * GROWTH:
        columns["memory_peak"] = told.memory
    if told.gpu_busy_at is not None:
        columns["gpu_busy_at"] = told.gpu_busy_at
    return columns
