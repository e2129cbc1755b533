"""A small registry of container images on 127.0.0.1, by http or https, that asks for credentials as it is told."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

BEARER = "a-token-of-the-registry"


@dataclass
class Registry:
    """What it holds, whom it knows, and what it was asked.

    `access` is open, basic, bearer, forbidden, or silent: no answer until `answering` is set.
    """

    access: str = "open"
    manifests: set[str] = field(default_factory=lambda: {"team/server:1"})
    users: dict[str, str] = field(default_factory=dict)
    knows_post: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    address: str = ""
    answering: threading.Event = field(default_factory=threading.Event)

    def image(self, name: str = "team/server:1") -> str:
        return f"{self.address}/{name}"

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        authorization = request.headers.get("Authorization", "")
        self.authorizations.append(authorization)
        while self.access == "silent" and not self.answering.is_set():  # noqa: ASYNC110 - another thread says it
            await asyncio.sleep(0.02)
        if self.access == "forbidden":
            return web.Response(status=403)
        if self.access == "basic" and not self._is_basic(authorization):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
        if self.access == "bearer" and authorization != f"Bearer {BEARER}":
            challenge = f'Bearer realm="{request.url.origin()}/token",service="registry",scope="repository:x:pull"'
            if authorization:
                challenge += ',error="insufficient_scope"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        found = f"{request.match_info['name']}:{request.match_info['tag']}" in self.manifests
        return web.Response(status=200 if found else 404, headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"})

    async def token(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path_qs))
        if request.method == "POST":
            if not self.knows_post:
                return web.Response(status=405)
            form = await request.post()
            known = self.users.get(str(form["username"])) == form["password"]
        else:
            authorization = request.headers.get("Authorization", "")
            known = self._is_basic(authorization)
            if not authorization:
                return web.json_response({"token": "anonymous"})
        return web.json_response({"access_token": BEARER}) if known else web.Response(status=401)

    def _is_basic(self, authorization: str) -> bool:
        known = (base64.b64encode(f"{name}:{secret}".encode()).decode() for name, secret in self.users.items())
        return authorization in [f"Basic {one}" for one in known]

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/v2/{name:.+}/manifests/{tag}", self.manifest)
        app.router.add_route("*", "/token", self.token)
        return app


@contextmanager
def running(registry: Registry) -> Iterator[Registry]:
    """Serve it by http in a thread of its own; ends with the block, whatever is still waited for."""
    started = threading.Event()
    end: list[Callable[[], object]] = []

    async def serve() -> None:
        runner = web.AppRunner(registry.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        registry.address = f"127.0.0.1:{runner.addresses[0][1]}"
        asked = asyncio.Event()
        end.append(partial(asyncio.get_running_loop().call_soon_threadsafe, asked.set))
        started.set()
        await asked.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(30), "the registry did not start within 30 s"
    try:
        yield registry
    finally:
        end[0]()
        thread.join(30)
