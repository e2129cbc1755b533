"""What the parts of `live` share: the whole platform with one version, pods that write, readers, processes' costs."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2

from benchmarks.support import PROJECT, ROOT, Platform
from kube import specs

NAMESPACE = f"ph-{PROJECT}"
NAME = "live"
SETTLE_SECONDS = 0.4  # for each pod that is to start and to be followed
# Says hello, and from a moment on, when all are followed, writes lines at a rate for some seconds; then it tells how
# many they were and stays until it is removed.
WRITER = """
import hashlib, sys, time
rate, seconds = {rate}, {seconds}
# Words that compress as a log does, not as one letter.
words = [hashlib.sha256(bytes([n])).hexdigest()[:n % 7 + 3] for n in range(64)]
padding = [" ".join(words[n * k % 64] for k in range(1, 14))[:{padding}] for n in range(64)]
print("hello", flush=True)
time.sleep(max(0, {start} - time.time()))
began, number = time.time(), 0
while (passed := time.time() - began) < seconds:
    for number in range(number, int(passed * rate)):
        sys.stdout.write(f"{{number}} {{time.time_ns()}} {{padding[number % 64]}}\\n")
    number = int(passed * rate)
    sys.stdout.flush()
    time.sleep(max(0.01, 0.5 / rate))
print("end", number, flush=True)
time.sleep(86400)
"""


class Rig:
    """A platform whose project has the deployment ``live`` with one instance that answers requests."""

    def __init__(self, bench: Platform) -> None:
        self.bench = bench
        self.version = bench.deployment(NAME)
        bench.upload(self.version, 1)
        bench.answered_by(self.version, 1)
        self.version_id: str = bench.call("GET", self.version)["id"]
        self.deployment_id: str = bench.call("GET", f"/projects/{PROJECT}/deployments/{NAME}")["id"]
        self.origin = bench.stack.url
        self.page = f"{self.origin}/projects/{PROJECT}/deployments/named/{NAME}/"
        self.logs = f"{self.page}versions/v1/logs/"
        self.cookie = self._sign_in()
        self._batches = itertools.count(1)
        self.cluster = bench.kubeconfig
        server = json.loads(bench.kubectl("config", "view", "--output", "json"))["clusters"][0]["cluster"]["server"]
        self.api_port = int(server.rsplit(":", 1)[1])

    def _sign_in(self) -> str:
        admin = self.bench.stack.dev()["admin"]
        with httpx.Client(base_url=self.origin, follow_redirects=False) as client:
            client.get("/sign-in/")
            form = {
                "username": admin["email"],
                "password": admin["password"],
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
            }
            answer = client.post("/sign-in/", data=form, headers={"Origin": self.origin})
            if answer.status_code != 302:
                raise SystemExit(f"Signing in: {answer.status_code} {answer.text[:300]}")
            return "; ".join(f"{name}={value}" for name, value in client.cookies.items())

    @property
    def web(self) -> psutil.Process:
        """The web process, whichever it is now."""
        return psutil.Process(self.bench.stack.dev()["pids"]["web"])

    def names(self, count: int) -> list[str]:
        """Of pods that are to write; no name comes twice."""
        batch = next(self._batches)
        return [f"writer-{batch}-{number}" for number in range(count)]

    @contextmanager
    def writers(self, names: list[str], rate: float, seconds: float, padding: int = 80) -> Iterator[float]:
        """Pods of the version that write, for the length of the block; gives how long it takes until they begin."""
        settle = 5 + SETTLE_SECONDS * len(names)
        code = WRITER.format(rate=rate, seconds=seconds, padding=padding, start=time.time() + settle)
        labels = {specs.MANAGED_BY: specs.MANAGER, specs.VERSION_ID: self.version_id, "part": "writer"}
        container = {
            "name": "serving",
            "image": "python:3.11-slim",
            "command": ["python", "-c", code],
            "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
        }
        pods = [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            }
            for name in names
        ]
        manifest = "\n---\n".join(json.dumps(pod) for pod in pods)
        self.bench.kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=manifest)
        try:
            yield settle
        finally:
            self.bench.kubectl("-n", NAMESPACE, "delete", "pods", "-l", "part=writer", "--now")

    def kubectl_follow(self, names: list[str]) -> list[str]:
        """The command that follows the same pods."""
        program = Path(sys.executable).parent / "kubectl"
        command = [str(program), "--kubeconfig", self.cluster, "-n", NAMESPACE, "logs", "-f", "--tail=-1"]
        if len(names) == 1:
            return [*command, names[0]]
        return [*command, "-l", "part=writer", "--prefix", "--max-log-requests", str(len(names) + 1)]

    def follows(self) -> int:
        """Connections of the web process to the API server."""
        return sum(
            1
            for one in self.web.net_connections("tcp")
            if one.raddr and one.raddr.port == self.api_port and one.status == psutil.CONN_ESTABLISHED
        )

    def cpu(self) -> float:
        """CPU seconds of the web process."""
        times = self.web.cpu_times()
        return float(times.user + times.system)

    def stored(self, names: list[str]) -> list[list[str]]:
        """What the store holds of each pod's lines, as they are ordered there; empty while it cannot be asked."""
        query = (
            "SELECT s.pod_name, l.text FROM monitoring_logline l JOIN monitoring_logsource s ON s.id = l.source_id"
            " WHERE s.pod_name = ANY(%s) ORDER BY s.pod_name, l.time, l.ordinal"
        )
        found: dict[str, list[str]] = {name: [] for name in names}
        try:
            with closing(psycopg2.connect(self.web.environ()["DATABASE_URL"])) as connection:
                cursor = connection.cursor()
                cursor.execute(query, [names])
                for name, text in cursor:
                    found[name].append(text)
        except psycopg2.OperationalError:
            return []
        return list(found.values())


