"""Reads, writes and watches of any Kubernetes API server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    LIMITRANGES,
    NAMESPACES,
    PDBS,
    PODS,
    RESOURCEQUOTAS,
    SECRETS,
    SERVICES,
)
from localcluster.watcher import Watcher
from tests.contract.conftest import Cluster
from tests.contract.pods import SLEEP, pod
from tests.contract.waiting import is_ready, pod_until

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": data or {}}


async def take(events: Any, count: int, seconds: float = 20) -> list[tuple[str, str]]:
    """(type, name) of the next events, bookmarks left out."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(seconds):
        async for event in events:
            if event.type == "BOOKMARK":
                continue
            found.append((event.type, event.object["metadata"]["name"]))
            if len(found) == count:
                return found
    return found


async def test_a_write_needs_the_version_that_was_read(client: Client, namespace: str) -> None:
    made = await client.create(CONFIGMAPS, config_map("c", {"a": "1"}), namespace)
    changed = await client.replace(CONFIGMAPS, {**made, "data": {"a": "2"}})
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    with pytest.raises(ApiError) as stale:
        await client.replace(CONFIGMAPS, {**made, "data": {"a": "3"}})
    assert stale.value.is_conflict
    same = await client.replace(CONFIGMAPS, changed)
    assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_only_one_of_many_writers_wins(client: Client, namespace: str) -> None:
    made = await client.create(CONFIGMAPS, config_map("c"), namespace)
    writes = [client.replace(CONFIGMAPS, {**made, "data": {"n": str(i)}}) for i in range(10)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    lost = [one for one in outcomes if isinstance(one, ApiError)]
    assert len(lost) == 9
    assert all(one.is_conflict for one in lost)


async def test_a_dry_run_leaves_nothing(client: Client, namespace: str) -> None:
    shown = await client.create(
        SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}, namespace, dry_run=True
    )
    assert shown["spec"]["type"] == "ClusterIP"
    assert await client.get_or_none(SERVICES, "s", namespace) is None


async def test_pages_of_a_list_stay_at_one_revision(client: Client, namespace: str) -> None:
    for name in "abcde":
        await client.create(SECRETS, {"metadata": {"name": name}}, namespace)
    path = SECRETS.path(namespace)
    first = await client.request("GET", path, params={"limit": "2"})
    assert first["metadata"]["remainingItemCount"] == 3
    await client.delete(SECRETS, "d", namespace)
    await client.create(SECRETS, {"metadata": {"name": "z"}}, namespace)
    rest = await client.request("GET", path, params={"limit": "9", "continue": first["metadata"]["continue"]})
    names = [one["metadata"]["name"] for one in first["items"] + rest["items"]]
    assert names == list("abcde")
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_a_watch_goes_on_where_a_list_ended(client: Client, namespace: str) -> None:
    await client.create(SECRETS, {"metadata": {"name": "before"}}, namespace)
    page = await client.list(SECRETS, namespace)
    await client.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "v"}}, namespace)
    await client.patch(SECRETS, "s", namespace, {"metadata": {"labels": {"x": "1"}}})
    await client.delete(SECRETS, "s", namespace)
    events = client.watch(SECRETS, namespace, resource_version=page.resource_version)
    assert await take(events, 3) == [("ADDED", "s"), ("MODIFIED", "s"), ("DELETED", "s")]


async def test_an_object_that_leaves_the_selector_is_deleted_for_its_watchers(client: Client, namespace: str) -> None:
    page = await client.list(SECRETS, namespace)
    await client.create(SECRETS, {"metadata": {"name": "s", "labels": {"x": "1"}}}, namespace)
    await client.patch(SECRETS, "s", namespace, {"metadata": {"labels": {"x": "2"}}})
    await client.patch(SECRETS, "s", namespace, {"metadata": {"labels": {"x": "1"}}})
    events = client.watch(SECRETS, namespace, resource_version=page.resource_version, label_selector="x=1")
    assert await take(events, 3) == [("ADDED", "s"), ("DELETED", "s"), ("ADDED", "s")]


async def test_a_watch_can_start_with_what_is_there(client: Client, namespace: str) -> None:
    await client.create(SECRETS, {"metadata": {"name": "s"}}, namespace)
    query = {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with client.session.get(client.connection.server + SECRETS.path(namespace), params=query) as answer:
        added = json.loads(await answer.content.readline())
        end = json.loads(await answer.content.readline())
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "s")
    assert end["type"] == "BOOKMARK"
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_compacted_version_is_expired(client: Client, namespace: str) -> None:
    with pytest.raises(ApiError) as expired:
        await take(client.watch(SECRETS, namespace, resource_version="1"), 1, seconds=10)
    assert expired.value.is_expired


