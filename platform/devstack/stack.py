"""What the platform consists of on one machine: which processes, with which environment.

DATABASE_URL, REDIS_URL and KUBECONFIG in the environment each take the place of an embedded part.
"""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack.ports import PortBusyError, free_port, is_free, keep_or_choose
from devstack.postgres import Postgres
from devstack.process import Spec, always_ready
from devstack.statefolder import StateFolder
from devstack.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
DEFAULT_PORT = 8000
ADMIN_EMAIL = "admin@pilothouse.local"
SERVING_PORT = 8080
PODS_USER = 1000
# Our own code is to be compiled once and not at each start of each process.
NOT_PASSED_ON = {"PORT", "PYTHONDONTWRITEBYTECODE"}
# Pods listen on addresses of their own in 127.0.0.0/8; only a wildcard listener stands in their way.
SOME_POD_ADDRESS = "127.200.200.200"
TITLES = {
    "postgresql": "PostgreSQL",
    "valkey": "Valkey",
    "cluster": "Kubernetes, embedded",
    "prepare": "Database schema, static files, sign-in",
    "web": "Web",
    "worker": "Worker",
    "requests": "Worker for batch requests",
    "beat": "Schedule",
    "watcher": "Cluster watcher",
    "collector": "Log collector",
    "seed": "Demo project",
}


