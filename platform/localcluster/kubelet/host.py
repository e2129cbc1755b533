"""What all pods of one kubelet process share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp

from localcluster.client import Client, Object
from localcluster.events import Recorder
from localcluster.kubelet.cgroups import Cgroups
from localcluster.kubelet.images import Images
from localcluster.kubelet.isolation import Isolation
from localcluster.kubelet.network import Addresses
from localcluster.kubelet.processes import ShimServer
from localcluster.resources import CONFIGMAPS, SECRETS, SERVICEACCOUNTS
from localcluster.watcher import Watcher

NOBODY = 65534
VOLUMES_PERIOD = 30.0  # seconds between updates of volumes made from objects


@dataclass(slots=True)
class Host:
    """The machine as its pods use it."""

    client: Client
    data: Path
    address: str
    isolation: Isolation
    shims: ShimServer
    images: Images
    addresses: Addresses
    cgroups: Cgroups
    session: aiohttp.ClientSession
    services: Watcher
    volumes_period: float = VOLUMES_PERIOD
    recorders: dict[str, Recorder] = field(default_factory=dict)
    tokens: dict[tuple[str, str, str], tuple[str, float]] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def recorder(self, node: str) -> Recorder:
        """The event recorder that speaks for a node."""
        if node not in self.recorders:
            self.recorders[node] = Recorder(self.client, "kubelet", node)
            self.spawn(self.recorders[node].run())
        return self.recorders[node]

    def spawn(self, part) -> asyncio.Task[None]:
        """Run a coroutine in the background until it ends or the kubelet does."""
        task = asyncio.get_running_loop().create_task(part)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def lookup(self, namespace: str, kind: Literal["ConfigMap", "Secret"], name: str) -> Object | None:
        resource = CONFIGMAPS if kind == "ConfigMap" else SECRETS
        return await self.client.get_or_none(resource, name, namespace)

    async def token(self, namespace: str, account: str, pod: Object, spec: Object) -> str:
        """A service account token bound to the pod; a new one once four fifths of its life are over."""
        uid, audience = pod["metadata"]["uid"], spec.get("audience", "")
        seconds, now = spec.get("expirationSeconds", 3607), time.monotonic()
        kept = self.tokens.get((uid, account, audience))
        if kept is not None and now < kept[1]:
            return kept[0]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "kind": "Pod",
                    "apiVersion": "v1",
                    "name": pod["metadata"]["name"],
                    "uid": uid,
                },
            },
        }
        answer = await self.client.create_subresource(SERVICEACCOUNTS, account, namespace, "token", request)
        token: str = answer["status"]["token"]
        self.tokens = {key: value for key, value in self.tokens.items() if now < value[1]}
        self.tokens[uid, account, audience] = token, now + 0.8 * seconds
        return token