async def test_the_cache_follows(client: Client, namespace: str) -> None:
    await client.create(SECRETS, {"metadata": {"name": "a"}}, namespace)
    changes: list[tuple[str, str]] = []
    seen = asyncio.Event()

    def note(change: str, obj: dict[str, Any], _: Any) -> None:
        changes.append((change, obj["metadata"]["name"]))
        if change == "DELETED":
            seen.set()

    watcher = Watcher(client, SECRETS, namespace, handler=note)
    task = asyncio.create_task(watcher.run())
    try:
        await asyncio.wait_for(watcher.synced(), 20)
        assert watcher.get(namespace, "a") is not None
        await client.create(SECRETS, {"metadata": {"name": "b"}}, namespace)
        await client.delete(SECRETS, "a", namespace)
        await asyncio.wait_for(seen.wait(), 20)
        assert changes == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
        assert list(watcher.objects) == [(namespace, "b")]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_finalizer_holds_an_object(client: Client, namespace: str) -> None:
    await client.create(CONFIGMAPS, config_map("c", finalizers=["example.com/hold"]), namespace)
    held = await client.delete(CONFIGMAPS, "c", namespace)
    assert held["metadata"]["deletionTimestamp"]
    with pytest.raises(ApiError) as refused:
        await client.patch(CONFIGMAPS, "c", namespace, {"metadata": {"finalizers": ["example.com/hold", "x.y/z"]}})
    assert refused.value.code == 422
    await client.patch(CONFIGMAPS, "c", namespace, {"metadata": {"finalizers": None}})
    assert await client.get_or_none(CONFIGMAPS, "c", namespace) is None


async def test_server_side_apply_shares_an_object(client: Client, namespace: str) -> None:
    def applied(data: dict[str, str]) -> dict[str, Any]:
        return {"metadata": {"name": "c", "namespace": namespace}, "data": data}

    await client.apply(CONFIGMAPS, applied({"a": "1"}), field_manager="one")
    await client.apply(CONFIGMAPS, applied({"b": "1"}), field_manager="two")
    with pytest.raises(ApiError) as conflict:
        await client.apply(CONFIGMAPS, applied({"a": "2"}), field_manager="two")
    assert conflict.value.details["causes"][0]["field"] == ".data.a"
    await client.apply(CONFIGMAPS, applied({"a": "2"}), field_manager="two", force=True)
    after = await client.apply(CONFIGMAPS, applied({}), field_manager="one")
    assert after["data"] == {"a": "2"}


@pytest.mark.parametrize("way", ["create", "apply"])
async def test_quantities_come_back_in_one_form(client: Client, namespace: str, cluster: Cluster, way: str) -> None:
    template = pod("q", cluster.image, SLEEP)
    template["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "0.5", "memory": "10240Mi"}}
    template["metadata"]["labels"] = {"app": "q"}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "q"}}, "template": template}
    wanted = {"metadata": {"name": "q", "namespace": namespace}, "spec": spec}
    if way == "apply":
        made = await client.apply(DEPLOYMENTS, wanted, field_manager="one")
    else:
        made = await client.create(DEPLOYMENTS, wanted, namespace)
    limits = made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "500m", "memory": "10Gi"}


async def test_a_table_has_a_row_for_each_object(client: Client, namespace: str) -> None:
    await client.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "1", "b": "2"}}, namespace)
    table = await client.request("GET", SECRETS.path(namespace), headers={"Accept": TABLE})
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Type", "Data", "Age"]
    assert ["s", "Opaque", 2] in [row["cells"][:3] for row in table["rows"]]
    metadata = await client.request("GET", SECRETS.path(namespace), headers={"Accept": METADATA})
    assert metadata["kind"] == "PartialObjectMetadataList"
    assert set(metadata["items"][0]) == {"kind", "apiVersion", "metadata"}


