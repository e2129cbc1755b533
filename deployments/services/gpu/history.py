"""What happened to claims, kept for pages and for replays."""

import datetime as dt
from collections.abc import Iterable, Mapping

from deployments.models import GpuClaim, GpuClaimEvent

State = GpuClaim.State
EVENTS_KEPT = dt.timedelta(days=30)
CLAIMS_KEPT = dt.timedelta(days=90)


def write(
    claims: Iterable[GpuClaim], before: Mapping[str, Mapping[str, object]], now: dt.datetime
) -> list[GpuClaimEvent]:
    """One event for each claim whose state, places or reason changed; numbers alone are no event."""
    events = []
    for claim in claims:
        old = before.get(str(claim.pk), {})
        same = all(getattr(claim, name) == old.get(name) for name in ("state", "reason_code", "nodes"))
        trivial = claim.state == State.ENDED and claim.version_id is None
        if not same and not trivial:
            events.append(
                GpuClaimEvent(
                    claim=claim,
                    version_id=claim.version_id,
                    state=claim.state,
                    code=claim.reason_code,
                    message=told(claim),
                    created_at=now,
                )
            )
    return GpuClaimEvent.objects.bulk_create(events, batch_size=500)


def told(claim: GpuClaim) -> str:
    """A claim's state in a sentence."""
    if claim.state == State.PLACED and claim.nodes:
        nodes = ", ".join(sorted({node for _, node in claim.nodes}))
        count = len(claim.nodes) * claim.devices
        return f"{count} x {claim.flavor} on {nodes}."
    if claim.state == State.ENDED:
        return "The devices are not asked for any more."
    return claim.reason_message


def expire(now: dt.datetime) -> None:
    """Delete what is too old to be shown or replayed."""
    GpuClaimEvent.objects.filter(created_at__lt=now - EVENTS_KEPT).delete()
    GpuClaim.objects.filter(ended_at__lt=now - CLAIMS_KEPT).delete()
