"""What an observation means for people: phase, steps of the rollout, and whether it succeeded or failed. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from kube.explain import Reason, deadline, explain
from kube.state import Observed, Pod, Room

Time = datetime.datetime


@dataclass(frozen=True, slots=True)
class Target:
    """What is being rolled out and what the rows know of it."""

    revision_id: str
    stamp: str  # of the workload that is wanted for it; empty while its environment is not built
    replicas: int
    started_at: Time
    deadline_at: Time | None
    building: bool = False
    # The revision that answered last; empty before the first.
    active_revision_id: str = ""


@dataclass(frozen=True, slots=True)
class Steps:
    """When each step was reached, as far as it was."""

    environment_at: Time | None = None
    scheduled_at: Time | None = None
    starting_at: Time | None = None
    ready_at: Time | None = None
    serving_at: Time | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    phase: str  # a DeploymentVersion.Phase
    steps: Steps
    ready: int
    reason: Reason | None = None
    complete: bool = False
    failed: bool = False


def fresh_pods(target: Target, observed: Observed) -> list[Pod]:
    """Pods of the template that is being rolled out."""
    workload = observed.workload
    if workload is None or not target.stamp or workload.applied != target.stamp or not workload.template:
        return []
    if workload.observed_generation < workload.generation:
        return []
    return [pod for pod in observed.pods if pod.template == workload.template and not pod.deleting]


def progress(target: Target, observed: Observed, now: Time, rooms: tuple[Room, ...] = ()) -> Progress:
    """Judge a rollout that is in progress."""
    ready = [pod for pod in observed.pods if pod.ready and not pod.deleting]
    if target.building:
        phase = "environment" if observed.build is not None else "queued"
        late = target.deadline_at is not None and now > target.deadline_at
        reason = _late("The environment was not built in time.") if late else None
        return Progress("serving" if ready else phase, Steps(), len(ready), reason, failed=late)
    pods = fresh_pods(target, observed)
    steps = _steps(pods, now)
    workload = observed.workload
    applied = workload is not None and workload.applied == target.stamp
    settled = applied and workload is not None and workload.settled and workload.replicas == target.replicas
    others = [pod for pod in ready if pod not in pods]
    if settled and not others and len([pod for pod in pods if pod.ready]) >= target.replicas:
        done = Steps(steps.environment_at, steps.scheduled_at, steps.starting_at, steps.ready_at or now, now)
        return Progress("serving" if target.replicas else "idle", done, len(ready), complete=True)
    reason = explain(observed, now, rooms) if applied else None
    late = (target.deadline_at is not None and now > target.deadline_at) or (
        applied and workload is not None and workload.deadline_exceeded and bool(pods)
    )
    if late and reason is None and workload is not None:
        reason = deadline(workload)
    failed = reason is not None and (reason.hopeless or late)
    return Progress(_phase(bool(ready), steps, reason, failed), steps, len(ready), reason, failed=failed)


def standing(replicas: int, observed: Observed, now: Time, rooms: tuple[Room, ...] = ()) -> Progress:
    """Judge a version that is not rolling out: serving, idle, starting from idle, or in trouble."""
    ready = [pod for pod in observed.pods if pod.ready and not pod.deleting]
    workload = observed.workload
    if replicas == 0:
        return Progress("serving" if ready else "idle", Steps(), len(ready))
    pods = [pod for pod in observed.pods if not pod.deleting]
    steps = _steps(pods, now)
    if workload is not None and workload.settled and len(ready) >= replicas:
        return Progress("serving", steps, len(ready))
    reason = explain(observed, now, rooms)
    return Progress(_phase(bool(ready), steps, reason, failed=False), steps, len(ready), reason)


def _phase(serving: bool, steps: Steps, reason: Reason | None, failed: bool) -> str:
    if serving:
        return "degraded" if reason is not None else "serving"
    if failed or (reason is not None and reason.hopeless):
        return "failed"
    return "scheduling" if steps.scheduled_at is None else "starting"


def _steps(pods: list[Pod], now: Time) -> Steps:
    def first(times: list[Time]) -> Time | None:
        return min(times) if times else None

    scheduled = [pod.scheduled_at or now for pod in pods if pod.node]
    started = []
    for pod in pods:
        serving = pod.serving
        if serving is None:
            continue
        if serving.running_since is not None:
            started.append(serving.running_since)
        elif serving.ended is not None or serving.last is not None:
            started.append(now)
    return Steps(
        environment_at=pods[0].created if pods else None,
        scheduled_at=first(scheduled),
        starting_at=first(started),
        ready_at=first([pod.ready_at or now for pod in pods if pod.ready]),
    )


def _late(sentence: str) -> Reason:
    return Reason("deadline_passed", sentence, "Look at the build's log and try again.", hopeless=True)
