"""Pods for the contract tests, which need nothing of their image but python3."""

from __future__ import annotations

from typing import Any

from localcluster.client import Client
from tests.contract.waiting import pod_until, state

Object = dict[str, Any]

# Programs. As the first process of a container python3 does not heed SIGTERM unless it is told to.
SLEEP = "import time; time.sleep(100000)"
IGNORES_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100000)"
ENDS_ON_TERM = """
import signal, sys, time
def end(*_):
    time.sleep(0.3)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""


def run(program: str) -> list[str]:
    """The command that runs a program."""
    return ["python3", "-c", program]


def pod(name: str, image: str, program: str, *, container: Object | None = None, **spec: Any) -> Object:
    """A pod of one container `c` that runs a Python program."""
    one = {"name": "c", "image": image, "command": run(program), **(container or {})}
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [one], **spec}}


def terminated(found: Object, container: str = "c") -> Object | None:
    return state(found, container).get("terminated")


async def finished(client: Client, namespace: str, name: str) -> Object:
    return await pod_until(
        client, namespace, name, lambda p: p.get("status", {}).get("phase") in ("Succeeded", "Failed"), "finished"
    )


async def log_of(client: Client, namespace: str, name: str, **options: str) -> str:
    return await client.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}/log", params=options)
