"""The kubelet's HTTP API on the loopback address: logs, exec and statistics, for the API server only."""

from __future__ import annotations

import hmac
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from localcluster.kubelet.agent import Agent
from localcluster.kubelet.containers import Container
from localcluster.kubelet.execs import serve_exec
from localcluster.kubelet.logs import LogOptions, read
from localcluster.kubelet.stats import Stats
from localcluster.times import now, parse_time

log = logging.getLogger(__name__)


class Server:
    """Answers requests that carry the node token. Without a token every request is refused."""

    def __init__(self, agent: Agent, stats: Stats, token: str) -> None:
        self.agent = agent
        self.stats = stats
        self._token = token
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, memory: Path) -> int:
        """Listen, on the port of an earlier run (kept in the file `memory`) if it is free, and return the port."""
        app = web.Application(middlewares=[self._authenticate])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        app.router.add_get("/stats", self._stats)
        app.router.add_get("/stats/summary", self._stats)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        # The API server finds us by the port in the Node; the same port serves it before that is read again.
        for port in (_read_port(memory), 0):
            try:
                await web.TCPSite(self._runner, address, port).start()
                break
            except OSError:
                if port == 0:
                    raise
        chosen = self._runner.addresses[0][1]
        _write_port(memory, chosen)
        return chosen

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path != "/healthz":
            sent = request.headers.get("Authorization", "")
            if not self._token or not hmac.compare_digest(sent.encode(), f"Bearer {self._token}".encode()):
                raise web.HTTPUnauthorized(text="Unauthorized")
        return await handler(request)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _stats(self, request: web.Request) -> web.Response:
        names = list(self.agent.keeper.specs)
        return web.json_response(self.stats.summaries(names, names[0]))

    def _container(self, request: web.Request) -> Container:
        names = request.match_info
        worker = self.agent.worker_of(names["namespace"], names["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{names["namespace"]}/{names["pod"]}" is not on this node')
        container = worker.container(names["container"])
        if container is None:
            raise web.HTTPNotFound(text=f"container {names['container']} is not valid for pod {names['pod']}")
        return container

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request)
        query = request.query
        number = container.view.restarts
        if query.get("previous") == "true":
            number -= 1
        record = container.pod.record
        path = record.attempt(container.name, number) / "log"
        if number < 0:
            raise web.HTTPBadRequest(text=f'previous terminated container "{container.name}" not found')
        if not path.exists() and number == container.view.restarts and number > 0:
            # Between two attempts the last one's log is the current one.
            number -= 1
            path = record.attempt(container.name, number) / "log"
        options = _options(query)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        def running() -> bool:
            return container.shim is not None and container.view.restarts == number and not container.pod.gone

        try:
            async for block in read(path, options, running):
                await response.write(block)
            await response.write_eof()
        except ConnectionResetError:
            log.debug("a log reader went away")
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        return await serve_exec(request, self._container(request))


def _read_port(memory: Path) -> int:
    try:
        return int(memory.read_text())
    except (OSError, ValueError):
        return 0


def _write_port(memory: Path, port: int) -> None:
    memory.write_text(str(port))


def _options(query: Any) -> LogOptions:
    since = None
    if query.get("sinceTime"):
        since = parse_time(query["sinceTime"])
    elif query.get("sinceSeconds"):
        since = now() - timedelta(seconds=int(query["sinceSeconds"]))
    return LogOptions(
        follow=query.get("follow") == "true",
        timestamps=query.get("timestamps") == "true",
        since=since,
        tail=int(query["tailLines"]) if query.get("tailLines") else None,
        limit=int(query["limitBytes"]) if query.get("limitBytes") else None,
    )
