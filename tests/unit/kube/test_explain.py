"""Every reason from the objects that mean it. Texts of the cluster are those of a recorded Kubernetes 1.36."""

import datetime as dt
from dataclasses import replace

import pytest

from kube.explain import Reason, explain, explain_pod, last_line
from kube.state import Container, Ended, Event, Holder, Observed, Pod, Room, Workload

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
POD = Pod(uid="u", name="d-churn-1", created=NOW, node="node-1", revision_id="r")
GIB = 2.0**30

TRACEBACK = """Traceback (most recent call last):
  File "/var/run/pilothouse/package/deployment.py", line 1, in <module>
    import pandas
ModuleNotFoundError: No module named 'pandas'
"""


def pod(**changes: object) -> Pod:
    return replace(POD, **changes)  # type: ignore[arg-type]


def died(message: str = "", *, code: int = 1, reason: str = "Error", restarts: int = 1, init: bool = False) -> Pod:
    end = Ended(exit_code=code, reason=reason, message=message)
    name = "package" if init else "serving"
    container = Container(
        name, init=init, restarts=restarts, waiting="CrashLoopBackOff", last=end, memory_limit=512 * 2.0**20
    )
    return pod(containers=(container,), phase="Pending" if init else "Running")


def waiting(reason: str, message: str, *events: Event) -> Pod:
    return pod(containers=(Container("serving", waiting=reason, waiting_message=message),), events=events)


def unscheduled(message: str, **requests: float) -> Pod:
    return pod(node="", unschedulable=message, requests=tuple(requests.items()))


def reason_of(value: Pod, rooms: tuple[Room, ...] = ()) -> Reason:
    reason = explain_pod(value, NOW, rooms)
    assert reason is not None
    return reason


def test_a_ready_pod_needs_no_explanation() -> None:
    assert explain_pod(pod(ready=True), NOW) is None


def test_a_pod_on_its_way_needs_none_either() -> None:
    assert explain_pod(pod(containers=(Container("serving", waiting="ContainerCreating"),)), NOW) is None
    running = Container("serving", running_since=NOW, started=False)
    unhealthy = Event("Warning", "Unhealthy", "Startup probe failed: connection refused")
    assert explain_pod(pod(containers=(running,), events=(unhealthy,)), NOW) is None


def test_does_not_fit_says_which_resource_and_the_largest_free_slice() -> None:
    message = (
        "0/3 nodes are available: 3 Insufficient memory. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
    )
    rooms = (
        Room("node-1", {"memory": 1 * GIB}, {"memory": 16 * GIB}),
        Room("node-2", {"memory": 2 * GIB}, {"memory": 16 * GIB}),
    )
    reason = reason_of(unscheduled(message, memory=4 * GIB), rooms)
    assert reason.code == "does_not_fit"
    assert "0/3 nodes" in reason.message
    assert "asks for 4 GiB, the largest free slice is 2 GiB on node-2" in reason.message
    assert reason.next
    assert not reason.hopeless


def test_does_not_fit_says_who_holds_the_rest_without_telling_strangers_names() -> None:
    def holds(namespace: str, name: str, gpus: float) -> Holder:
        return Holder(namespace, name, {"nvidia.com/gpu": gpus})

    holders = (
        holds("ph-shop", "churn/v1", 2), holds("ph-shop", "fraud/v2", 4), holds("ph-secret", "merger/v1", 1),
        holds("", "", 0), holds("ph-shop", "idle/v1", 0),
    )  # fmt: skip
    room = Room("node-1", {"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 8}, holders=holders)
    stuck = replace(unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), namespace="ph-shop")
    stuck = replace(stuck, requests=(("nvidia.com/gpu", 2),))
    message = reason_of(stuck, (room,)).message
    assert (
        "largest free slice is 1 nvidia.com/gpu on node-1, where fraud/v2 holds 4 nvidia.com/gpu, churn/v1" in message
    )
    assert message.endswith("churn/v1 holds 2 nvidia.com/gpu and others hold 1 nvidia.com/gpu.")
    assert "merger" not in message
    many = tuple(holds("ph-shop", f"d{number}/v1", number) for number in range(1, 7))
    message = reason_of(stuck, (replace(room, holders=many),)).message
    assert "d6/v1 holds 6" in message
    assert "others hold 6 nvidia.com/gpu" in message
    assert "d3/v1" not in message


def test_does_not_fit_tells_when_no_node_is_large_enough() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu."
    reason = reason_of(unscheduled(message, cpu=64), (Room("node-1", {"cpu": 2}, {"cpu": 2}),))
    assert "asks for 64 CPU cores, the largest node has 2 CPU cores in all" in reason.message


def test_does_not_fit_names_the_device() -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    assert "nvidia.com/gpu" in reason_of(unscheduled(message, **{"nvidia.com/gpu": 2})).message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims", "taint_mismatch"),
        (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims",
            "selector_mismatch",
        ),
        ("0/1 nodes are available: 1 node(s) were unschedulable. no new claims", "unschedulable"),
    ],
)
def test_placement(message: str, code: str) -> None:
    assert reason_of(unscheduled(message)).code == code


