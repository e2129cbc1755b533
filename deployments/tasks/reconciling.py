"""One pass over one version: read both sides, plan, act, save what was seen. Short; it never waits."""

import datetime as dt
import logging
import uuid
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.utils import timezone

from deployments import cluster as clusters
from deployments import hints, triggers
from deployments.models import DeploymentVersion, EnvironmentBuild, Rollout
from deployments.planning.plan import Action, Apply, Create, Delete, Scale, Wanted, plan
from deployments.planning.progress import Progress, Steps, Target, progress, standing
from deployments.services.environments import in_tree
from deployments.services.gpu import demand
from deployments.tasks import desired, environments, gates, lease, observation
from kube import apply
from kube.connect import Cluster
from kube.errors import ClusterUnreachable, KubeError
from kube.explain import Reason, unreachable
from kube.manifests import stamp_of
from kube.observe import Observed, Room, observe, rooms

logger = logging.getLogger(__name__)

Phase = DeploymentVersion.Phase

# A shorter outage is not worth a word.
SILENCE = dt.timedelta(seconds=5)
LOG_REFRESH_SECONDS = 2


@dataclass(slots=True)
class Pass:
    """What one pass knows."""

    version: DeploymentVersion
    rollout: Rollout | None
    owner: str
    now: dt.datetime
    changed: bool = False
    # Come again at once (something ended that lets the next step begin), or soon (a log that grows).
    again: bool = False
    soon: bool = False

    @property
    def rolling(self) -> Rollout | None:
        rollout = self.rollout
        return rollout if rollout is not None and rollout.state == Rollout.State.IN_PROGRESS else None


def reconcile(version_id: uuid.UUID, *, force: bool = False) -> None:
    """Bring the cluster nearer to what is wanted of a version and save what it holds. A missing row is a clean end."""
    triggers.started(version_id)
    done: Pass | None = None
    with lease.hold(version_id) as owner:
        if owner:
            done = _pass(version_id, owner, force)
    if not owner:
        return
    if lease.again(version_id) or (done is not None and done.again):
        triggers.wake(version_id)
    elif done is not None and done.soon:
        triggers.wake(version_id, countdown=LOG_REFRESH_SECONDS)


def _load(version_id: uuid.UUID) -> DeploymentVersion | None:
    return (
        DeploymentVersion.objects.select_related(
            "deployment__project",
            "instance_type",
            "instance_type_group",
            "target_revision__environment_build__project",
            "target_revision__model_version",
            "active_revision__environment_build__project",
            "active_revision__model_version",
        )
        .order_by()  # the model's own order is over further tables
        .filter(pk=version_id)
        .first()
    )


def _pass(version_id: uuid.UUID, owner: str, force: bool) -> Pass | None:
    version = _load(version_id)
    if version is None:
        return None
    rollout = version.rollouts.select_related("to_revision").order_by("-generation", "-queued_at").first()
    state = Pass(version, rollout, owner, timezone.now())
    if rollout is not None:
        rollout.version = version
    if version.target_revision is None:
        _save(state, Progress(Phase.EMPTY, Steps(), 0), settled=True)
    else:
        try:
            _visit(state, clusters.current(), force)
        except ClusterUnreachable as error:
            _unreachable(state, error)
    if state.changed:
        hints.changed(version.id, version.deployment_id, version.deployment.project_id)
    return state


def _visit(state: Pass, cluster: Cluster, force: bool) -> None:
    version, namespace = state.version, state.version.deployment.project.namespace
    build = desired.build_of(version.target_revision)
    if build is not None and version.target_revision is not None:
        build = in_tree(version, version.target_revision, build)
        environments.adopt(build, version.deployment.project)
    seen = _look(state, cluster, build, deep=force or state.rolling is None)
    if build is not None:
        _follow_build(state, cluster, build, seen)

    held = demand.holding(version)
    wanted = desired.wanted(version, seen.name, state.rollout, held)
    actions = plan(wanted, seen, force=force)
    if held is not None:
        gates.single_out(cluster, namespace, held, seen, wanted.replicas)
    refusal = _execute(cluster, actions, namespace)
    if held is not None:
        gates.send(cluster, namespace, held, seen)

    short = held is not None and build is None and gates.short(version, held)
    nodes = tuple(rooms(cluster)) if any(pod.unschedulable for pod in seen.pods) else ()
    if refusal is not None:
        result = _refused(state, standing(wanted.replicas, seen, state.now, nodes), refusal)
    elif short and held is not None and held.nothing_of_size:
        result = _held(state, gates.waiting(held, seen))
    elif state.rolling is not None:
        result = _judge(state, wanted, seen, nodes)
    else:
        result = _standing(state, wanted, seen, nodes)
    if held is not None:
        result = replace(result, reason=gates.better_reason(result.reason, held, seen, short=short))
    _save(state, result, settled=state.rolling is None and not actions)


