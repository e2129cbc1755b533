"""What people do with claims: taking idle devices back."""

from django.db import transaction
from django.utils import timezone

from accounts import access, audit
from accounts.access import AnyUser, Permission
from accounts.errors import Conflict, NotFound
from accounts.models import User
from deployments import triggers
from deployments.models import DeploymentVersion, GpuClaim
from deployments.services import intent
from deployments.services.gpu import gate, idle

State = GpuClaim.State


@transaction.atomic
def release(actor: User, version: DeploymentVersion) -> int:
    """Take a version's devices until its next request; how many. Raises Conflict when it holds none."""
    access.require(actor, Permission.PROJECT_EDIT, version.deployment.project)
    gate.wait_for_pass()
    held = list(GpuClaim.objects.filter(version=version, state=State.PLACED, ended_at=None, devices__gt=0))
    if not held:
        raise Conflict(f"Version '{version}' holds no devices; nothing to take back")
    now = timezone.now()
    for claim in held:
        idle.let_go(claim, f"{actor} took its devices back while it was idle.", now)
        claim.save()
    devices = sum(claim.demand for claim in held)
    audit.record(
        actor, "release", version, project=version.deployment.project, old={"devices": devices}, new={"devices": 0}
    )
    transaction.on_commit(lambda: triggers.wake(version.pk) and None)
    intent.schedule_gpus_later()
    return devices


def find_version(user: AnyUser, claim_id: str) -> DeploymentVersion:
    """The version of a claim that the user may see. Raises NotFound."""
    claim = GpuClaim.objects.select_related("version__deployment__project").filter(pk=claim_id).first()
    if claim is None or claim.version is None or not access.can(user, Permission.PROJECT_VIEW, claim.project):
        raise NotFound("Claim", claim_id)
    return claim.version
