"""Starting and stopping the API server: `serve` for a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from localcluster import kubeconfig
from localcluster.apiserver import bootstrap, certificates
from localcluster.apiserver.app import Application
from localcluster.apiserver.auth import Tokens
from localcluster.apiserver.objects import Objects
from localcluster.apiserver.registry import KINDS
from localcluster.apiserver.relay import Relay
from localcluster.apiserver.store import Store, Table
from localcluster.apiserver.subresources import Subresources

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
COMPONENT_KUBECONFIG = "component.kubeconfig"
ADMIN_KUBECONFIG = "admin.kubeconfig"
_PORT_FILE = "port"


class _Server(uvicorn.Server):
    """uvicorn, with signals left to us."""

    def install_signal_handlers(self) -> None:
        return

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def listen(port: int, data: Path) -> socket.socket:
    """A listening socket on loopback. Port 0 means the port of the last start if free, else any."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    remembered = data / _PORT_FILE
    wanted = [port] if port else []
    if not port and remembered.exists():
        wanted.append(int(remembered.read_text()))
    wanted.append(port)
    for candidate in wanted:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
        except OSError:
            listener.close()
            if candidate == wanted[-1]:
                raise
            continue
        listener.listen(1024)
        remembered.write_text(str(listener.getsockname()[1]))
        return listener
    raise AssertionError("unreachable")


def build(data: Path, port: int, node_token: str, on_failure: Callable[[BaseException], None]) -> Application:
    """The application over the store in `data`. Must be called inside a running event loop."""
    tables = [Table(kind.resource, kind.field_values) for kind in KINDS]
    store = Store(str(data / "store.db"), tables, on_failure)
    objects = Objects(store)
    tokens = Tokens(data)
    bootstrap.ensure(objects, port)
    return Application(store, objects, tokens, Subresources(objects, tokens, Relay(objects, node_token)))


async def serve(data: Path, port: int, node_token: str, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the port when requests are answered."""
    listener = listen(port, data)
    bound: int = listener.getsockname()[1]

    def fail(error: BaseException) -> None:
        log.critical("the store in %s cannot be written: %s; free disk space and start again", data, error)
        os._exit(70)

    app = build(data, bound, node_token, fail)
    url = f"https://{HOST}:{bound}"
    tls = certificates.ensure(data, HOST)
    authority = tls.authority.read_bytes()
    kubeconfig.write(data / COMPONENT_KUBECONFIG, url, app.tokens.component, authority)
    kubeconfig.write(data / ADMIN_KUBECONFIG, url, app.tokens.admin, authority)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        loop="none",
        ssl_certfile=str(tls.certificate),
        ssl_keyfile=str(tls.key),
        lifespan="off",
        access_log=False,
        server_header=False,
        date_header=True,
        log_config=None,
        backlog=1024,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        app.watching.close()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for this
        await asyncio.sleep(0.005)
    if not task.done():
        ready(bound)
    await task
    await app.subresources.relay.close()
    await app.store.close()
