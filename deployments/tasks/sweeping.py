"""The periodic pass: finds versions that a lost message left behind, and everything that time alone changes."""

import datetime as dt

from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from deployments import triggers
from deployments.models import DeploymentVersion, Request, Rollout

Phase = DeploymentVersion.Phase

# How long a version that runs, and one that does not, may go unseen.
STALE_RUNNING = dt.timedelta(minutes=2)
STALE_RESTING = dt.timedelta(hours=1)
BATCH = 500


def due(now: dt.datetime) -> list[str]:
    """Ids of versions to look at, the longest unseen first, at most `BATCH`."""
    rolling = Rollout.objects.filter(version=OuterRef("pk"), state=Rollout.State.IN_PROGRESS)
    restless = Q(Exists(rolling)) | (
        Q(target_revision__isnull=False) & ~Q(phase__in=[Phase.SERVING, Phase.IDLE, Phase.FAILED])
    )
    behind = Q(observed_generation__lt=F("generation"))
    outage = Q(reason_code="cluster_unreachable")
    unseen = Q(observed_at=None)
    running = Q(desired_instances__gt=0) & Q(observed_at__lt=now - STALE_RUNNING)
    resting = Q(observed_at__lt=now - STALE_RESTING)
    found = (
        DeploymentVersion.objects.filter(restless | behind | outage | unseen | running | resting)
        .order_by(F("observed_at").asc(nulls_first=True))
        .values_list("id", flat=True)
    )
    return [str(key) for key in found[:BATCH]]


def sweep(now: dt.datetime) -> int:
    """Wake the reconciler for everything due; how many."""
    return sum(triggers.wake(key) for key in due(now))


def expire_requests() -> int:
    """Delete requests whose retention is over; how many."""
    count, _ = Request.objects.filter(expires_at__lt=Now(), status__in=Request.TERMINAL).delete()
    return count
