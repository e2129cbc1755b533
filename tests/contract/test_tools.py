"""The official Python client, and services reached through the API server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from localcluster.client import Client
from tests.contract.conftest import Cluster, Kubectl
from tests.contract.test_kubectl import manifest


async def test_the_service_proxy_reaches_a_pod(
    client: Client, kubectl: Kubectl, cluster: Cluster, namespace: str
) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(cluster))
    await asyncio.to_thread(kubectl, "rollout", "status", "deployment/web", "--timeout=60s", timeout=70)
    path = f"/api/v1/namespaces/{namespace}/services/web:80/proxy"
    url = client.connection.server + path
    for _ in range(100):
        async with client.session.get(url + "/") as answer:
            if answer.status == 200:
                assert "Directory listing" in await answer.text()
                break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the service has no endpoint although its pod is ready")
    async with client.session.get(url + "/no-such-file") as missing:
        assert missing.status == 404
    async with client.session.get(url, allow_redirects=False) as moved:
        assert moved.status == 301
        assert moved.headers["Location"] == path + "/"
    async with client.session.get(url.replace("web:80", "web:none") + "/") as unknown:
        assert unknown.status == 503


def test_the_official_client_lists_watches_and_applies(cluster: Cluster, namespace: str) -> None:
    from kubernetes import client as official
    from kubernetes import config, dynamic, watch

    api_client = config.new_client_from_config(str(cluster.kubeconfig))
    try:
        core = official.CoreV1Api(api_client)
        body: Any = {"metadata": {"name": "c"}, "data": {"a": "1"}}
        made = core.create_namespaced_config_map(namespace, body)
        core.patch_namespaced_config_map("c", namespace, {"data": {"a": "2"}})
        seen = []
        stream = watch.Watch().stream(
            core.list_namespaced_config_map,
            namespace,
            resource_version=made.metadata.resource_version,
            timeout_seconds=20,
        )
        for event in stream:
            seen.append((event["type"], event["object"].data["a"]))
            break
        assert seen == [("MODIFIED", "2")]
        deployments = dynamic.DynamicClient(api_client).resources.get(api_version="apps/v1", kind="Deployment")
        assert deployments.get(namespace=namespace).items == []
        names = [one.metadata.name for one in core.list_namespaced_config_map(namespace).items]
        assert "c" in names
    finally:
        api_client.close()


async def test_the_official_asynchronous_client_works(cluster: Cluster, namespace: str) -> None:
    from kubernetes import aio
    from kubernetes.aio import client as official
    from kubernetes.aio import config

    configuration = official.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with official.ApiClient(configuration) as api_client:
        core = official.CoreV1Api(api_client)
        made = await core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "1"}})
        await core.patch_namespaced_config_map("c", namespace, {"data": {"a": "2"}})
        seen = []
        async with aio.watch.Watch() as watch:
            stream = watch.stream(
                core.list_namespaced_config_map, namespace, resource_version=made.metadata.resource_version
            )
            async for event in stream:
                seen.append((event["type"], event["object"].data["a"]))
                break
        assert seen == [("MODIFIED", "2")]


def test_the_official_informer_follows(cluster: Cluster, namespace: str) -> None:
    from kubernetes import client as official
    from kubernetes import config
    from kubernetes.informer import ADDED, SharedInformer

    api_client = config.new_client_from_config(str(cluster.kubeconfig))
    core = official.CoreV1Api(api_client)
    informer = SharedInformer(core.list_namespaced_secret, namespace=namespace)
    added = threading.Event()
    informer.add_event_handler(ADDED, lambda obj: added.set() if obj.metadata.name == "late" else None)
    informer.start()
    try:
        core.create_namespaced_secret(namespace, {"metadata": {"name": "late"}})
        assert added.wait(30)
    finally:
        core.create_namespaced_secret(namespace, {"metadata": {"name": "wakes-the-watch-to-its-end"}})
        informer.stop()
        api_client.close()