@pytest.mark.parametrize(
    ("value", "code", "hopeless"),
    [
        (waiting("ErrImagePull", 'failed to pull image "nope:1": not found'), "image_unknown", False),
        (waiting("ImagePullBackOff", 'Back-off pulling image "nope:1"'), "image_unknown", True),
        (waiting("InvalidImageName", 'Failed to apply default image tag "X Y"'), "image_unknown", True),
        (waiting("ErrImagePull", 'failed to pull image "p:1": 401 Unauthorized'), "image_refused", True),
        (waiting("CreateContainerConfigError", 'secret "gone" not found'), "config_missing", True),
        (waiting("RunContainerError", "exec: no such file or directory"), "start_failed", False),
    ],
)
def test_containers_that_cannot_start(value: Pod, code: str, hopeless: bool) -> None:
    reason = reason_of(value)
    assert (reason.code, reason.hopeless) == (code, hopeless)
    assert reason.next


def test_an_unknown_image_is_named_with_what_the_registry_said() -> None:
    failed = Event("Warning", "Failed", 'Failed to pull image "nope:1": manifest unknown')
    reason = reason_of(waiting("ImagePullBackOff", 'Back-off pulling image "nope:1"', failed))
    assert "'nope:1'" in reason.message
    assert "manifest unknown" in reason.message


def test_import_error_gives_the_last_line_of_the_traceback_and_what_to_add() -> None:
    reason = reason_of(died(TRACEBACK))
    assert reason.code == "import_error"
    assert "ModuleNotFoundError: No module named 'pandas'" in reason.message
    assert "'pandas'" in reason.next
    assert "requirements.txt" in reason.next
    assert reason.evidence == TRACEBACK


def test_the_first_failure_may_pass_but_the_second_will_not() -> None:
    assert not reason_of(died(TRACEBACK, restarts=0)).hopeless
    assert reason_of(died(TRACEBACK, restarts=1)).hopeless


def test_an_exception_at_start() -> None:
    reason = reason_of(died("Traceback...\n  File x\nKeyError: 'MODEL'\nServer exits.\n"))
    assert reason.code == "start_failed"
    assert "KeyError: 'MODEL'" in reason.message


def test_a_crash_without_an_exception_gives_exit_code_and_last_words() -> None:
    reason = reason_of(died("cannot open model\n", code=3, restarts=4))
    assert reason.code == "crash_loop"
    assert "exit code 3" in reason.message
    assert "4 times" in reason.message
    assert "cannot open model" in reason.message


READY = '{"time": "2026-01-01T00:00:00.000Z", "level": "info", "event": "ready", "init_seconds": 0.1, "process": 0}\n'
REQUEST = (
    '{"time": "2026-01-01T00:00:01.000Z", "level": "info", "event": "request", "path": "/request", "status": 200}\n'
)


@pytest.mark.parametrize("log", [READY, REQUEST, "hello\n" + REQUEST + "KeyError: 'x'\n", READY + "abc\n" + REQUEST])
def test_a_crash_over_a_request_may_pass_however_often_it_comes(log: str) -> None:
    reason = reason_of(died(log, code=3, restarts=4))
    assert (reason.code, reason.hopeless) == ("crash_loop", False)
    assert "exit code 3 while it was serving and was restarted 4 times." in reason.message
    assert "event" not in reason.message
    assert "request" in reason.next


def test_the_servers_own_lines_are_no_last_words() -> None:
    assert "Its last words: abc" in reason_of(died("abc\n" + REQUEST, code=3)).message
    assert "last words" not in reason_of(died(REQUEST, code=3)).message
    mine = '{"event": "request", "of": "mine"}'
    assert mine in reason_of(died(mine + "\n", code=3)).message


def test_out_of_memory_over_a_request_may_pass() -> None:
    loading = reason_of(died("", code=137, reason="OOMKilled", restarts=1))
    serving = reason_of(died(REQUEST, code=137, reason="OOMKilled", restarts=1))
    assert (loading.code, loading.hopeless) == ("out_of_memory", True)
    assert (serving.code, serving.hopeless) == ("out_of_memory", False)
    assert "the request that needed so much" in serving.next


def test_a_signal_is_named() -> None:
    assert "SIGSEGV" in reason_of(died("", code=139)).message


