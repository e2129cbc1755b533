"""A version's one-word status of the public API, derived from intent and observation."""

from deployments.models import DeploymentVersion

Phase = DeploymentVersion.Phase


def version_status(version: DeploymentVersion) -> str:
    """`unavailable`, `building`, `deploying`, `available` or `failed`.

    `available` includes idle at zero instances: the next request starts one. A version whose new revision failed
    while the old one serves is `available`; the revision and the rollout tell of the failure.
    """
    if version.target_revision_id is None:
        return "unavailable"
    if version.phase == Phase.FAILED:
        return "available" if version.active_revision_id and version.ready_instances else "failed"
    if version.observed_generation < version.generation or version.phase in (Phase.EMPTY, Phase.QUEUED):
        return "building"
    if version.phase == Phase.ENVIRONMENT:
        return "building"
    if version.phase in (Phase.SCHEDULING, Phase.STARTING):
        return "deploying"
    return "available"
