"""Devices that hold a place without doing anything: taken back after a while, and given again on a request.

A version is at work when it is asked something, and when its GPUs are seen at work where that is measured.
"""

import datetime as dt
import uuid
from collections.abc import Iterable

import redis

from deployments.models import GpuClaim, GpuPolicy, Instance, Request
from deployments.services import load
from deployments.services.gpu import claims as claims_of

State = GpuClaim.State


def last_asked(claims: Iterable[GpuClaim]) -> dict[uuid.UUID, dt.datetime]:
    """When versions were last asked something, as far as is known; a version that is busy or has work queued: now.

    Raises redis.RedisError.
    """
    versions = {claim.version.pk: claim.version for claim in claims if claim.version is not None}
    now = dt.datetime.now(dt.UTC)
    found = {key: version.last_request_at for key, version in versions.items() if version.last_request_at is not None}
    for key, busy in load.read(versions).items():
        seen = now if busy.running else dt.datetime.fromtimestamp(busy.last, dt.UTC) if busy.last else None
        if seen is not None and (key not in found or seen > found[key]):
            found[key] = seen
    queued = Request.objects.filter(
        version__in=versions, batch=True, status__in=[Request.Status.PENDING, Request.Status.PROCESSING]
    )
    found |= dict.fromkeys(queued.values_list("version", flat=True).distinct(), now)
    return found


def last_at_work(claims: Iterable[GpuClaim]) -> dict[uuid.UUID, dt.datetime]:
    """As `last_asked`; GPUs that were seen at work without being asked count as well."""
    claims = list(claims)
    found = last_asked(claims)
    versions = {claim.version_id for claim in claims if claim.version_id is not None}
    running = Instance.objects.filter(version__in=versions, deleted_at=None, gpu_busy_at__isnull=False)
    for key, at in running.values_list("version", "gpu_busy_at"):
        if at is not None:
            found[key] = max(at, found.get(key, at))
    return found


def idle_since(claim: GpuClaim, worked: dict[uuid.UUID, dt.datetime]) -> dt.datetime | None:
    """Since when a placed claim has had nothing to do; None for one that holds nothing."""
    if claim.state != State.PLACED or claim.version_id is None or claim.placed_at is None:
        return None
    return max(claim.placed_at, worked.get(claim.version_id, claim.placed_at))


def release(policy: GpuPolicy, claims: list[GpuClaim], now: dt.datetime) -> None:
    """Take back what was idle for longer than the policy allows."""
    if policy.idle_minutes is None:
        return
    limit = dt.timedelta(minutes=policy.idle_minutes)
    placed = [claim for claim in claims if claim.state == State.PLACED and claim.devices and claim.part >= 0]
    try:
        worked = last_at_work(placed)
    except redis.RedisError:
        return  # without knowing the load nothing is taken from anybody
    for claim in placed:
        since = idle_since(claim, worked)
        if since is not None and now - since > limit:
            let_go(claim, f"It did nothing for {policy.idle_minutes} minutes, so its devices were taken back.", now)


def let_go(claim: GpuClaim, why: str, now: dt.datetime) -> None:
    """Take a claim's devices until the next request; its pods end first."""
    for name, value in claims_of.NOTHING.items():
        setattr(claim, name, value)
    claim.state, claim.displaced_for = State.RELEASED, None
    claim.reason_code, claim.reason_message, claim.reason_at = "idle-released", why, now
    claim.reason_next = "The next request asks for them again."


def wake(claims: list[GpuClaim], now: dt.datetime) -> None:
    """Put released claims into the queue again once their version is asked something."""
    released = [claim for claim in claims if claim.state == State.RELEASED]
    if not released:
        return
    try:
        asked = last_asked(released)
    except redis.RedisError:
        return
    for claim in released:
        last = asked.get(claim.version_id) if claim.version_id is not None else None
        if last is not None and claim.reason_at is not None and last > claim.reason_at:
            claim.state, claim.created_at = State.WAITING, now
            claim.reason_code = claim.reason_message = claim.reason_next = ""
