"""Pods as controllers see them: selection, availability, and who goes first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from localcluster.controllers.endpoints import endpoint_groups, subsets
from localcluster.pods import deletion_order, matches, seconds_to_available

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def pod(name: str, *, ready: bool = True, node: str = "n", phase: str = "Running", **more: Any) -> Object:
    since = more.pop("since", "2026-01-01T00:00:00Z")
    return {
        "metadata": {
            "name": name,
            "namespace": "x",
            "uid": name,
            "labels": {"app": "web"},
            "creationTimestamp": more.pop("created", "2026-01-01T00:00:00Z"),
            "annotations": more.pop("annotations", {}),
            **({"deletionTimestamp": "2026-01-01T00:30:00Z"} if more.pop("deleting", False) else {}),
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "ports": more.pop("ports", [])}],
            **more.pop("spec", {}),
        },
        "status": {
            "phase": phase,
            "podIP": more.pop("address", "127.1.0.1"),
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": since}],
            "containerStatuses": [{"restartCount": more.pop("restarts", 0)}],
        },
    }


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "z", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "z", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "z", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["4"]}]}, True),
        ({"matchExpressions": [{"key": "n", "operator": "Lt", "values": ["5"]}]}, False),
    ],
)
def test_selectors(selector: Object | None, expected: bool) -> None:
    assert matches(selector, {"a": "1", "n": "5"}) is expected


def test_availability_waits_for_min_ready_seconds() -> None:
    assert seconds_to_available(pod("p", ready=False), 0, NOW) is None
    assert seconds_to_available(pod("p"), 0, NOW) == 0
    young = pod("p", since="2026-01-01T00:59:50Z")
    assert seconds_to_available(young, 30, NOW) == 20
    assert seconds_to_available(young, 10, NOW) == 0


def test_least_useful_pods_go_first() -> None:
    pods = [
        pod("old"),
        pod("young", created="2026-01-01T00:59:00Z"),
        pod("restarted", restarts=3),
        pod("fresh", since="2026-01-01T00:59:58Z"),
        pod("cheap", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}),
        pod("unready", ready=False),
        pod("pending", phase="Pending", ready=False),
        pod("unassigned", node="", phase="Pending", ready=False),
    ]
    order = [entry["metadata"]["name"] for entry in deletion_order(pods, [], NOW)]
    assert order == ["unassigned", "pending", "unready", "cheap", "fresh", "restarted", "young", "old"]


def test_crowded_nodes_are_relieved_first() -> None:
    alone, first, second = pod("alone", node="a"), pod("b1", node="b"), pod("b2", node="b")
    assert deletion_order([alone, first], [alone, first, second], NOW)[0] is first


def service(**spec: Any) -> Object:
    ports = spec.pop("ports", [{"port": 80, "targetPort": 8080}])
    return {"metadata": {"name": "web", "namespace": "x"}, "spec": {"selector": {"app": "web"}, "ports": ports, **spec}}


def test_endpoints_tell_ready_serving_and_terminating() -> None:
    pods = [
        pod("a"),
        pod("b", ready=False),
        pod("c", deleting=True),
        pod("d", phase="Succeeded"),
        pod("e", address=""),
    ]
    ((ports, entries),) = endpoint_groups(service(), pods).items()
    assert ports == (("", "TCP", 8080),)
    told = {entry["targetRef"]["name"]: entry["conditions"] for entry in entries}
    assert told == {
        "a": {"ready": True, "serving": True, "terminating": False},
        "b": {"ready": False, "serving": False, "terminating": False},
        "c": {"ready": False, "serving": True, "terminating": True},
    }
    (subset,) = subsets(service(), pods)
    assert [a["targetRef"]["name"] for a in subset["addresses"]] == ["a"]
    assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["b"]
    published = endpoint_groups(service(publishNotReadyAddresses=True), pods)
    assert all(entry["conditions"]["ready"] for entries in published.values() for entry in entries)


def test_named_ports_split_slices() -> None:
    named = [{"name": "http", "port": 80, "targetPort": "web"}]
    pods = [
        pod("a", ports=[{"name": "web", "containerPort": 1000}]),
        pod("b", ports=[{"name": "web", "containerPort": 2000}]),
    ]
    groups = endpoint_groups(service(ports=named), pods)
    assert sorted(groups) == [(("http", "TCP", 1000),), (("http", "TCP", 2000),)]
