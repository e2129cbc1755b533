"""The two servers from wheels, started for real."""

import os
import stat
import tempfile
from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack import ports
from devstack.postgres import NOBODY, Postgres
from devstack.process import Process, Spec, StartError
from devstack.services import Services
from devstack.valkey import Valkey


def test_both_answer_to_their_urls_only_and_are_gone_afterwards(tmp_path: Path) -> None:
    with Services.plan(tmp_path).running() as services:
        urls = services.environment()
        connection = psycopg2.connect(urls["DATABASE_URL"])
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_encoding")
            assert cursor.fetchone() == ("UTF8",)
        connection.close()
        client = redis.Redis.from_url(urls["REDIS_URL"])
        assert client.ping()
        client.close()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(urls["DATABASE_URL"].replace(services.postgres.password, "wrong"))
        stranger = redis.Redis(port=services.valkey.port, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        stranger.close()
    assert ports.is_free(services.postgres.port)
    assert ports.is_free(services.valkey.port)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists(), "PostgreSQL was not shut down cleanly"


def test_data_survives_a_restart(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "pg", ports.free_port(), "secret", tmp_path / "pg.log")
    process = postgres.start()
    connection = psycopg2.connect(postgres.url())
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    connection.close()
    process.stop()

    again = Postgres(tmp_path / "pg", ports.free_port(), "secret", tmp_path / "pg.log")
    assert again.initialize() is False
    process = again.start()
    try:
        connection = psycopg2.connect(again.url())
        with connection.cursor() as cursor:
            cursor.execute("SELECT answer FROM kept")
            assert cursor.fetchone() == (42,)
        connection.close()
    finally:
        process.stop()


def test_postgres_leaves_the_permissions_of_its_surroundings_alone(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    postgres = Postgres(closed / "pg", ports.free_port(), "secret", tmp_path / "pg.log", durable=False)
    postgres.start().stop()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == os.getuid()
    assert stat.S_IMODE((closed / "pg").stat().st_mode) == 0o700


def test_a_port_in_use_is_said_with_the_log(tmp_path: Path) -> None:
    first = Valkey(tmp_path / "a", ports.free_port(), "secret", tmp_path / "a.log", durable=False)
    process = first.start()
    try:
        second = Valkey(tmp_path / "b", first.port, "other", tmp_path / "b.log", durable=False)
        with pytest.raises(StartError, match=r"(?s)ended with status 1.*b\.log.*Address already in use"):
            second.start()
    finally:
        process.stop()


def test_valkey_keeps_its_password_out_of_sight(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey", ports.free_port(), "hidden-password", tmp_path / "valkey.log")
    spec = valkey.spec()
    assert "hidden-password" not in " ".join(spec.command)
    assert stat.S_IMODE((tmp_path / "valkey" / "valkey.conf").stat().st_mode) == 0o600


def test_a_missing_program_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="PILOTHOUSE_POSTGRES_BIN"):
        Postgres(tmp_path / "pg", 1, "secret", tmp_path / "pg.log").start()
    monkeypatch.setenv("PILOTHOUSE_VALKEY_SERVER", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="PILOTHOUSE_VALKEY_SERVER"):
        Valkey(tmp_path / "valkey", 1, "secret", tmp_path / "valkey.log").start()


# Root has two ways of not being root; an ordinary user needs none.
IDENTITIES = ["userns", str(NOBODY)] if os.geteuid() == 0 else ["same"]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_postgres_runs_as_somebody_else_than_root(identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.postgres.choose_identity", lambda data: identity)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        postgres = Postgres(Path(folder) / "pg", ports.free_port(), "secret", Path(folder) / "log", durable=False)
        process = postgres.start()
        try:
            seen = Path(f"/proc/{process.pid}/status").read_text().split("Uid:")[1].split()[0]
        finally:
            process.stop()
    assert seen == (identity if identity.isdigit() else str(os.geteuid()))


def test_a_folder_closed_to_the_other_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.postgres.choose_identity", lambda data: str(os.getuid() or NOBODY))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PermissionError, match="Choose a data folder that all users may enter"):
        Postgres(closed / "pg", ports.free_port(), "secret", tmp_path / "log").start()


def test_a_log_grown_large_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.process.LOG_BYTES", 3)
    log = tmp_path / "x.log"
    log.write_text("from before")
    process = Process(Spec("x", ["echo", "new"], {"PATH": os.environ["PATH"]}, log, tmp_path, ready_text="new"))
    process.start()
    assert process.popen
    assert process.popen.wait(30) == 0
    assert log.read_text() == "new\n"
    assert (tmp_path / "x.log.1").read_text() == "from before"
