"""Probes, environment, volumes, images, addresses and nodes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from localcluster.kubelet.attempts import PodRecord, terminated
from localcluster.kubelet.environment import ConfigError, command_line, declared, expand, service_links
from localcluster.kubelet.launch import _without_mounts
from localcluster.kubelet.network import Addresses
from localcluster.kubelet.nodes import NodeSpec, node_labels, node_status, parse_simulated
from localcluster.kubelet.probes import Prober, Target, Verdict
from localcluster.kubelet.volumes import File, write_files

Object = dict[str, Any]


# Probes


def test_verdict_needs_enough_results_in_a_row() -> None:
    verdict = Verdict(failure_threshold=3, success_threshold=2)
    results = [True, True, False, False, True, False, False, False, True, True]
    turned = [(place, verdict.state) for place, result in enumerate(results) if verdict.add(result)]
    assert turned == [(1, True), (7, False), (9, True)]


async def no_command(argv: list[str], timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109
    return None if argv == ["slow"] else int(argv[1]), "said"


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as found:
        yield found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_probe_texts(session: aiohttp.ClientSession) -> None:
    closed = free_port()

    async def outcome(**spec: Any) -> tuple[bool, str]:
        prober = Prober("Readiness", spec, Target({"ports": []}, "127.0.0.1", session, no_command))
        result = await prober.check()
        return result.success, result.text

    url = f"http://127.0.0.1:{closed}/x"
    refused = f"dial tcp 127.0.0.1:{closed}: connect: connection refused"
    assert await outcome(httpGet={"path": "/x", "port": closed}) == (False, f'Get "{url}": {refused}')
    assert await outcome(tcpSocket={"port": closed}) == (False, refused)
    assert await outcome(exec={"command": ["exit", "0"]}) == (True, "said")
    assert await outcome(exec={"command": ["exit", "1"]}) == (False, "said")
    assert (await outcome(exec={"command": ["slow"]}))[1] == 'command timed out: "slow" timed out after 1s'


async def test_http_probe_by_status(session: aiohttp.ClientSession) -> None:
    codes = {"/ok": 200, "/moved": 301, "/bad": 500}

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(5)
        return web.Response(status=codes[request.path], headers={"Location": "/ok"})

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    container = {"ports": [{"name": "http", "containerPort": port}]}
    found = {}
    for path in ("/ok", "/moved", "/bad"):
        spec = {"httpGet": {"path": path, "port": "http"}}
        target = Target(container, "127.0.0.1", session, no_command)
        result = await Prober("Liveness", spec, target).check()
        found[path] = (result.success, result.text)
    await runner.cleanup()
    assert found == {
        "/ok": (True, ""),
        "/moved": (True, ""),
        "/bad": (False, "HTTP probe failed with statuscode: 500"),
    }


# Environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(NOPE)-$$(A)", "x-$(NOPE)-$(A)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$$$(A)", "$x"),
        ("$(A)$(A)", "xx"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "x"}) == expected


POD: Object = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "l"}, "annotations": {"b": 'q"\n'}},
    "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"cpu": "250m"}}}]},
}


async def lookup(kind: str, name: str) -> Object | None:
    objects = {
        ("ConfigMap", "cm"): {"data": {"A": "1", "B": "2"}},
        ("Secret", "se"): {"data": {"P": "cGFzcw=="}},
    }
    return objects.get((kind, name))


async def variables(container: Object) -> dict[str, str]:
    addresses = {"podIP": "127.1.0.1", "hostIP": "127.0.0.1"}
    return await declared(
        POD,
        {"name": "c", **container},
        lookup,
        base={"PATH": "/bin"},
        addresses=addresses,
        allocatable={"memory": "1Gi"},
    )


async def test_sources_of_variables() -> None:
    env = [
        {"name": "B", "value": "own $(A)"},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "se", "key": "P"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "ANN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    found = await variables({"envFrom": [{"configMapRef": {"name": "cm"}}], "env": env})
    assert found == {
        "PATH": "/bin",
        "A": "1",
        "B": "own 1",
        "S": "pass",
        "IP": "127.1.0.1",
        "ANN": 'b="q\\"\\n"',
        "MEM": "1024",
    }


@pytest.mark.parametrize(
    ("container", "text"),
    [
        ({"envFrom": [{"secretRef": {"name": "none"}}]}, 'secret "none" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "se", "key": "zzz"}}}]},
            "couldn't find key zzz in Secret ns/se",
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a"}}}]},
            'configmap "none" not found',
        ),
    ],
)
async def test_missing_sources(container: Object, text: str) -> None:
    with pytest.raises(ConfigError) as failed:
        await variables(container)
    assert str(failed.value) == text


def test_command_line() -> None:
    assert command_line({"command": ["a"], "args": ["$(X)"]}, {"X": "1"}, ["d"]) == ["a", "1"]
    assert command_line({"args": ["b"]}, {}, ["d"]) == ["d", "b"]
    assert command_line({}, {}, ["d"]) == ["d"]


def test_service_links() -> None:
    service = {
        "metadata": {"name": "my-svc", "namespace": "ns"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}]},
    }
    links = service_links([service], "ns")
    assert links["MY_SVC_SERVICE_HOST"] == "10.0.0.1"
    assert links["MY_SVC_SERVICE_PORT_HTTP"] == links["MY_SVC_SERVICE_PORT"] == "80"
    assert links["MY_SVC_PORT_80_TCP"] == "tcp://10.0.0.1:80"
    assert service_links([service], "other") == {}


def test_paths_are_rewritten_where_nothing_can_be_mounted(tmp_path: Path) -> None:
    mounts = [{"source": "/data/a", "target": "/v"}, {"source": "/data/b", "target": "/v/deep"}]
    argv, env, cwd = _without_mounts(
        ["cat", "/v/x", "/v/deep/y", "/var", "--in=/v", "/vv"], {"P": "/v:/usr/v"}, "/", mounts, tmp_path, {}
    )
    assert argv == ["cat", "/data/a/x", "/data/b/y", "/var", "--in=/data/a", "/vv"]
    assert env["P"] == "/data/a:/usr/v"
    assert cwd == str(tmp_path)


# Volumes


def test_files_are_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "v"
    assert write_files(target, {"a": File(b"1"), "d/e": File(b"2", 0o600)}, -1, -1)
    assert (target / "a").read_bytes() == b"1"
    assert (target / "d" / "e").read_bytes() == b"2"
    assert (target / "d" / "e").stat().st_mode & 0o777 == 0o600
    assert (target / "a").readlink() == Path("..data/a")
    first = (target / "..data").readlink()
    assert not write_files(target, {"a": File(b"1"), "d/e": File(b"2", 0o600)}, -1, -1)
    assert (target / "..data").readlink() == first
    assert write_files(target, {"a": File(b"3")}, -1, -1)
    assert (target / "a").read_bytes() == b"3"
    assert sorted(path.name for path in target.iterdir() if not path.name.startswith("..")) == ["a"]
    assert not (target / first).exists()


# Addresses


def test_blocks_are_kept_apart_and_addresses_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Addresses(tmp_path / "a"), Addresses(tmp_path / "b")
    assert one.block != two.block
    first = one.allocate()
    assert first.startswith("127.")
    second = one.allocate()
    assert second != first
    one.release(first)
    one.close()
    again = Addresses(tmp_path / "a")
    assert again.block == one.block
    assert again.allocate(second) == second
    assert again.allocate() not in (second,)
    again.close()
    two.close()


def test_addresses_run_out(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path)
    given = {addresses.allocate() for _ in range(4094)}
    assert len(given) == 4094
    with pytest.raises(RuntimeError, match="delete some pods"):
        addresses.allocate()
    addresses.release(next(iter(given)))
    assert addresses.allocate() in given
    addresses.close()


# Nodes


def test_simulated_nodes() -> None:
    nodes = parse_simulated("2:cpu=32,memory=128Gi,gpu=8,product=A100,label.zone=a;1:cpu=4,memory=8Gi,prefix=small")
    assert [node.name for node in nodes] == ["sim-gpu-0-0", "sim-gpu-0-1", "small-0"]
    assert nodes[0].gpus == 8
    labels = node_labels(nodes[0])
    assert labels["pilothouse.io/simulated"] == "true"
    assert labels["nvidia.com/gpu.product"] == "A100"
    assert labels["zone"] == "a"
    assert parse_simulated("") == []
    assert len(parse_simulated("500:cpu=8,memory=32Gi")) == 500


@pytest.mark.parametrize(
    "spec", ["x:cpu=1", "1:cpus=1", "1:cpu=lots", "1:cpu=1;1:cpu=1,prefix=sim-cpu-0", "1:prefix=Bad_Name", "1:gpu=x"]
)
def test_bad_simulated_nodes(spec: str) -> None:
    with pytest.raises(ValueError, match="simulated nodes"):
        parse_simulated(spec)


def test_node_status_makes_added_resources_allocatable() -> None:
    old = {"capacity": {"example.com/x": "1"}, "conditions": []}
    status = node_status(NodeSpec("n", "2", "8Gi"), old, "127.0.0.1", 1, "v1", [])
    assert status["allocatable"]["example.com/x"] == "1"
    assert status["capacity"]["memory"] == "8Gi"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }


# Records


def test_attempts_keep_two_logs(tmp_path: Path) -> None:
    record = PodRecord(tmp_path, "u")
    for number in range(4):
        directory = record.begin("c", number)
        (directory / "log").write_text(str(number))
        (directory / "root").mkdir()
    assert record.attempts("c") == [2, 3]
    assert not (record.attempt("c", 2) / "root").exists()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"exitCode": 0}, {"exitCode": 0, "reason": "Completed"}),
        ({"exitCode": 2}, {"exitCode": 2, "reason": "Error"}),
        ({"exitCode": 137, "oom": True}, {"exitCode": 137, "reason": "OOMKilled"}),
        ({"exitCode": 128, "startError": "no"}, {"exitCode": 128, "reason": "StartError", "message": "no"}),
    ],
)
def test_terminated(tmp_path: Path, outcome: Object, expected: Object) -> None:
    state = terminated(tmp_path, {"startedAt": 1, "finishedAt": 2, **outcome}, {})
    assert {key: state[key] for key in ("exitCode", "reason", "message") if key in state} == expected
    assert state["finishedAt"] == "1970-01-01T00:00:02Z"