def _look(state: Pass, cluster: Cluster, build: EnvironmentBuild | None, *, deep: bool) -> Observed:
    """What the cluster holds of the version, with what is known of its instances from before; their rows follow it."""
    version = state.version
    known = list(version.instances.filter(deleted_at=None).values_list("id", "ready", "memory_peak"))
    quiet = {str(key) for key, ready, _ in known if ready}
    peaks = {str(key): float(peak) for key, _, peak in known}
    building = (build.project.namespace, build.hash) if build is not None and build.project is not None else None
    namespace = version.deployment.project.namespace
    seen = observe(cluster, namespace, str(version.id), build=building, quiet=quiet, deep=deep)
    seen = replace(seen, pods=tuple(replace(pod, memory_peak=peaks.get(pod.uid, 0.0)) for pod in seen.pods))
    state.changed |= observation.save_instances(version, seen.pods, state.now)
    return seen


def _follow_build(state: Pass, cluster: Cluster, build: EnvironmentBuild, seen: Observed) -> None:
    before = build.state
    state.changed |= environments.advance(cluster, build, seen.build, state.now)
    if build.state == EnvironmentBuild.State.BUILDING:
        state.soon = True
    elif build.state != before:
        # Ended, or queued for another attempt: everybody who waits for it goes on.
        for other in environments.waiting_versions(build):
            if other != str(state.version.id):
                triggers.wake(other)
    if build.state == EnvironmentBuild.State.FAILED and state.rolling is not None:
        reason = environments.reason(build, None, state.now)
        assert reason is not None
        _fail(state, reason)


def _execute(cluster: Cluster, actions: list[Action], namespace: str) -> Reason | None:
    """Do the actions in order; the reason why the cluster refused one, after which the rest is left."""
    for action in actions:
        try:
            match action:
                case Apply(manifest):
                    apply.apply(cluster, manifest)
                case Create(manifest):
                    apply.create(cluster, manifest)
                case Scale(name, replicas):
                    apply.scale(cluster, namespace, name, replicas)
                case Delete(kind, name, elsewhere):
                    apply.delete(cluster, kind, elsewhere or namespace, name)
        except KubeError as error:
            logger.warning("The cluster refused %s: %s", type(action).__name__, error)
            return _refusal(error)
    return None


def _refusal(error: KubeError) -> Reason:
    if "NamespaceTerminating" in str(error.details) or error.reason == "NotFound":
        text = "The project's namespace in the cluster is being deleted; it is made again when it is gone."
        return Reason("namespace_terminating", text, "Nothing to do.", error.message)
    if error.status in (401, 403) and "quota" not in error.message:
        text = f"The cluster does not let Pilothouse do this: {error.message}"
        return Reason("cluster_forbids", text, "Show this sentence to the platform team.", error.message)
    text = f"The cluster refuses the settings: {error.message}"
    return Reason("admission_refused", text, "Correct the settings.", error.message, hopeless=error.status == 422)


def _refused(state: Pass, result: Progress, refusal: Reason) -> Progress:
    """The cluster did not take the settings: what runs goes on, a rollout that cannot end well is given up."""
    if state.rolling is not None and refusal.hopeless:
        _fail(state, refusal)
    return replace(result, reason=refusal)


