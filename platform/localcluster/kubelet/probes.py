"""Startup, readiness and liveness probes.

`Verdict` is the pure part: results in, decision out. `Prober` asks over HTTP, TCP or a command of the container.
Texts follow kubernetes pkg/probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import aiohttp

from localcluster.client import Object
from localcluster.kubelet.failures import failed, system_words

Kind = Literal["Startup", "Readiness", "Liveness"]
Command = Callable[[list[str], float], Awaitable[tuple[int | None, str]]]
_EARLY = (0.02, 0.04, 0.06, 0.1, 0.1, 0.15, 0.2, 0.3)  # seconds between first looks at a starting container
_BODY = 10240


@dataclass(slots=True)
class Verdict:
    """Counts consecutive results until a threshold turns the state."""

    failure_threshold: int = 3
    success_threshold: int = 1
    state: bool | None = None
    _last: bool | None = None
    _run: int = 0

    def add(self, success: bool) -> bool:
        """Take in one result; True when the state changed by it."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        threshold = self.success_threshold if success else self.failure_threshold
        if self._run < threshold or self.state == success:
            return False
        self.state = success
        return True


@dataclass(frozen=True, slots=True)
class Result:
    success: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The container that is asked: its spec (for names of ports), its address, and by what means."""

    container: Object
    address: str
    session: aiohttp.ClientSession
    command: Command


class Prober:
    """Runs one probe of one container until cancelled."""

    def __init__(self, kind: Kind, spec: Object, target: Target) -> None:
        self.kind = kind
        self.spec = spec
        self.target = target
        self.period = float(spec.get("periodSeconds") or 10)
        self.timeout = float(spec.get("timeoutSeconds") or 1)
        self.verdict = Verdict(spec.get("failureThreshold") or 3, spec.get("successThreshold") or 1)

    async def run(self, changed: Callable[[bool], None], failed: Callable[[str], None]) -> None:
        """Call `changed(state)` when the verdict turns, `failed(text)` for every failure that counts."""
        await asyncio.sleep(float(self.spec.get("initialDelaySeconds") or 0))
        loop = asyncio.get_running_loop()
        due = loop.time()
        if self.kind != "Liveness" and await self._early(due):
            if self.verdict.add(True):
                changed(True)
            due += self.period
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + self.period, loop.time())
            result = await self.check()
            if not result.success:
                failed(f"{self.kind} probe failed: {result.text}")
            if self.verdict.add(result.success):
                changed(result.success)

    async def _early(self, since: float) -> bool:
        """Look often while a container starts, so that it counts as ready when it is. Failures do not count."""
        loop = asyncio.get_running_loop()
        if self.spec.get("exec"):
            return False
        for pause in _EARLY:
            if loop.time() + pause - since >= self.period:
                break
            await asyncio.sleep(pause)
            if (await self.check()).success:
                return True
        # The first look that counts is at the end of the first period.
        await asyncio.sleep(max(0.0, min(self.period, 1.0) - (loop.time() - since)))
        return False

    async def check(self) -> Result:
        """One attempt."""
        if self.spec.get("httpGet"):
            return await self._http(self.spec["httpGet"])
        if self.spec.get("tcpSocket"):
            action = self.spec["tcpSocket"]
            return await self._tcp(action.get("host") or self.target.address, self._port(action["port"]))
        if self.spec.get("exec"):
            code, output = await self.target.command(self.spec["exec"]["command"], self.timeout)
            if code is None:
                return Result(
                    False,
                    f'command timed out: "{" ".join(self.spec["exec"]["command"])}" timed out after '
                    f"{self.timeout:.0f}s",
                )
            return Result(code == 0, output)
        return Result(False, "the probe has no action: give it httpGet, tcpSocket or exec")

    def _port(self, port: int | str) -> int:
        if isinstance(port, int):
            return port
        for entry in self.target.container.get("ports") or []:
            if entry.get("name") == port:
                return entry["containerPort"]
        return int(port) if port.isdigit() else 0

    async def _http(self, action: Object) -> Result:
        host, port = action.get("host") or self.target.address, self._port(action["port"])
        scheme = (action.get("scheme") or "HTTP").lower()
        path = action.get("path") or "/"
        url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
        headers = {entry["name"]: entry["value"] for entry in action.get("httpHeaders") or []}
        headers.setdefault("User-Agent", "kube-probe/1.36")
        headers.setdefault("Accept", "*/*")
        try:
            async with self.target.session.get(
                url,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
                allow_redirects=False,
                ssl=False,
            ) as response:
                await response.content.read(_BODY)
                if 300 <= response.status < 400:
                    target = urlsplit(response.headers.get("Location", ""))
                    if target.hostname in (None, host):
                        return Result(True)
                if 200 <= response.status < 400:
                    return Result(True)
                return Result(False, f"HTTP probe failed with statuscode: {response.status}")
        except TimeoutError:
            waiting = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return Result(False, f'Get "{url}": {waiting}')
        except aiohttp.ClientError as error:
            return Result(False, failed("GET", url, error))
        except OSError as error:
            return Result(False, f'Get "{url}": {system_words(error)}')

    async def _tcp(self, host: str, port: int) -> Result:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), self.timeout)
        except TimeoutError:
            return Result(False, f"dial tcp {host}:{port}: i/o timeout")
        except OSError as error:
            return Result(False, f"dial tcp {host}:{port}: connect: {system_words(error)}")
        writer.close()
        return Result(True)