@dataclass(frozen=True)
class Options:
    """``port`` 0 means any free one."""

    state: StateFolder
    port: int = DEFAULT_PORT
    outer: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Stack:
    """Chooses ports and secrets once; hands out the processes stage by stage."""

    def __init__(self, options: Options) -> None:
        self._state = options.state
        self._outer = options.outer
        self.port = self._choose_port(options.port)
        self.url = f"http://{HOST}:{self.port}"
        self.postgres = None if self._outer.get("DATABASE_URL") else self._plan_postgres()
        self.valkey = None if self._outer.get("REDIS_URL") else self._plan_valkey()
        self.has_cluster = not self._outer.get("KUBECONFIG")
        self.kubeconfig = (
            self._state.path / "kubeconfig" if self.has_cluster else Path(self._outer["KUBECONFIG"]).resolve()
        )
        self.admin_password = self._state.secret("admin_password")
        self.admin_token = self._state.secret("admin_token", prefix="ph_")
        # Instances of the embedded cluster call from the loopback too: without a token all could read the metrics.
        self.metrics_token = self._outer.get("PILOTHOUSE_METRICS_TOKEN") or self._state.secret("metrics_token")
        self.environment = self._platform_environment()

    def servers(self) -> list[Spec]:
        """What must run before anything of the platform itself."""
        specs = []
        if self.postgres:
            self.postgres.initialize()
            specs.append(self.postgres.spec())
        if self.valkey:
            specs.append(self.valkey.spec())
        if self.has_cluster:
            specs.append(self._cluster())
        return specs

    def prepare(self) -> Spec:
        """Ends when the database has its schema and the admin can sign in."""
        if self.postgres:
            self.postgres.ensure_database()
        return self._python("prepare", "manage.py", "prepare_platform", start_timeout=300)

    def platform(self) -> list[Spec]:
        """The web process first, as everything else may call it."""
        celery = ("-m", "celery", "-A", "pilothouse")
        worker = (*celery, "worker", "--without-gossip", "--without-mingle", "--loglevel", "INFO")
        return [
            self._python(
                "web", "-m", "uvicorn", "pilothouse.asgi:application", "--host", HOST, "--port", str(self.port),
                # Live lines are encoded once for all sockets; each would compress them for itself.
                "--timeout-graceful-shutdown", "5", "--no-access-log", "--ws-per-message-deflate", "false",
                ready=self._web_answers,
            ),
            self._python(
                "worker", *worker, "-Q", "default", "-c", "2", "-n", "default@%h", ready_text=" ready.",
            ),
            self._python(
                "requests", *worker, "-Q", "requests", "--pool", "threads", "-c", "16", "-n", "requests@%h",
                ready_text=" ready.",
            ),
            self._python(
                "beat", *celery, "beat", "--schedule", str(self._state.path / "beat-schedule"), "--pidfile", "",
                "--loglevel", "INFO",
            ),
            # Somebody else's cluster may be away just now; the watcher waits for it and so must nobody else.
            self._python(
                "watcher", "manage.py", "watch_cluster",
                ready_text="Watching the cluster" if self.has_cluster else "",
            ),
            self._python(
                "collector", "manage.py", "collect_logs",
                ready_text="Collecting logs" if self.has_cluster else "",
            ),
        ]  # fmt: skip

    def seed(self) -> Spec:
        """Ends when the demo deployment answers; every line it writes is for the terminal."""
        return self._python("seed", "manage.py", "seed_demo", start_timeout=1800)

    def external_parts(self) -> list[str]:
        """A sentence for each embedded part that something of the user's replaces."""
        parts = {
            "PostgreSQL": (self.postgres, "DATABASE_URL"),
            "Valkey": (self.valkey, "REDIS_URL"),
            "Kubernetes": (self.has_cluster, "KUBECONFIG"),
        }
        return [f"{name}: yours, from {variable}" for name, (own, variable) in parts.items() if not own]

    def _choose_port(self, wanted: int) -> int:
        if wanted == 0:
            return free_port(HOST)
        if not is_free(wanted, HOST):
            raise PortBusyError(
                f"Port {wanted} is taken by another program. Stop that, or choose another port: "
                f"PORT={wanted + 1} make run"
            )
        return wanted

    def _port(self, name: str) -> int:
        return self._state.remember_port(name, keep_or_choose(self._state.remembered_port(name)))

    def _plan_postgres(self) -> Postgres:
        return Postgres(
            self._state.path / "postgres", self._port("postgresql"), self._state.secret("postgres_password"),
            self._state.logs / "postgresql.log",
        )  # fmt: skip

    def _plan_valkey(self) -> Valkey:
        return Valkey(
            self._state.path / "valkey", self._port("valkey"), self._state.secret("valkey_password"),
            self._state.logs / "valkey.log",
        )  # fmt: skip

    def _serving_port(self) -> int:
        for port in (self._state.remembered_port("serving"), SERVING_PORT):
            if port and is_free(port, SOME_POD_ADDRESS):
                return self._state.remember_port("serving", port)
        return self._state.remember_port("serving", free_port(SOME_POD_ADDRESS))

    def _platform_environment(self) -> dict[str, str]:
        state = self._state
        environment = {
            "PILOTHOUSE_SECRET_KEY": state.secret("secret_key"),
            "PILOTHOUSE_FIELD_KEY": state.secret("field_key"),
            "PILOTHOUSE_PLAIN_HTTP": "1",
            "PILOTHOUSE_URL": self.url,
            **{name: value for name, value in self._outer.items() if name not in NOT_PASSED_ON},
            "PILOTHOUSE_STATE_DIR": str(state.path),
            "PILOTHOUSE_ADMIN_EMAIL": ADMIN_EMAIL,
            "PILOTHOUSE_ADMIN_PASSWORD": self.admin_password,
            "PILOTHOUSE_ADMIN_TOKEN": self.admin_token,
            "PILOTHOUSE_METRICS_TOKEN": self.metrics_token,
            "DJANGO_SETTINGS_MODULE": "pilothouse.settings",
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": str(self.kubeconfig),
        }
        if self.postgres:
            environment["DATABASE_URL"] = self.postgres.url()
        if self.valkey:
            environment["REDIS_URL"] = self.valkey.url()
        if self.has_cluster:
            environment |= {
                "PILOTHOUSE_ROUTE": "pods",
                "PILOTHOUSE_ENVIRONMENTS_DIR": str(state.path / "environments"),
                "PILOTHOUSE_SERVING_PORT": str(self._serving_port()),
            }
        return environment

    def _cluster(self) -> Spec:
        environments = self._state.path / "environments"
        environments.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            pods_user = int(self._outer.get("PILOTHOUSE_RUN_AS_USER") or PODS_USER)
            os.chown(environments, pods_user, pods_user)
        command = [
            sys.executable, "-m", "localcluster", "--data", str(self._state.path / "cluster"),
            "--port", str(self._port("cluster")), "--kubeconfig", str(self.kubeconfig),
            # The instances of a laptop mostly wait: its CPUs are promised several times over, its memory never.
            "--node-cpus", str(max(8, 4 * (os.cpu_count() or 1))),
        ]  # fmt: skip
        simulated = self._outer.get("PILOTHOUSE_SIMULATED_NODES")
        if simulated:
            command += ["--simulated-nodes", simulated]
        hidden = ("PILOTHOUSE_", "DATABASE_URL", "REDIS_URL", "KUBECONFIG", "DJANGO_")
        return Spec(
            name="cluster",
            command=command,
            # The cluster runs the users' code: it never sees the platform's secrets in the first place.
            environment={k: v for k, v in self.environment.items() if not k.startswith(hidden)},
            log=self._state.logs / "cluster.log",
            directory=ROOT,
            ready_text=f"ready {self.kubeconfig}",
            stop_timeout=60,  # pods get their grace period
        )

    def _web_answers(self) -> bool:
        return _answers(f"{self.url}/")

    def _python(
        self,
        name: str,
        *arguments: str,
        ready: Callable[[], bool] = always_ready,
        ready_text: str = "",
        start_timeout: float = 120,
    ) -> Spec:
        return Spec(
            name=name,
            command=[sys.executable, *arguments],
            environment=self.environment,
            log=self._state.logs / f"{name}.log",
            directory=ROOT,
            ready=ready,
            ready_text=ready_text,
            start_timeout=start_timeout,
        )


def _answers(url: str) -> bool:
    """Whether the server answers at all other than with an error of its own."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except OSError:
        return False
