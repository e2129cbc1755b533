"""What an observation means for people."""

import datetime as dt
from dataclasses import replace

from deployments.planning.progress import Target, progress, standing
from kube.state import BuildPod, Container, Ended, Observed, Pod, Workload

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(minutes=20)
OLD = Pod(uid="o", name="old", created=NOW, node="n", template="old", ready=True)
NEW = Pod(uid="n", name="new", created=NOW, template="new")
TARGET = Target("r2", "stamp", 1, NOW, NOW + dt.timedelta(minutes=10))
ROLLING = Workload(
    replicas=1, observed_generation=1, applied="stamp", template="new", current=2, updated=1, ready=1, available=1
)
CRASHED = Container("serving", restarts=1, waiting="CrashLoopBackOff", last=Ended(1, "Error", "ValueError: no\n"))


def seen(*pods: Pod, workload: Workload | None = ROLLING, build: BuildPod | None = None) -> Observed:
    return Observed(namespace="Active", name="d", workload=workload, pods=pods, build=build)


def test_steps_are_those_of_the_new_pods_alone() -> None:
    before = progress(TARGET, seen(OLD, NEW), NOW)
    assert before.steps.scheduled_at is None
    assert before.phase == "serving"
    at = NOW + dt.timedelta(seconds=3)
    placed = replace(NEW, node="n", scheduled_at=at, containers=(Container("serving", running_since=at),))
    after = progress(TARGET, seen(OLD, placed), NOW)
    assert (after.steps.scheduled_at, after.steps.starting_at, after.steps.ready_at) == (at, at, None)


def test_a_hopeless_pod_fails_the_rollout_while_the_old_one_serves() -> None:
    result = progress(TARGET, seen(OLD, replace(NEW, node="n", containers=(CRASHED,))), NOW)
    assert result.failed
    assert result.ready == 1
    assert result.reason is not None
    assert result.reason.code == "start_failed"
    assert result.phase == "degraded"


def test_without_an_old_one_a_failed_rollout_is_a_failed_version() -> None:
    result = progress(TARGET, seen(replace(NEW, node="n", containers=(CRASHED,))), NOW)
    assert (result.failed, result.phase) == (True, "failed")


def test_waiting_for_room_fails_only_at_the_deadline_and_then_keeps_its_reason() -> None:
    stuck = replace(NEW, unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    early = progress(TARGET, seen(OLD, stuck), NOW)
    assert not early.failed
    assert early.reason is not None
    late = progress(TARGET, seen(OLD, stuck), LATER)
    assert late.failed
    assert late.reason is not None
    assert late.reason.code == "does_not_fit"


def test_a_silent_start_that_never_ends_fails_at_the_deadline_too() -> None:
    silent = replace(NEW, node="n", containers=(Container("serving", running_since=NOW),))
    result = progress(TARGET, seen(OLD, silent), LATER)
    assert result.failed
    assert result.reason is not None
    assert result.reason.code == "deadline_passed"


def test_a_stale_observation_completes_nothing() -> None:
    """The Deployment still shows the state of the template before."""
    stale = Workload(replicas=1, applied="stamp", template="old", generation=2, observed_generation=1, current=1,
                     updated=1, ready=1, available=1)  # fmt: skip
    assert not progress(TARGET, seen(OLD, workload=stale), NOW).complete
    other = replace(stale, applied="before", observed_generation=2)
    assert not progress(TARGET, seen(OLD, workload=other), NOW).complete


def test_building() -> None:
    target = replace(TARGET, building=True, stamp="", deadline_at=None)
    pod = Pod(uid="b", name="env", created=NOW)
    assert progress(target, seen(workload=None), NOW).phase == "queued"
    assert progress(target, seen(workload=None, build=BuildPod("b", "Running", 1, False, pod, NOW)), NOW).phase == (
        "environment"
    )
    assert progress(target, seen(OLD), NOW).phase == "serving"


def test_standing() -> None:
    settled = Workload(replicas=1, current=1, updated=1, ready=1, available=1, template="new")
    ready = replace(NEW, ready=True, node="n")
    assert standing(1, seen(ready, workload=settled), NOW).phase == "serving"
    assert standing(0, seen(workload=None), NOW).phase == "idle"
    assert standing(1, seen(workload=None), NOW).phase == "scheduling"
    assert standing(1, seen(replace(NEW, node="n", scheduled_at=NOW), workload=settled), NOW).phase == "starting"
    crashed = replace(NEW, node="n", scheduled_at=NOW, containers=(CRASHED,))
    worse = standing(1, seen(crashed, workload=settled), NOW)
    assert worse.phase == "failed"
    assert worse.reason is not None
