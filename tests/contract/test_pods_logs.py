"""Logs of containers and commands run in them, on any cluster."""

from __future__ import annotations

import aiohttp

from localcluster.client import ApiError, Client
from localcluster.resources import PODS
from tests.contract.conftest import Cluster, Kubectl
from tests.contract.pods import SLEEP, finished, log_of, pod, run, terminated
from tests.contract.waiting import is_ready, pod_until, state, until


async def test_logs(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    script = (
        "import sys,time\n"
        "for i in range(5): print('line', i, flush=True)\n"
        "sys.stdout.write('x'*40000 + '\\n' + 'crlf\\r\\n\\n' + 'no newline'); sys.stdout.flush()\n"
    )
    container = {"command": ["python3", "-c", script]}
    await client.create(PODS, pod("p", cluster.image, "", container=container, restartPolicy="Never"), namespace)
    await finished(client, namespace, "p")
    whole = "".join(f"line {i}\n" for i in range(5)) + "x" * 40000 + "\ncrlf\n\nno newline"
    assert await log_of(client, namespace, "p") == whole
    assert await log_of(client, namespace, "p", tailLines="2") == "\nno newline"
    assert await log_of(client, namespace, "p", tailLines="0") == ""
    assert await log_of(client, namespace, "p", limitBytes="9") == "line 0\nli"
    assert await log_of(client, namespace, "p", sinceTime="2100-01-01T00:00:00Z") == ""
    stamped = (await log_of(client, namespace, "p", timestamps="true")).splitlines()
    assert stamped[0].endswith("Z line 0")
    assert stamped[5].endswith("x" * 40000)
    assert await log_of(client, namespace, "p", follow="true") == whole
    assert kubectl("logs", "p", "--tail=1") == "no newline"


async def test_following_a_log(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    script = "import time\nfor i in range(1, 6):\n  print(i, flush=True)\n  time.sleep(0.2)"
    await client.create(PODS, pod("p", cluster.image, script, restartPolicy="Never"), namespace)
    await pod_until(client, namespace, "p", lambda p: state(p).get("running") or terminated(p), "started")
    assert kubectl("logs", "-f", "p") == "1\n2\n3\n4\n5\n"


async def test_exec(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    await client.create(PODS, pod("p", cluster.image, SLEEP), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    both = "import sys; print('out'); print('err', file=sys.stderr)"
    assert kubectl("exec", "p", "--", *run(both)) == "out\n"
    assert kubectl("exec", "-i", "p", "--", *run("print(input())"), stdin="a line\n") == "a line\n"
    failed = kubectl.run("exec", "p", "--", *run("raise SystemExit(3)"))
    assert failed.returncode == 3
    absent = kubectl.run("exec", "p", "--", "no-such-program")
    assert absent.returncode != 0
    assert "no-such-program" in absent.stderr
    assert kubectl("exec", "p", "--", *run("import os; print(os.environ['HOSTNAME'])")) == "p\n"


async def test_a_long_log_is_rotated(client: Client, cluster: Cluster, namespace: str) -> None:
    """Followers miss nothing, later readers see the newest file only, to its last line; kubelets rotate at 10 MiB."""
    program = (
        "import time\n"
        "for i in range(12):\n"
        "    for k in range(2500): print(f'{i * 2500 + k:06}', 'x' * 992)\n"
        "    time.sleep(1)\n"
        "print('last', flush=True)\n" + SLEEP
    )
    await client.create(PODS, pod("p", cluster.image, program), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    url = client.connection.server + PODS.path(namespace, "p", "log")
    numbers = []
    timeout = aiohttp.ClientTimeout(total=240)
    async with client.session.get(url, params={"follow": "true"}, timeout=timeout) as answer:
        while (line := await answer.content.readline()) != b"last\n":
            numbers.append(int(line.split()[0]))
    assert numbers == list(range(30_000))

    async def rotated() -> bool:
        return len(await log_of(client, namespace, "p")) < 25_000_000

    await until(rotated, "rotated", 60)
    shown = (await log_of(client, namespace, "p")).splitlines()
    assert not shown or shown[-1] == "last"
    kept = [int(line.split()[0]) for line in shown[:-1]]
    assert kept == list(range(30_000 - len(kept), 30_000))


async def test_the_log_of_the_container_before(client: Client, cluster: Cluster, namespace: str) -> None:
    program = (
        "import os\n"
        "again = os.path.exists('/v/x')\n"
        "open('/v/x', 'w')\n"
        "print('second' if again else 'first', flush=True)\n"
        f"if not again: raise SystemExit(1)\n{SLEEP}"
    )
    body = pod("p", cluster.image, program, container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]})
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    await client.create(PODS, body, namespace)

    async def both() -> bool:
        try:
            shown = [await log_of(client, namespace, "p", previous=before) for before in ("true", "false")]
        except ApiError:
            return False  # one of them has not started yet
        return shown == ["first\n", "second\n"]

    await until(both, "both logs")
