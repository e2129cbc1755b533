"""What only the embedded cluster promises: pods outlive a killed kubelet, none is doubled, none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from localcluster.client import Client
from localcluster.resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS
from tests.contract.conftest import Cluster as ClusterUnderTest
from tests.contract.conftest import Kubectl, start_cluster, stop_cluster
from tests.contract.waiting import container_status, gone, is_ready, pod_until, state, until

Object = dict[str, Any]
IMAGE = "python:3.11-slim"
PARTS = ("apiserver", "controllers", "scheduler", "kubelet")
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "6"))
SPEC = "2:cpu=4,memory=16Gi,gpu=4,product=NVIDIA-A100-SXM4-80GB,gpumemory=81920,prefix=gpu"


def processes_with(marker: str) -> list[psutil.Process]:
    """Container processes whose environment has the marker."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MARKER") == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def pod_name(process: psutil.Process) -> str:
    """The pod that a container's process belongs to; its own id when it has just ended."""
    with contextlib.suppress(psutil.Error):
        return process.environ()["HOSTNAME"]
    return f"ended {process.pid}"


def part_of(process: subprocess.Popen[bytes], name: str) -> psutil.Process:
    """The process of one part of the cluster: apiserver, controllers, scheduler or kubelet."""
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if f"localcluster.{name}" in child.cmdline():
                return child
    raise AssertionError(f"the cluster runs no {name}")


async def insist(request: Callable[[], Awaitable[Any]]) -> Any:
    """The answer to a request that is sent again as long as the API server is away."""
    for _ in range(300):
        with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
            return await request()
        await asyncio.sleep(0.1)
    return await request()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    data = tmp_path_factory.mktemp("embedded")
    process, kubeconfig = start_cluster(data, "--simulated-nodes", SPEC)
    try:
        yield process, kubeconfig
    finally:
        stop_cluster(process)


@pytest.fixture
async def api(running: tuple[subprocess.Popen[bytes], Path]) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(running[1]) as client:
        yield client


@pytest.fixture
async def place(api: Client) -> str:
    name = f"embedded-{uuid.uuid4().hex[:8]}"
    await api.create(NAMESPACES, {"metadata": {"name": name}})

    async def account() -> bool:
        return await api.get_or_none(SERVICEACCOUNTS, "default", name) is not None

    await until(account, "the default service account")
    return name


@pytest.fixture
def kubelet_kubectl(running: tuple[subprocess.Popen[bytes], Path], place: str) -> Kubectl:
    return Kubectl(ClusterUnderTest(running[1], IMAGE, embedded=True), place)


def pod(name: str, marker: str, script: str, **spec: Any) -> Object:
    env = [{"name": "MARKER", "value": marker}]
    container = {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "env": env}
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}}


async def part_back(running: subprocess.Popen[bytes], name: str, old: int) -> None:
    async def back() -> bool:
        with contextlib.suppress(AssertionError):
            return part_of(running, name).pid != old
        return False

    await until(back, f"{name} is started again")


async def test_pods_are_adopted_after_the_kubelet_was_killed(
    api: Client, place: str, running: tuple[subprocess.Popen[bytes], Path], kubelet_kubectl: Kubectl
) -> None:
    marker = uuid.uuid4().hex
    await api.create(PODS, pod("stays", marker, "echo before; exec sleep 100000"), place)
    await api.create(PODS, pod("ends", marker, "sleep 1; exit 5", restartPolicy="Never"), place)
    await pod_until(api, place, "stays", is_ready, "running")
    await pod_until(api, place, "ends", lambda p: state(p).get("running"), "running")
    before = await api.get(PODS, "stays", place)
    main = {process.pid for process in processes_with(marker) if pod_name(process) == "stays"}
    kubelet = part_of(running[0], "kubelet")
    kubelet.kill()
    await part_back(running[0], "kubelet", kubelet.pid)
    ended = await pod_until(api, place, "ends", lambda p: p["status"]["phase"] == "Failed", "its end was noticed")
    assert state(ended)["terminated"]["exitCode"] == 5
    after = await api.get(PODS, "stays", place)
    assert container_status(after)["restartCount"] == 0
    assert container_status(after)["containerID"] == container_status(before)["containerID"]
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert {process.pid for process in processes_with(marker)} == main
    assert len(main) == 1
    assert kubelet_kubectl("logs", "stays") == "before\n"
    assert kubelet_kubectl("exec", "stays", "--", "sh", "-c", "echo $MARKER") == f"{marker}\n"
    await api.delete(PODS, "stays", place)
    await gone(api, PODS, place, "stays")
    assert processes_with(marker) == []


async def test_a_pod_deleted_behind_the_kubelets_back_is_ended(
    api: Client, place: str, running: tuple[subprocess.Popen[bytes], Path]
) -> None:
    marker = uuid.uuid4().hex
    await api.create(PODS, pod("p", marker, "while :; do sleep 0.1; done"), place)
    await pod_until(api, place, "p", is_ready, "running")
    kubelet = part_of(running[0], "kubelet")
    kubelet.kill()
    await api.delete(PODS, "p", place, grace_seconds=0)
    await part_back(running[0], "kubelet", kubelet.pid)

    async def ended() -> bool:
        return not processes_with(marker)

    await until(ended, "its processes are gone")


