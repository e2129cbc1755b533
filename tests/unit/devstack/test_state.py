"""The state folder, ports, and the making of the virtual environment."""

import json
import socket
import stat
from pathlib import Path

import pytest

from devstack import bootstrap
from devstack.ports import PortBusyError, free_port, is_free, keep_or_choose
from devstack.stack import Options, Stack
from devstack.statefolder import AlreadyRunningError, StateFolder


def values(**changes: object) -> dict[str, object]:
    return {"url": "u", "admin": {}, "api_token": "t", "metrics_token": "m", "kubeconfig": "k", "pids": {}} | changes


def test_dev_json_is_private_and_has_exactly_its_keys(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.write_dev_json(**values(pids={"web": 1}))
    assert json.loads(state.dev_json.read_text()) == values(pids={"web": 1})
    assert stat.S_IMODE(state.dev_json.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="has the keys"):
        state.write_dev_json(**values(), more="x")


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    first = StateFolder(tmp_path).secret("key")
    assert StateFolder(tmp_path).secret("key") == first
    assert StateFolder(tmp_path).secret("other") != first
    assert len(first) >= 40
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_folder_has_one_supervisor(tmp_path: Path) -> None:
    first, second = StateFolder(tmp_path), StateFolder(tmp_path)
    first.acquire()
    first.write_dev_json(**values(url="http://127.0.0.1:1234"))
    with pytest.raises(AlreadyRunningError, match=r"http://127\.0\.0\.1:1234 .*kill \d+"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_ports_are_kept_while_free() -> None:
    port = free_port()
    assert keep_or_choose(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert keep_or_choose(port) != port


def test_a_busy_port_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortBusyError, match=rf"Port {port} is taken.*PORT={port + 1} make run"):
            Stack(Options(StateFolder(tmp_path), port, {}))


def test_each_embedded_part_gives_way_to_the_users_own(tmp_path: Path) -> None:
    own = {"DATABASE_URL": "postgresql://db", "REDIS_URL": "redis://cache", "KUBECONFIG": str(tmp_path / "kc")}
    whole = Stack(Options(StateFolder(tmp_path / "a"), 0, {}))
    assert [spec.name for spec in whole.servers()] == ["postgresql", "valkey", "cluster"]
    for variable, part in zip(own, ("postgresql", "valkey", "cluster"), strict=True):
        stack = Stack(Options(StateFolder(tmp_path / "b"), 0, {variable: own[variable]}))
        assert part not in [spec.name for spec in stack.servers()]
        assert stack.environment[variable] == own[variable]
        assert [variable in sentence for sentence in stack.external_parts()] == [True]


def test_the_cluster_gets_none_of_the_platforms_secrets(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    stack = Stack(Options(state, 0, {"PATH": "/bin", "PILOTHOUSE_S3_SECRET_KEY": "s3"}))
    cluster = next(spec for spec in stack.servers() if spec.name == "cluster")
    secrets = set(json.loads((tmp_path / "secrets.json").read_text()).values()) | {"s3"}
    text = json.dumps(dict(cluster.environment)) + " ".join(cluster.command)
    assert not [secret for secret in secrets if secret in text]
    assert cluster.environment["PATH"] == "/bin"


def test_the_metrics_ask_for_a_token_since_instances_call_from_the_loopback_too(tmp_path: Path) -> None:
    own = Stack(Options(StateFolder(tmp_path / "a"), 0, {}))
    assert len(own.environment["PILOTHOUSE_METRICS_TOKEN"]) > 20
    given = Stack(Options(StateFolder(tmp_path / "b"), 0, {"PILOTHOUSE_METRICS_TOKEN": "mine"}))
    assert (given.metrics_token, given.environment["PILOTHOUSE_METRICS_TOKEN"]) == ("mine", "mine")


def test_pods_get_another_port_when_a_wildcard_listener_is_in_their_way(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    with socket.create_server(("0.0.0.0", 0)) as server:
        taken = server.getsockname()[1]
        state.remember_port("serving", taken)
        port = int(Stack(Options(state, 0, {})).environment["PILOTHOUSE_SERVING_PORT"])
        assert port != taken
    assert int(Stack(Options(state, 0, {})).environment["PILOTHOUSE_SERVING_PORT"]) == port


LOCK = """\
urllib3==2.0 \\
    --hash=sha256:aa
uv==1.2 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via -r requirements.in
uvicorn==3 \\
    --hash=sha256:dd
"""


def test_the_installer_is_itself_pinned_by_hash() -> None:
    assert bootstrap.locked_block(LOCK, "uv").split() == [
        "uv==1.2", "\\", "--hash=sha256:bb", "\\", "--hash=sha256:cc",
    ]  # fmt: skip
    with pytest.raises(bootstrap.SetupError, match="make lock"):
        bootstrap.locked_block(LOCK, "absent")


def test_pips_settings_lead_uv_to_the_same_packages() -> None:
    listing = "global.index-url='https://mirror/simple'\n:env:.cert='/ca.pem'\nglobal.cert='/other.pem'\n"
    assert bootstrap.pip_settings(listing) == {
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "SSL_CERT_FILE": "/ca.pem",
    }
