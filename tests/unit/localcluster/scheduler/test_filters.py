"""Filters, their words, and choosing victims."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster.scheduler.filters import Refusal, check, failure_message, missing_claim, preemption_message
from localcluster.scheduler.placement import best, plan_preemption
from localcluster.scheduler.resources import pod_requests
from localcluster.scheduler.world import NodeInfo, PodInfo, World

Object = dict[str, Any]


def node(name: str = "n", cpu: str = "2", memory: str = "4Gi", taints: Any = None, **more: Any) -> NodeInfo:
    labels = {"kubernetes.io/hostname": name, **more.pop("labels", {})}
    allocatable = {"cpu": cpu, "memory": memory, "pods": "10", **more.pop("extra", {})}
    return NodeInfo(
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints, **more},
            "status": {"allocatable": allocatable},
        }
    )


def pod(
    name: str = "p", requests: Object | None = None, labels: Object | None = None, owner: str = "", **spec: Any
) -> PodInfo:
    owners = [{"uid": owner, "kind": "ReplicaSet", "name": owner, "controller": True}] if owner else []
    return PodInfo(
        {
            "metadata": {
                "name": name,
                "namespace": "x",
                "uid": name,
                "labels": labels or {},
                "ownerReferences": owners,
            },
            "spec": {"containers": [{"name": "c", "resources": {"requests": requests or {}}}], **spec},
        }
    )


def verdict(wanted: PodInfo, *nodes: NodeInfo) -> Refusal | None:
    """Of the first of these nodes."""
    return check(World(wanted, nodes), nodes[0])


def affinity(operator: str, *values: str) -> Object:
    terms = [{"matchExpressions": [{"key": "disk", "operator": operator, "values": list(values)}]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def pod_rule(kind: str, **labels: str) -> Object:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


TAINT = [{"key": "dedicated", "value": "x", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("wanted", "host", "reason"),
    [
        (pod(requests={"cpu": "1"}), node(), None),
        (pod(), node(unschedulable=True), "node(s) were unschedulable"),
        (pod(nodeSelector={"disk": "ssd"}), node(taints=TAINT), "node(s) had untolerated taint(s)"),
        (pod(tolerations=[{"key": "dedicated", "operator": "Exists"}]), node(taints=TAINT), None),
        (pod(tolerations=[{"operator": "Exists"}]), node(taints=TAINT), None),
        (
            pod(tolerations=[{"key": "dedicated", "value": "y", "effect": "NoSchedule"}]),
            node(taints=TAINT),
            "node(s) had untolerated taint(s)",
        ),
        (
            pod(nodeSelector={"disk": "ssd"}, requests={"cpu": "1000"}),
            node(),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (pod(affinity=affinity("In", "ssd")), node(labels={"disk": "ssd"}), None),
        (pod(affinity=affinity("NotIn", "ssd")), node(), None),
        (
            pod(affinity=affinity("In", "ssd")),
            node(labels={"disk": "hdd"}),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (pod(requests={"memory": "5Gi"}), node(), "Insufficient memory"),
        (pod(requests={"nvidia.com/gpu": "1"}), node(), "Insufficient nvidia.com/gpu"),
    ],
)
def test_reasons(wanted: PodInfo, host: NodeInfo, reason: str | None) -> None:
    refusal = verdict(wanted, host)
    if reason is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.reasons == (reason,)
        assert refusal.final


def test_what_others_use_counts_and_could_be_preempted() -> None:
    host = node(cpu="2")
    host.add(pod("a", {"cpu": "1500m"}))
    refusal = verdict(pod(requests={"cpu": "1"}), host)
    assert refusal == Refusal(("Insufficient cpu",), False)
    host.remove("a")
    assert verdict(pod(requests={"cpu": "1"}), host) is None
    assert host.requested["cpu"] == 0


def test_several_resources_are_all_named_and_sorted() -> None:
    refusal = verdict(pod(requests={"cpu": "1000", "nvidia.com/gpu": "1"}), node())
    assert refusal is not None
    text = failure_message({"n": refusal}, preemption_message({"n": refusal}))
    assert text == (
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient nvidia.com/gpu. no new claims to deallocate, "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


def test_messages_over_several_nodes() -> None:
    refusals = {
        "a": Refusal(("Insufficient cpu",), False),
        "b": Refusal(("Insufficient cpu",), True),
        "c": Refusal(("node(s) had untolerated taint(s)",), True),
    }
    assert failure_message(refusals, preemption_message(refusals)) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )
    assert failure_message(refusals, None).endswith("2 Insufficient cpu.")
    assert failure_message({}, None) == "no nodes available to schedule pods"


def test_pod_affinity() -> None:
    a, b = node("a"), node("b")
    a.add(pod("web", labels={"app": "web"}))
    near = pod(affinity=pod_rule("podAffinity", app="web"))
    assert verdict(near, a, b) is None
    refusal = verdict(near, b, a)
    assert refusal == Refusal(("node(s) didn't match pod affinity rules",), True)
    unlabelled = node("u")
    unlabelled.labels = {}
    unlabelled.add(pod("other", labels={"app": "db"}))
    beside = verdict(pod(affinity=pod_rule("podAffinity", app="db")), unlabelled, a)
    assert beside == Refusal(("node(s) didn't match pod affinity rules",), True)
    first = pod(labels={"app": "own"}, affinity=pod_rule("podAffinity", app="own"))
    assert verdict(first, a, b) is None


def test_pod_anti_affinity_works_both_ways() -> None:
    a = node("a")
    a.add(pod("web", labels={"app": "web"}))
    apart = pod(affinity=pod_rule("podAntiAffinity", app="web"))
    assert verdict(apart, a) == Refusal(("node(s) didn't match pod anti-affinity rules",), False)
    guard = node("g")
    guard.add(pod("shy", affinity=pod_rule("podAntiAffinity", app="web")))
    refusal = verdict(pod(labels={"app": "web"}), guard)
    assert refusal == Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",), False)


def test_topology_spread() -> None:
    rule = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    a, b = node("a"), node("b")
    a.add(pod("one", labels={"app": "web"}))
    wanted = pod(labels={"app": "web"}, topologySpreadConstraints=[rule])
    assert verdict(wanted, b, a) is None
    refusal = verdict(wanted, a, b)
    assert refusal == Refusal(("node(s) didn't match pod topology spread constraints",), False)


def test_requests_of_init_containers_and_sidecars() -> None:
    body = pod(requests={"cpu": "100m"}).object
    body["spec"]["initContainers"] = [
        {"resources": {"requests": {"cpu": "50m"}}, "restartPolicy": "Always"},
        {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
    ]
    assert pod_requests(body) == {"cpu": 550, "memory": 1024**3}


def test_least_loaded_node_wins_and_siblings_spread() -> None:
    a, b = node("a", cpu="4"), node("b", cpu="4")
    a.add(pod("x", {"cpu": "3"}))
    assert best(pod(requests={"cpu": "1"}), [a, b]) is b
    c, d = node("c"), node("d")
    d.add(pod("s", owner="rs"))
    assert best(pod(owner="rs"), [c, d]) is c
    assert best(pod(owner="other"), [c, d]) is d


def test_preemption_takes_as_few_and_as_unimportant_as_possible() -> None:
    a, b = node("a", cpu="2"), node("b", cpu="2")
    a.add(pod("a1", {"cpu": "1"}, priority=5))
    a.add(pod("a2", {"cpu": "1"}, priority=1))
    b.add(pod("b1", {"cpu": "2"}, priority=3))
    high = pod("high", {"cpu": "1"}, priority=10)
    refusals = {info.name: refusal for info in (a, b) if (refusal := check(World(high, [a, b]), info))}
    plan = plan_preemption(high, [a, b], refusals)
    assert plan is not None
    assert plan.node == "a"
    assert [victim.uid for victim in plan.victims] == ["a2"]
    # A budget that would break makes the other node the better one.
    plan = plan_preemption(high, [a, b], refusals, frozenset({"a2"}))
    assert plan is not None
    assert plan.victims[0].uid in ("a1", "b1")
    assert plan_preemption(pod("low", {"cpu": "1"}, priority=1), [a, b], refusals) is None


def test_missing_claim() -> None:
    assert missing_claim(pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]).object) == "none"
    assert missing_claim(pod(volumes=[{"name": "v", "emptyDir": {}}]).object) is None


def test_host_ports_are_taken_by_whoever_is_there() -> None:
    host = node()
    port = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    host.add(pod("first", containers=port))
    host.add(pod("first", containers=port))  # the same pod, changed
    refusal = verdict(pod("second", containers=port), host)
    assert refusal == Refusal(("node(s) didn't have free ports for the requested pod ports",), False)
    host.remove("first")
    assert verdict(pod("second", containers=port), host) is None