async def test_a_pod_is_bound_once(client: Client, namespace: str, cluster: Cluster) -> None:
    wanted = pod("p", cluster.image, SLEEP, schedulerName="nobody", nodeSelector={"no": "where"})
    await client.create(PODS, wanted, namespace)
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "no-such-node"}}
    await client.create_subresource(PODS, "p", namespace, "binding", binding)
    bound = await client.get(PODS, "p", namespace)
    assert bound["spec"]["nodeName"] == "no-such-node"
    assert any(one["type"] == "PodScheduled" and one["status"] == "True" for one in bound["status"]["conditions"])
    with pytest.raises(ApiError) as again:
        await client.create_subresource(PODS, "p", namespace, "binding", binding)
    assert again.value.code == 409
    await client.delete(PODS, "p", namespace, grace_seconds=0)


async def test_a_budget_guards_no_pod_that_does_not_run(client: Client, namespace: str, cluster: Cluster) -> None:
    wanted = pod("p", cluster.image, SLEEP, schedulerName="nobody")
    wanted["metadata"]["labels"] = {"app": "x"}
    await client.create(PODS, wanted, namespace)
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}}
    await client.create(PDBS, budget, namespace)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    await client.create_subresource(PODS, "p", namespace, "eviction", eviction)
    assert await client.get_or_none(PODS, "p", namespace) is None


async def test_scale_changes_replicas_only(client: Client, namespace: str, cluster: Cluster) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", cluster.image, SLEEP)["spec"]}
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, namespace)
    await client.patch(DEPLOYMENTS, "d", namespace, {"spec": {"paused": True}})
    scale = await client.get(DEPLOYMENTS, "d", namespace, "scale")
    assert scale["status"]["selector"] == "a=b"
    scale["spec"] = {"replicas": 2}
    del scale["metadata"]["resourceVersion"]  # controllers may write in between
    assert (await client.replace(DEPLOYMENTS, scale, subresource="scale"))["spec"]["replicas"] == 2
    assert (await client.get(DEPLOYMENTS, "d", namespace))["spec"]["replicas"] == 2


async def test_a_missing_namespace_takes_nothing_in(client: Client) -> None:
    with pytest.raises(ApiError) as missing:
        await client.create(CONFIGMAPS, config_map("c"), "no-such-namespace")
    assert missing.value.details["kind"] == "namespaces"
    assert (await client.list(CONFIGMAPS, "no-such-namespace")).items == []
    with pytest.raises(ApiError) as kept:
        await client.request("DELETE", NAMESPACES.path(None, "kube-system"), params={"dryRun": "All"})
    assert kept.value.code == 403


REFUSED = {
    "finalizer without a domain": (
        CONFIGMAPS,
        {"metadata": {"name": "x", "finalizers": ["mine"]}},
        ["metadata.finalizers[0]"],
    ),
    "negative quota": (RESOURCEQUOTAS, {"spec": {"hard": {"pods": "-1"}}}, ["spec.hard[pods]"]),
    "quota of nothing": (RESOURCEQUOTAS, {"spec": {"hard": {"foo": "1"}}}, ["spec.hard[foo]"] * 2),
    "least above most": (
        LIMITRANGES,
        {"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}},
        ["spec.limits[0].min[cpu]"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_invalid_is_refused(client: Client, namespace: str, what: str) -> None:
    resource, body, fields = REFUSED[what]
    with pytest.raises(ApiError) as refused:
        await client.create(resource, {"metadata": {"name": "x"}, **body}, namespace)
    assert refused.value.code == 422
    assert [cause["field"] for cause in refused.value.details["causes"]] == fields


async def test_metadata_of_a_list_has_a_name_of_its_own(client: Client, namespace: str) -> None:
    accept = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
    with pytest.raises(ApiError, match=r"the requested object is a list \(\*core.ConfigMapList\)") as refused:
        await client.request("GET", CONFIGMAPS.path(namespace), headers=accept)
    assert refused.value.code == 406


async def test_an_eviction_waits_for_a_new_budget(client: Client, cluster: Cluster, namespace: str) -> None:
    """Whatever comes first, the eviction or the controller's word, the budget holds."""
    wanted = pod("p", cluster.image, SLEEP)
    wanted["metadata"]["labels"] = {"app": "x"}
    await client.create(PODS, wanted, namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    await client.create(PDBS, {"metadata": {"name": "b"}, "spec": spec}, namespace)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    for _ in range(3):
        with pytest.raises(ApiError) as refused:
            await client.create_subresource(PODS, "p", namespace, "eviction", eviction)
        assert refused.value.code == 429
        assert refused.value.details["causes"][0]["reason"] == "DisruptionBudget"
