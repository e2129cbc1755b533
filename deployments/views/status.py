"""The one place that says how a state looks: its word, its tone and its icon."""

from dataclasses import dataclass

from deployments.models import DeploymentVersion, EnvironmentBuild, GpuClaim, Instance, Request, Revision, Rollout


@dataclass(frozen=True)
class Status:
    """``tone`` is one of good, busy, warn, bad, idle (a CSS class); ``icon`` a name of `icons.ICONS`."""

    label: str
    tone: str
    icon: str


_BUSY = ("busy", "spinner")
_GOOD = ("good", "check")
_WARN = ("warn", "alert")
_BAD = ("bad", "cross")
_WAIT = ("idle", "clock")

_Phase = DeploymentVersion.Phase
PHASES = {
    _Phase.EMPTY: Status("No revision", "idle", "minus"),
    _Phase.QUEUED: Status("Queued", *_WAIT),
    _Phase.ENVIRONMENT: Status("Preparing environment", *_BUSY),
    _Phase.SCHEDULING: Status("Waiting for a node", "warn", "clock"),
    _Phase.STARTING: Status("Starting", *_BUSY),
    _Phase.SERVING: Status("Serving", *_GOOD),
    _Phase.IDLE: Status("Idle", "idle", "pause"),
    _Phase.DEGRADED: Status("Serving, with trouble", *_WARN),
    _Phase.FAILED: Status("Failed", *_BAD),
}
ROLLING_OUT = Status("Rolling out", *_BUSY)

REVISIONS = {
    Revision.Status.QUEUED: Status("Queued", *_WAIT),
    Revision.Status.BUILDING: Status("Building", *_BUSY),
    Revision.Status.SUCCESS: Status("Ready", *_GOOD),
    Revision.Status.FAILED: Status("Failed", *_BAD),
}

ROLLOUTS = {
    Rollout.State.IN_PROGRESS: Status("In progress", *_BUSY),
    Rollout.State.COMPLETE: Status("Complete", *_GOOD),
    Rollout.State.FAILED: Status("Failed", *_BAD),
    Rollout.State.SUPERSEDED: Status("Superseded", "idle", "minus"),
}

BUILDS = {
    EnvironmentBuild.State.QUEUED: Status("Queued", *_WAIT),
    EnvironmentBuild.State.BUILDING: Status("Building", *_BUSY),
    EnvironmentBuild.State.SUCCESS: Status("Built", *_GOOD),
    EnvironmentBuild.State.FAILED: Status("Build failed", *_BAD),
}

INSTANCES = {
    Instance.Status.PENDING: Status("Pending", *_WAIT),
    Instance.Status.INITIALISING: Status("Starting", *_BUSY),
    Instance.Status.RUNNING: Status("Running", *_GOOD),
    Instance.Status.STOPPING: Status("Stopping", "idle", "stop"),
    Instance.Status.STOPPED: Status("Stopped", "idle", "stop"),
    Instance.Status.FAILED: Status("Failed", *_BAD),
}
NOT_READY = Status("Running, not ready", *_WARN)

REQUESTS = {
    Request.Status.PENDING: Status("Pending", *_WAIT),
    Request.Status.PROCESSING: Status("Processing", *_BUSY),
    Request.Status.COMPLETED: Status("Completed", *_GOOD),
    Request.Status.FAILED: Status("Failed", *_BAD),
    Request.Status.CANCELLED: Status("Cancelled", "idle", "minus"),
}

CLAIMS = {
    GpuClaim.State.WAITING: Status("Waiting", "warn", "clock"),
    GpuClaim.State.PLACED: Status("Placed", *_GOOD),
    GpuClaim.State.EVICTED: Status("Displaced", *_WARN),
    GpuClaim.State.RELEASED: Status("Taken back while idle", "idle", "pause"),
    GpuClaim.State.REFUSED: Status("Refused", *_BAD),
    GpuClaim.State.ENDED: Status("Ended", "idle", "stop"),
}

UNKNOWN = Status("Unknown", "idle", "dot")


def of_version(version: DeploymentVersion | None) -> Status:
    """Says "Rolling out" while intent is ahead of observation, so that a page never shows an old state as the new."""
    if version is None:
        return PHASES[_Phase.EMPTY]
    phase = _Phase(version.phase)
    if phase == _Phase.EMPTY and version.target_revision_id is not None:
        return PHASES[_Phase.QUEUED]
    settled = (_Phase.SERVING, _Phase.IDLE, _Phase.DEGRADED, _Phase.FAILED)
    if version.observed_generation < version.generation and phase in settled:
        return ROLLING_OUT
    return PHASES[phase]


def of_instance(instance: Instance) -> Status:
    """Ready is never shown over a container that does not answer its probe."""
    if instance.status == Instance.Status.RUNNING and not instance.ready:
        return NOT_READY
    return INSTANCES.get(Instance.Status(instance.status), UNKNOWN)


def of(obj: object) -> Status:
    """The status of any row that has one."""
    match obj:
        case DeploymentVersion() | None:
            return of_version(obj)
        case Instance():
            return of_instance(obj)
        case Revision():
            return REVISIONS[Revision.Status(obj.status)]
        case Rollout():
            return ROLLOUTS[Rollout.State(obj.state)]
        case EnvironmentBuild():
            return BUILDS[EnvironmentBuild.State(obj.state)]
        case GpuClaim():
            return CLAIMS[GpuClaim.State(obj.state)]
        case Request():
            return REQUESTS[Request.Status(obj.status)]
    return UNKNOWN
