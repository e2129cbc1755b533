"""Where pods go and why they wait: on any cluster, but for what would change its nodes or priority classes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from localcluster.client import Client
from localcluster.resources import NODES, PODS, PRIORITYCLASSES
from tests.contract.conftest import Cluster, new_namespace
from tests.contract.pods import SLEEP, run
from tests.contract.waiting import condition, event_until, events, gone, is_ready, pod_until, recorded, until

Object = dict[str, Any]


def sleeper(name: str, image: str, *, resources: Object | None = None, **spec: Any) -> Object:
    container: Object = {"name": "c", "image": image, "command": run(SLEEP)}
    if resources:
        container["resources"] = resources
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}}


def is_unschedulable(pod: Object) -> bool:
    return condition(pod, "PodScheduled").get("reason") == "Unschedulable"


async def refusal(client: Client, namespace: str, name: str) -> str:
    """Why a pod waits, as its condition says; the event says the same."""
    pod = await pod_until(client, namespace, name, is_unschedulable, "found unschedulable")
    message = condition(pod, "PodScheduled")["message"]
    event = await event_until(client, namespace, name, "FailedScheduling", message)
    assert event["type"] == "Warning"
    assert event["action"] == "Scheduling"
    assert event["firstTimestamp"] is None
    assert event["source"] == {}
    assert event["reportingComponent"] == "default-scheduler"
    return message


@asynccontextmanager
async def extended_resource(client: Client, count: int) -> AsyncIterator[tuple[str, str]]:
    """(resource, node): a resource of which one node has `count` pieces."""
    name = f"example.com/{uuid.uuid4().hex[:8]}"
    node = (await client.list(NODES)).items[0]["metadata"]["name"]
    path = "/status/capacity/" + name.replace("/", "~1")
    patch = [{"op": "add", "path": path, "value": str(count)}]
    await client.patch(NODES, node, None, patch, kind="json", subresource="status")

    async def offered() -> bool:
        found = await client.get(NODES, node)
        return found["status"]["allocatable"].get(name) == str(count)

    await until(offered, f"{name} allocatable")
    try:
        yield name, node
    finally:
        for kind in ("capacity", "allocatable"):
            patch = [{"op": "remove", "path": f"/status/{kind}/" + name.replace("/", "~1")}]
            await client.patch(NODES, node, None, patch, kind="json", subresource="status")


async def test_reasons_of_waiting(client: Client, cluster: Cluster, namespace: str) -> None:
    """Whatever taints nodes bear: they are tolerated, as they would hide other reasons."""
    nodes = len((await client.list(NODES)).items)
    helpless = f"no new claims to deallocate, preemption: 0/{nodes} nodes are available: "
    helpless += f"{nodes} Preemption is not helpful for scheduling."
    both = {"requests": {"cpu": "1000"}, "limits": {"example.com/none": 1}}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}]
            }
        }
    }
    friend = {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "none"}}}
            ]
        }
    }
    cases = {
        "cpu": (sleeper("cpu", cluster.image, resources={"requests": {"cpu": "1000"}}), "Insufficient cpu"),
        "mem": (sleeper("mem", cluster.image, resources={"requests": {"memory": "9000Gi"}}), "Insufficient memory"),
        "both": (
            sleeper("both", cluster.image, resources=both),
            f"Insufficient cpu, {nodes} Insufficient example.com/none",
        ),
        "sel": (
            sleeper("sel", cluster.image, nodeSelector={"disk": "none"}),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        "aff": (
            sleeper("aff", cluster.image, affinity=affinity),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        "friend": (sleeper("friend", cluster.image, affinity=friend), "node(s) didn't match pod affinity rules"),
    }
    for body, _ in cases.values():
        body["spec"]["tolerations"] = [{"operator": "Exists"}]
        await client.create(PODS, body, namespace)
    for name, (_, reason) in cases.items():
        message = await refusal(client, namespace, name)
        assert message == f"0/{nodes} nodes are available: {nodes} {reason}. {helpless}", name
    waiting = await client.get(PODS, "cpu", namespace)
    assert waiting["status"]["phase"] == "Pending"
    assert condition(waiting, "PodScheduled")["observedGeneration"] == 1


@pytest.fixture
async def own(embedded_client: Client) -> AsyncIterator[str]:
    """A namespace of the embedded cluster, whatever cluster the other tests run against."""
    async with new_namespace(embedded_client) as name:
        yield name


async def test_an_extended_resource_is_counted_and_passed_on(
    embedded_client: Client, embedded: Cluster, own: str
) -> None:
    client, cluster, namespace = embedded_client, embedded, own
    async with extended_resource(client, 1) as (resource, node):
        one = {"limits": {resource: 1}}
        await client.create(PODS, sleeper("first", cluster.image, resources=one), namespace)
        placed = await pod_until(client, namespace, "first", is_ready, "running")
        assert placed["spec"]["nodeName"] == node
        event = await event_until(client, namespace, "first", "Scheduled")
        assert event["message"] == f"Successfully assigned {namespace}/first to {node}"
        assert event["action"] == "Binding"
        await client.create(PODS, sleeper("second", cluster.image, resources=one), namespace)
        assert f"1 Insufficient {resource}" in await refusal(client, namespace, "second")
        assert "1 No preemption victims found for incoming pod" in await refusal(client, namespace, "second")
        await client.delete(PODS, "first", namespace, grace_seconds=1)
        await pod_until(client, namespace, "second", is_ready, "running in the place of the first")
        await client.delete(PODS, "second", namespace, grace_seconds=1)
        await gone(client, PODS, namespace, "second")


async def test_preemption(embedded_client: Client, embedded: Cluster, own: str) -> None:
    client, cluster, namespace = embedded_client, embedded, own
    name = f"contract-{uuid.uuid4().hex[:8]}"
    await client.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": 1000})
    try:
        async with extended_resource(client, 1) as (resource, node), recorded(client, PODS, namespace) as seen:
            one = {"limits": {resource: 1}}
            await client.create(PODS, sleeper("low", cluster.image, resources=one), namespace)
            await pod_until(client, namespace, "low", is_ready, "running")
            body = sleeper("high", cluster.image, resources=one, priorityClassName=name)
            high = await client.create(PODS, body, namespace)
            await pod_until(client, namespace, "high", is_ready, "running")
            uid = high["metadata"]["uid"]
            event = await event_until(client, namespace, "low", "Preempted")
            assert event["message"] == f"Preempted by pod {uid} on node {node}"
            await gone(client, PODS, namespace, "low")
            await client.delete(PODS, "high", namespace, grace_seconds=1)
            await gone(client, PODS, namespace, "high")
        low = [obj for _, obj in seen if obj["metadata"]["name"] == "low"]
        told = [condition(obj, "DisruptionTarget").get("reason") for obj in low]
        first = told.index("PreemptionByScheduler")
        assert "deletionTimestamp" not in low[first]["metadata"]
        nominated = [obj["status"].get("nominatedNodeName") for _, obj in seen if obj["metadata"]["name"] == "high"]
        assert node in nominated
        assert nominated[-1] is None
    finally:
        await client.delete(PRIORITYCLASSES, name)


async def test_scheduling_gates(client: Client, cluster: Cluster, namespace: str) -> None:
    body = sleeper("gated", cluster.image, schedulingGates=[{"name": "example.com/a"}])
    made = await client.create(PODS, body, namespace)
    assert condition(made, "PodScheduled")["reason"] == "SchedulingGated"
    await client.create(PODS, sleeper("free", cluster.image), namespace)
    await pod_until(client, namespace, "free", is_ready, "running")
    assert not (await client.get(PODS, "gated", namespace))["spec"].get("nodeName")
    await client.patch(PODS, "gated", namespace, {"spec": {"schedulingGates": None}})
    await pod_until(client, namespace, "gated", is_ready, "running once the gate is open")


async def test_another_scheduler_is_left_alone(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, sleeper("other", cluster.image, schedulerName="other"), namespace)
    await client.create(PODS, sleeper("own", cluster.image), namespace)
    await pod_until(client, namespace, "own", is_ready, "running")
    other = await client.get(PODS, "other", namespace)
    assert other["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert await events(client, namespace, "other") == []
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "other"},
        "target": {"kind": "Node", "name": (await client.get(PODS, "own", namespace))["spec"]["nodeName"]},
    }
    await client.create_subresource(PODS, "other", namespace, "binding", binding)
    await pod_until(client, namespace, "other", is_ready, "running after a Binding")
