"""Starting and stopping the API server: `serve` for a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

import uvicorn

from localcluster.apiserver import bootstrap, published, schema
from localcluster.apiserver.app import Application
from localcluster.apiserver.bounded import BoundedProtocol
from localcluster.apiserver.listening import Place
from localcluster.apiserver.objects import Objects
from localcluster.apiserver.registry import KINDS
from localcluster.apiserver.relay import Relay
from localcluster.apiserver.store import Store, Table
from localcluster.apiserver.subresources import Subresources

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn, with signals left to us."""

    def install_signal_handlers(self) -> None:
        return

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def build(place: Place, node_token: str, on_failure: Callable[[BaseException], None]) -> Application:
    """The application over the store in the data folder. Must be called inside a running event loop."""
    tables = [Table(kind.resource, kind.field_values) for kind in KINDS]
    store = Store(str(place.data / "store.db"), tables, on_failure)
    objects = Objects(store)
    bootstrap.ensure(objects, place.port)
    for kind in KINDS:
        schema.compile_whole(kind.type)
    schema.compile_whole(schema.named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"))
    for group, name in (("", "Binding"), ("autoscaling", "Scale"), ("policy", "Eviction")):
        schema.compile_whole(schema.of_kind(group, "v1", name))
    published.forget()
    relay = Relay(objects, node_token)
    return Application(store, objects, place.tokens, Subresources(objects, place.tokens, relay))


async def serve(place: Place, node_token: str, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the port when requests are answered."""

    def fail(error: BaseException) -> None:
        log.critical("the store in %s cannot be written: %s; free disk space and start again", place.data, error)
        os._exit(70)

    app = build(place, node_token, fail)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="websockets-sansio",
        loop="none",
        ssl_certfile=str(place.tls.certificate),
        ssl_keyfile=str(place.tls.key),
        lifespan="off",
        access_log=False,
        server_header=False,
        date_header=True,
        log_config=None,
        backlog=1024,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        app.watching.close()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    task = asyncio.create_task(server.serve(sockets=[place.listener]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for this
        await asyncio.sleep(0.005)
    if not task.done():
        ready(place.port)
        # Loaded while idle, so that the first log or proxied request does not wait for it.
        await asyncio.to_thread(app.subresources.relay.warm_up)
    await task
    await app.subresources.relay.close()
    await app.store.close()