def test_out_of_memory_gives_the_limit() -> None:
    reason = reason_of(died("", code=137, reason="OOMKilled"))
    assert reason.code == "out_of_memory"
    assert "512 MiB" in reason.message


def test_out_of_memory_gives_what_was_in_use() -> None:
    reason = reason_of(replace(died("", code=137, reason="OOMKilled"), memory_peak=498 * 2.0**20))
    assert "its limit of 512 MiB (498 MiB were in use when last measured) and was killed" in reason.message


def test_out_of_memory_counts_even_with_exit_code_zero() -> None:
    assert reason_of(died("", code=0, reason="OOMKilled")).code == "out_of_memory"


def test_a_package_that_cannot_be_fetched() -> None:
    assert reason_of(died("HTTP 503 from the platform\n", init=True)).code == "package_failed"


def test_probe_failing_gives_its_answer() -> None:
    running = Container("serving", running_since=NOW, started=True)
    unhealthy = Event("Warning", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500")
    reason = reason_of(pod(containers=(running,), events=(unhealthy,)))
    assert reason.code == "probe_failing"
    assert "statuscode: 500" in reason.message


def test_killed_by_its_liveness_probe_is_not_a_crash() -> None:
    unhealthy = Event("Warning", "Unhealthy", "Liveness probe failed: context deadline exceeded")
    value = replace(died("", code=137), events=(unhealthy,))
    assert reason_of(value).code == "probe_failing"


def test_a_restarted_container_that_runs_is_not_in_trouble() -> None:
    container = Container("serving", running_since=NOW, started=True, restarts=1, last=Ended(1, "Error", TRACEBACK))
    assert explain_pod(pod(containers=(container,)), NOW) is None


def test_evicted_and_lost_nodes() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    assert reason_of(evicted).code == "evicted"
    assert "low on resource: memory" in reason_of(evicted).message
    assert reason_of(pod(reason="NodeLost")).code == "node_lost"
    # Before the pod is taken away, its node's silence is an event about it, and its container still seems to run.
    running = Container("serving", running_since=NOW, started=True, ready=True)
    silent = Event("Warning", "NodeNotReady", "Node is not ready")
    assert "node-1" in reason_of(pod(containers=(running,), events=(silent,))).message
    assert explain_pod(pod(containers=(running,), events=(silent,), ready=True), NOW) is None


def test_volume_and_slow_pull() -> None:
    creating = (Container("serving", waiting="ContainerCreating"),)
    mount = Event("Warning", "FailedMount", 'MountVolume.SetUp failed for volume "x": configmap "gone" not found')
    assert reason_of(pod(containers=creating, events=(mount,))).code == "volume_failed"
    old = NOW - dt.timedelta(seconds=90)
    pulling = Event("Normal", "Pulling", 'Pulling image "big:1"', first=old, last=old)
    slow = reason_of(pod(containers=creating, events=(pulling,)))
    assert slow.code == "image_pull_slow"
    assert "90 seconds" in slow.message


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (
            'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2',
            "quota_exceeded",
            "asks for pods=1, pods=2 of pods=2 are used",
        ),
        ('admission webhook "policy" denied the request: no', "admission_refused", "denied the request"),
    ],
)
def test_pods_that_may_not_be_created(message: str, code: str, words: str) -> None:
    reason = explain(Observed(namespace="Active", workload=Workload(replicas=1, refused=message)), NOW)
    assert reason is not None
    assert reason.code == code
    assert words in reason.message


def test_deadline_passed() -> None:
    workload = Workload(replicas=2, updated=1, deadline_exceeded=True)
    reason = explain(Observed(namespace="Active", workload=workload), NOW)
    assert reason is not None
    assert reason.code == "deadline_passed"
    assert reason.hopeless


def test_only_pods_of_the_newest_template_are_judged() -> None:
    old = replace(died(TRACEBACK), template="old")
    new = pod(template="new", ready=True)
    seen = Observed(namespace="Active", workload=Workload(replicas=1, template="new"), pods=(old, new))
    assert explain(seen, NOW) is None


def test_a_hopeless_pod_says_more_than_a_waiting_one() -> None:
    stuck = unscheduled("0/1 nodes are available: 1 Insufficient cpu.", cpu=1)
    seen = Observed(namespace="Active", workload=Workload(replicas=2), pods=(stuck, died(TRACEBACK)))
    reason = explain(seen, NOW)
    assert reason is not None
    assert reason.code == "import_error"


def test_last_line() -> None:
    assert last_line("a\nValueError: x\nbye\n\n") == "ValueError: x"
    assert last_line("my.module.CustomError: y\n") == "my.module.CustomError: y"
    assert last_line("just\nwords\n") == "words"
    assert last_line("") == ""