class Watch:
    """Looks at the web process every second: memory and connections to the API server."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.web = rig.web
        self.memory: list[float] = []  # MB
        self.most_follows = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self.before = self.rig.follows()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1):
            self.memory.append(self.web.memory_info().rss / 2**20)
            self.most_follows = max(self.most_follows, self.rig.follows())

    def flat(self) -> str:
        """Memory at the start, in the middle and at the end; the start is when a tenth of the time has passed."""
        if not self.memory:
            return "not seen"
        places = (len(self.memory) // 10, len(self.memory) // 2, len(self.memory) - 1)
        return " / ".join(f"{self.memory[at]:.0f}" for at in places) + f" MB, at most {max(self.memory):.0f}"


class Readers:
    """A process with sockets; see `live_readers`."""

    def __init__(self, rig: Rig, sockets: int, topic: str, **task: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.live_readers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        whole = {
            "socket": rig.origin.replace("http", "ws", 1) + "/ws/live/",
            "origin": rig.origin,
            "cookie": rig.cookie,
            "topic": topic,
            "sockets": sockets,
            **task,
        }
        self._say(json.dumps(whole))
        if self._hear() != "ready":
            raise SystemExit("The readers did not start")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def result(self, seconds: float, *, stop: bool = False) -> dict[str, Any]:
        """What they got once all writers have ended, at the latest after so many seconds; ``stop`` asks at once."""
        timer = threading.Timer(0 if stop else seconds, self._say, ["stop"])
        timer.start()
        try:
            line = self._hear()
        finally:
            timer.cancel()
        if not line:
            raise SystemExit("The readers broke off")
        found: dict[str, Any] = json.loads(line)
        self._process.wait(30)
        return found

    def __enter__(self) -> "Readers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def wait_ready(rig: Rig, count: int, seconds: float = 300) -> None:
    """Until so many instances of the version are ready."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if rig.bench.call("GET", rig.version)["ready_instances"] >= count:
            return
        time.sleep(0.2)
    raise SystemExit(f"Not {count} instances were ready within {seconds:.0f} s")