async def test_kills_of_any_part_orphan_and_double_nothing(
    api: Client, place: str, running: tuple[subprocess.Popen[bytes], Path]
) -> None:
    """Any part is killed at any time while a deployment grows and shrinks; FAULT_ROUNDS says how often."""
    marker, chance = uuid.uuid4().hex, random.Random(ROUNDS)
    template = pod("unused", marker, "exec sleep 100000")["spec"]
    body = {
        "metadata": {"name": "many"},
        "spec": {
            "replicas": 6,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {"metadata": {"labels": {"app": "many"}}, "spec": template},
        },
    }
    await api.create(DEPLOYMENTS, body, place)
    for _ in range(ROUNDS):
        await asyncio.sleep(chance.uniform(0, 0.7))
        name = chance.choice(PARTS)
        part = part_of(running[0], name)
        part.kill()
        await part_back(running[0], name, part.pid)
        await insist(lambda: api.patch(DEPLOYMENTS, "many", place, {"spec": {"replicas": chance.randint(3, 9)}}))
        doubled = [name for name, count in Counter(map(pod_name, processes_with(marker))).items() if count > 1]
        assert not doubled, f"after {name}: two containers of the same pods {doubled}"
    await insist(lambda: api.patch(DEPLOYMENTS, "many", place, {"spec": {"replicas": 6}}))

    async def settled() -> bool:
        found = await insist(lambda: api.get(DEPLOYMENTS, "many", place))
        pods = (await insist(lambda: api.list(PODS, place))).items
        counts = [found["status"].get(name, 0) for name in ("replicas", "availableReplicas")]
        return counts == [6, 6] and len(pods) == 6 and len(processes_with(marker)) == 6

    await until(settled, "six pods, available, each with its process", 120)
    pods = (await api.list(PODS, place)).items
    assert len({one["status"]["podIP"] for one in pods}) == 6
    assert [container_status(one)["restartCount"] for one in pods] == [0] * 6
    assert {pod_name(process) for process in processes_with(marker)} == {one["metadata"]["name"] for one in pods}
    await api.delete(DEPLOYMENTS, "many", place, propagation="Background")

    async def none() -> bool:
        return not (await api.list(PODS, place)).items and not processes_with(marker)

    await until(none, "all pods and processes gone")


async def test_simulated_nodes_give_out_devices(api: Client, place: str) -> None:
    nodes = (await api.list(NODES, label_selector="pilothouse.io/simulated=true")).items
    assert sorted(node["metadata"]["name"] for node in nodes) == ["gpu-0", "gpu-1"]
    for node in nodes:
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"
        assert node["status"]["capacity"]["cpu"] == "4"
        labels = node["metadata"]["labels"]
        assert labels["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-80GB"
        assert labels["nvidia.com/gpu.memory"] == "81920"
    marker = uuid.uuid4().hex
    for name, count in (("a", 3), ("b", 1)):
        body = pod(name, marker, "echo $NVIDIA_VISIBLE_DEVICES; sleep 1000", nodeName="gpu-0")
        body["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": count}}
        await api.create(PODS, body, place)
        await pod_until(api, place, name, is_ready, "running")

    async def devices(name: str) -> set[str]:
        text = await api.request("GET", f"/api/v1/namespaces/{place}/pods/{name}/log")
        return set(text.strip().split(",")) - {""}

    async def both() -> bool:
        return len(await devices("a")) == 3 and len(await devices("b")) == 1

    await until(both, "each has its devices")
    assert not await devices("a") & await devices("b")
    late = pod("late", marker, "true", nodeName="gpu-0")
    late["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    await api.create(PODS, late, place)
    refused = await pod_until(api, place, "late", lambda p: p["status"]["phase"] == "Failed", "refused")
    assert refused["status"]["reason"] == "OutOfnvidia.com/gpu"


async def test_a_container_sees_nothing_of_the_kubelet(api: Client, place: str, kubelet_kubectl: Kubectl) -> None:
    await api.create(PODS, pod("p", uuid.uuid4().hex, "sleep 1000"), place)
    await pod_until(api, place, "p", is_ready, "running")
    environment = kubelet_kubectl("exec", "p", "--", "env")
    assert "LOCALCLUSTER_NODE_TOKEN" not in environment
    assert "KUBECONFIG" not in environment
    uid = kubelet_kubectl("exec", "p", "--", "id", "-u").strip()
    assert uid != "0"
    if os.geteuid() == 0:
        processes = kubelet_kubectl("exec", "p", "--", "sh", "-c", "ls -d /proc/[0-9]* | wc -l")
        assert int(processes) < 10
        assert kubelet_kubectl.run("exec", "p", "--", "touch", "/usr/x").returncode != 0


def test_nothing_is_left_when_the_cluster_ends(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("ending")
    marker = uuid.uuid4().hex
    process, kubeconfig = start_cluster(data)
    try:

        async def fill() -> None:
            async with Client.from_kubeconfig(kubeconfig) as client:

                async def account() -> bool:
                    return await client.get_or_none(SERVICEACCOUNTS, "default", "default") is not None

                await until(account, "the default service account")
                script = "(sleep 1000 &) ; trap '' TERM; while :; do sleep 0.1; done"
                await client.create(PODS, pod("p", marker, script), "default")
                await pod_until(client, "default", "p", is_ready, "running")

        asyncio.run(fill())
        assert processes_with(marker)
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        stop_cluster(process)
    assert processes_with(marker) == []
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert process.returncode in (0, -signal.SIGTERM)
