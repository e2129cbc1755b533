"""A cluster for the contract tests: the one that KUBECONFIG names, else an embedded one of their own.

On a cluster named by KUBECONFIG the tests make and remove only namespaces of their own. IMAGE names an image
that holds python3.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcluster.client import ApiError, Client
from localcluster.kubelet.isolation import probe
from localcluster.resources import CONFIGMAPS, NAMESPACES, NODE_METRICS, NODES, PODS, SERVICEACCOUNTS
from tests.contract.alone import ROOT, Server
from tests.contract.pods import pod
from tests.support.kubernetes_tools import kubectl as present_kubectl

START_SECONDS = 60
IMAGE_SECONDS = 600
EMBEDDED_IMAGE = "python:3.11-slim"
IMAGE = os.environ.get("IMAGE", EMBEDDED_IMAGE)


@dataclass(frozen=True)
class Cluster:
    """Where the cluster under test is."""

    kubeconfig: Path
    image: str
    embedded: bool
    process: subprocess.Popen[bytes] | None = None


def start_cluster(data: Path, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start an embedded cluster and wait until pods can run in it: its process and its kubeconfig."""
    kubeconfig = data / "kubeconfig"
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "platform"))
    log = (data / "log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "localcluster", "--data", str(data), "--kubeconfig", str(kubeconfig), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    log.close()
    guard = threading.Timer(START_SECONDS, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        guard.cancel()
    if not line.startswith(b"ready"):
        process.kill()
        process.wait()
        text = (data / "log").read_text()[-4000:]
        pytest.fail(f"the embedded cluster did not become ready within {START_SECONDS} s; its log ends:\n{text}")
    return process, kubeconfig


def stop_cluster(process: subprocess.Popen[bytes]) -> None:
    """End an embedded cluster and everything in it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="session")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    named = os.environ.get("CONTRACT_KUBECONFIG")  # what KUBECONFIG was when the tests were started
    if named:
        found = Cluster(Path(named), IMAGE, embedded=False)
        asyncio.run(bring_image(found))
        yield found
    else:
        yield from _embedded(tmp_path_factory)


@pytest.fixture(scope="session")
def cluster(tested: Cluster) -> Cluster:
    return tested


@pytest.fixture(scope="session")
def embedded(tested: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An embedded cluster, whatever cluster the other tests run against."""
    if tested.embedded:
        yield tested
    else:
        yield from _embedded(tmp_path_factory)


@pytest.fixture(scope="session")
def walled(tested: Cluster, tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether containers have a file system of their own; not every machine lets the embedded cluster give them one."""
    return not tested.embedded or probe(tmp_path_factory.mktemp("probe")) != "none"


@pytest.fixture(scope="session")
def measured(tested: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The cluster under test if it serves metrics, as not every one does, else an embedded one."""
    served = asyncio.run(_serves_metrics(tested))
    return tested if served else request.getfixturevalue("embedded")


async def _serves_metrics(cluster: Cluster) -> bool:
    async with Client.from_kubeconfig(cluster.kubeconfig) as client:
        try:
            await client.request("GET", NODE_METRICS.path())
        except ApiError:
            return False
        return True


async def bring_image(cluster: Cluster) -> None:
    """Have every node that takes pods fetch the image, so that no test waits for that."""
    async with Client.from_kubeconfig(cluster.kubeconfig) as client, new_namespace(client) as namespace:
        nodes = [node for node in await client.list(NODES) if takes_pods(node)]
        assert nodes, "no node of the cluster takes pods: remove a taint or add a node"
        for number, node in enumerate(nodes):
            body = pod(f"image-{number}", cluster.image, "pass", restartPolicy="Never")
            body["spec"]["nodeName"] = node["metadata"]["name"]
            await client.create(PODS, body, namespace)
        deadline = time.monotonic() + IMAGE_SECONDS
        while pods := [one for one in await client.list(PODS, namespace) if one["status"]["phase"] != "Succeeded"]:
            states = [(one["status"]["phase"], one["status"].get("containerStatuses")) for one in pods]
            assert time.monotonic() < deadline, f"the image {cluster.image!r} does not run on every node: {states}"
            await sleep(0.5)


def takes_pods(node: dict[str, Any]) -> bool:
    """Whether the scheduler gives a node pods that tolerate nothing."""
    taints = node["spec"].get("taints") or []
    ready = [one["status"] for one in node["status"].get("conditions") or () if one["type"] == "Ready"]
    free = all(taint["effect"] == "PreferNoSchedule" for taint in taints)
    return ready == ["True"] and free and not node["spec"].get("unschedulable")


def _embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("cluster")
    # Pods drop to another user, who must be able to reach their files.
    for folder in (data, data.parent, data.parent.parent):
        with contextlib.suppress(OSError):
            folder.chmod(0o755)
    process, kubeconfig = start_cluster(data, *(f"--{what}-period=2" for what in ("autoscaler", "metrics", "volumes")))
    try:
        yield Cluster(kubeconfig, EMBEDDED_IMAGE, embedded=True, process=process)
    finally:
        stop_cluster(process)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(cluster.kubeconfig, user_agent="contract-test") as found:
        yield found


@pytest.fixture
async def embedded_client(embedded: Cluster) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(embedded.kubeconfig, user_agent="contract-test") as found:
        yield found


@pytest.fixture
async def namespace(client: Client) -> AsyncIterator[str]:
    """A new namespace of the cluster under test."""
    async with new_namespace(client) as name:
        yield name


@contextlib.asynccontextmanager
async def new_namespace(client: Client) -> AsyncIterator[str]:
    """A new namespace with what controllers add to it; removed afterwards with all it holds."""
    name = f"contract-{uuid.uuid4().hex[:10]}"
    await make_namespace(client, name)
    try:
        yield name
    finally:
        with contextlib.suppress(ApiError):
            await client.delete(NAMESPACES, name)


async def make_namespace(client: Client, name: str) -> None:
    """Make a namespace of a fixed name, once one of an earlier test is gone, and wait for what controllers add."""
    deadline = time.monotonic() + 60
    while await client.get_or_none(NAMESPACES, name) is not None:
        assert time.monotonic() < deadline, f"namespace {name} of an earlier test does not go away"
        await sleep(0.05)
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    for resource, wanted in ((SERVICEACCOUNTS, "default"), (CONFIGMAPS, "kube-root-ca.crt")):
        while await client.get_or_none(resource, wanted, name) is None:
            assert time.monotonic() < deadline, f"namespace {name} got no {resource.kind} {wanted!r}"
            await sleep(0.02)


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An API server alone, over data of its own."""
    found = Server(tmp_path)
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


class Kubectl:
    """kubectl against the cluster under test."""

    def __init__(self, cluster: Cluster, namespace: str, program: Path | None = None) -> None:
        program = program or present_kubectl()
        self.command = [str(program), "--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one command; its outcome whatever it is."""
        return subprocess.run(
            [*self.command, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Run one command that must succeed; its output."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    return Kubectl(cluster, namespace)
