"""One reconciler per version at a time: a short lease taken by compare-and-set, and a mark for who came too late."""

import datetime as dt
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
from django.db.models import Q
from django.utils import timezone

from deployments import valkey
from deployments.models import DeploymentVersion

# Longer than a pass takes; a holder that was killed is replaced after this. One that is only slow does no harm: what
# it applies is what anybody would, and what it saves is refused.
LENGTH = dt.timedelta(seconds=10)


def _take(version_id: uuid.UUID, owner: str) -> bool:
    now = timezone.now()
    free = Q(lease_until=None) | Q(lease_until__lt=now)
    taken = DeploymentVersion.objects.filter(free, pk=version_id).update(lease_owner=owner, lease_until=now + LENGTH)
    return bool(taken)


def _mark(version_id: uuid.UUID) -> str:
    return f"pilothouse:again:{version_id}"


@contextmanager
def hold(version_id: uuid.UUID) -> Iterator[str]:
    """Gives the owner's name while the lease is held, "" when somebody else holds it.

    Somebody else then knows that there is more to do: `again` tells it after the lease was given back.
    """
    owner = f"{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}-{uuid.uuid4().hex[:8]}"[-60:]
    if not _take(version_id, owner):
        with suppress(redis.RedisError):  # the sweep comes by
            valkey.client().set(_mark(version_id), "1", ex=60)
        # It may have been given back between the two; then nobody would read the mark.
        if not _take(version_id, owner):
            yield ""
            return
    try:
        yield owner
    finally:
        DeploymentVersion.objects.filter(pk=version_id, lease_owner=owner).update(lease_owner="", lease_until=None)


def again(version_id: uuid.UUID) -> bool:
    """Whether somebody came while the lease was held; asked after giving it back, answered once."""
    try:
        return bool(valkey.client().delete(_mark(version_id)))
    except redis.RedisError:
        return False