def _held(state: Pass, result: Progress) -> Progress:
    """Nothing can start before there is a place on GPUs; the rollout waits, unless there never will be one."""
    rollout = state.rolling
    if rollout is None:
        return result
    if result.failed and result.reason is not None:
        _fail(state, result.reason)
    else:
        deadline = dt.timedelta(seconds=settings.PILOTHOUSE_ROLLOUT_DEADLINE_SECONDS)
        state.changed |= observation.save_steps(rollout, result, deadline, state.now)
    return result


def _judge(state: Pass, wanted: Wanted, seen: Observed, nodes: tuple[Room, ...]) -> Progress:
    """The rollout in progress: its steps, and whether it is complete or given up."""
    rollout, version, now = state.rolling, state.version, state.now
    assert rollout is not None
    build = desired.build_of(version.target_revision)
    target = Target(
        revision_id=str(version.target_revision_id),
        stamp=stamp_of(wanted.workload) if build is None and wanted.workload is not None else "",
        replicas=wanted.replicas,
        started_at=rollout.queued_at,
        deadline_at=rollout.deadline_at,
        building=build is not None,
        active_revision_id=str(version.active_revision_id or ""),
    )
    result = progress(target, seen, now, nodes)
    if build is not None:
        result = replace(result, reason=result.reason or environments.reason(build, seen.build, now))
    else:
        result = replace(result, steps=replace(result.steps, environment_at=rollout.environment_at or now))
    deadline = dt.timedelta(seconds=settings.PILOTHOUSE_ROLLOUT_DEADLINE_SECONDS)
    state.changed |= observation.save_steps(rollout, result, deadline, now)
    if result.complete:
        observation.complete(rollout, now)
        state.changed = state.again = True
    elif result.failed and result.reason is not None:
        _fail(state, result.reason)
        result = _standing(state, wanted, seen, nodes)
    return result


def _fail(state: Pass, reason: Reason) -> None:
    rollout = state.rolling
    assert rollout is not None
    observation.fail(rollout, reason, state.now)
    state.changed = state.again = True


def _standing(state: Pass, wanted: Wanted, seen: Observed, nodes: tuple[Room, ...]) -> Progress:
    """No rollout under way: how the version is, and what is left to say of a rollout that failed."""
    version, rollout = state.version, state.rollout
    result = standing(wanted.replicas, seen, state.now, nodes)
    if version.deployment.project.suspended:
        text = "The project is suspended, so nothing of it runs."
        return replace(result, reason=Reason("project_suspended", text, "Resume the project."))
    if rollout is None or rollout.state != Rollout.State.FAILED:
        return result
    target, active, workload = version.target_revision, version.active_revision, seen.workload
    assert target is not None
    runs_target = workload is not None and workload.revision_id == str(target.id)
    if runs_target and workload is not None and workload.settled and wanted.replicas and result.reason is None:
        # What stood in the way has passed by itself.
        if active != target:
            observation.activate(version, target)
            state.changed = True
        return result
    reason = Reason(rollout.reason_code, rollout.reason_message, rollout.reason_next)
    if result.ready and active is not None and active != target:
        text = f"Revision {target.number} failed; revision {active.number} keeps answering. {reason.message}"
        return replace(result, phase=Phase.DEGRADED, reason=replace(reason, message=text))
    return replace(result, phase=Phase.DEGRADED if result.ready else Phase.FAILED, reason=reason)


def _save(state: Pass, result: Progress, *, settled: bool) -> None:
    version = state.version
    columns: dict[str, Any] = {
        "phase": result.phase,
        "ready_instances": result.ready,
        **observation.reason_columns(result.reason),
    }
    if settled:
        columns["observed_generation"] = version.generation
    state.changed |= observation.save_version(version, state.owner, columns, state.now)


def _unreachable(state: Pass, error: ClusterUnreachable) -> None:
    logger.warning("%s", error)
    version = state.version
    if version.observed_at is not None and state.now - version.observed_at < SILENCE:
        return
    columns = observation.reason_columns(unreachable(str(error)))
    if any(getattr(version, name) != value for name, value in columns.items()):
        # The time of the observation stays: nothing was seen.
        DeploymentVersion.objects.filter(pk=version.pk, lease_owner=state.owner).update(**columns)
        state.changed = True
