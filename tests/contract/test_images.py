"""Images at a registry: what the embedded node asks it, what it says of the answer, and that nobody waits in vain."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from localcluster.client import Client
from localcluster.resources import EVENTS, NAMESPACES, PODS, SECRETS, SERVICEACCOUNTS
from tests.contract.conftest import new_namespace, start_cluster, stop_cluster
from tests.contract.pods import pod
from tests.contract.waiting import event_until, gone, pod_until, state, until
from tests.support.registry import Registry, running

Object = dict[str, Any]
SYSTEM = "/usr/bin:/bin"
# A Python that the machine has not, so that uv has to fetch it.
MISSING = next(
    f"python:3.{minor}-slim"
    for minor in range(9, 15)
    if minor != sys.version_info[1] and shutil.which(f"python3.{minor}", path=SYSTEM) is None
)
PASSWORD = "known-to-the-registry-alone"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running(Registry(access="bearer", users={"puller": PASSWORD})) as found:
        yield found


@pytest.fixture
async def place(embedded_client: Client) -> Any:
    async with new_namespace(embedded_client) as name:
        yield name


async def failing(client: Client, namespace: str, name: str) -> str:
    """What the pod's container says once its pull has failed."""
    found = await pod_until(
        client,
        namespace,
        name,
        lambda p: state(p).get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff"),
        "its image is not to be had",
    )
    assert found["status"]["phase"] == "Pending"
    return state(found)["waiting"]["message"]


async def make_pull_secret(client: Client, namespace: str, name: str, registry: Registry, password: str) -> None:
    entry = {"auth": base64.b64encode(f"puller:{password}".encode()).decode()}
    content = json.dumps({"auths": {registry.address: entry}})
    body = {
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": content},
    }
    await client.create(SECRETS, body, namespace)


async def test_what_a_registry_says_is_told(embedded_client: Client, place: str, registry: Registry) -> None:
    image = registry.image()
    client = embedded_client
    await make_pull_secret(client, place, "right", registry, PASSWORD)
    await make_pull_secret(client, place, "wrong", registry, "guessed")
    for name, secrets in (("none", []), ("bad", ["wrong"]), ("good", ["right"]), ("lost", ["gone"])):
        chosen = [{"name": secret} for secret in secrets]
        await client.create(PODS, pod(name, image, "pass", imagePullSecrets=chosen), place)
    absent = pod("absent", registry.image("team/absent:1"), "pass", imagePullSecrets=[{"name": "right"}])
    await client.create(PODS, absent, place)
    denied = "pull access denied, repository does not exist or may require authorization"
    assert denied in await failing(client, place, "none")
    assert denied in await failing(client, place, "lost")
    assert "failed to fetch oauth token: unexpected status from GET" in await failing(client, place, "bad")
    assert "team/absent:1: not found" in await failing(client, place, "absent")
    assert "the registry has it, but this node runs no container images" in await failing(client, place, "good")
    lost = await event_until(client, place, "lost", "FailedToRetrieveImagePullSecret")
    assert lost["message"].startswith("Unable to retrieve some image pull secrets (gone); ")
    await event_until(client, place, "none", "Failed", f'Failed to pull image "{image}": ')
    told = json.dumps([*(await client.list(EVENTS, place)), *(await client.list(PODS, place))])
    for hidden in (PASSWORD, "guessed", base64.b64encode(f"puller:{PASSWORD}".encode()).decode()):
        assert hidden not in told


async def test_a_service_account_has_pull_secrets_for_its_pods(
    embedded_client: Client, place: str, registry: Registry
) -> None:
    client = embedded_client
    await make_pull_secret(client, place, "right", registry, PASSWORD)
    await client.patch(SERVICEACCOUNTS, "default", place, {"imagePullSecrets": [{"name": "right"}]})
    await client.create(PODS, pod("p", registry.image(), "pass"), place)
    assert "the registry has it" in await failing(client, place, "p")
    assert (await client.get(PODS, "p", place))["spec"]["imagePullSecrets"] == [{"name": "right"}]
    own = pod("own", registry.image(), "pass", imagePullSecrets=[{"name": "gone"}])
    await client.create(PODS, own, place)
    assert "pull access denied" in await failing(client, place, "own")


async def test_a_pod_that_waits_for_a_silent_registry_can_go(
    embedded_client: Client, place: str, registry: Registry
) -> None:
    registry.access = "silent"
    await embedded_client.create(PODS, pod("p", registry.image(), "pass"), place)

    async def asked() -> bool:
        return bool(registry.requests)

    await until(asked, "the registry is asked")
    await event_until(embedded_client, place, "p", "Pulling")
    assert state(await embedded_client.get(PODS, "p", place)) == {"waiting": {"reason": "ContainerCreating"}}
    await embedded_client.delete(PODS, "p", place)
    await gone(embedded_client, PODS, place, "p")


def uvs(cluster: psutil.Process) -> list[psutil.Process]:
    """The processes of a cluster that fetch a Python."""
    found = []
    for process in cluster.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "uv" and "install" in process.cmdline():
                found.append(process)
    return found


@pytest.fixture
def pulling_slowly(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A cluster that has to fetch a Python from where nobody answers: its process and its kubeconfig."""
    data = tmp_path_factory.mktemp("pulling")
    with socket.socket() as mirror:
        mirror.bind(("127.0.0.1", 0))
        mirror.listen(64)  # takes connections and never answers: whoever pulls from it waits
        for name in ("HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "UV_CACHE_DIR"):
            monkeypatch.setenv(name, str(data))
        monkeypatch.setenv("PATH", SYSTEM)
        monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", f"http://127.0.0.1:{mirror.getsockname()[1]}")
        monkeypatch.setenv("UV_HTTP_TIMEOUT", "600")
        process, kubeconfig = start_cluster(data)
        try:
            yield process, kubeconfig
        finally:
            stop_cluster(process)


async def test_a_pull_ends_with_its_pod_and_with_the_cluster(
    pulling_slowly: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, kubeconfig = pulling_slowly
    cluster = psutil.Process(process.pid)

    async def pulling() -> bool:
        return bool(uvs(cluster))

    async def quiet() -> bool:
        return not uvs(cluster)

    async with Client.from_kubeconfig(kubeconfig) as client:
        for name in ("goes", "stays"):
            await client.create(NAMESPACES, {"metadata": {"name": name}})
            await account_in(client, name)
        await client.create(PODS, pod("p", MISSING, "pass"), "goes")
        await until(pulling, "uv fetches the Python")
        await client.delete(PODS, "p", "goes")
        await gone(client, PODS, "goes", "p")
        await until(quiet, "uv has ended with the pod")
        await client.create(PODS, pod("p", MISSING, "pass"), "stays")
        await until(pulling, "uv fetches the Python again")
    children = cluster.children(recursive=True)
    process.terminate()
    await asyncio.to_thread(process.wait, 60)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


async def account_in(client: Client, namespace: str) -> None:
    async def account() -> bool:
        return await client.get_or_none(SERVICEACCOUNTS, "default", namespace) is not None

    await until(account, "the default service account")
