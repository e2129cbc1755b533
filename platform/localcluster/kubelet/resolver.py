"""Names of hosts, looked up in threads that nothing waits for: a name server that is silent holds up no end."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """What the machine's own resolver says, IPv4 first.

    The event loop's executor would not do: its threads are joined when a process ends, and `getaddrinfo` cannot be
    interrupted.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`; OSError (gaierror) when it has none. Nobody is asked about .invalid (RFC 6761)."""
        if host.rstrip(".").lower().endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def tell(found: list[Any] | None, error: OSError | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found or [])

        def look() -> None:
            found, failure = None, None
            try:
                found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except OSError as error:
                failure = error
            except UnicodeError:
                failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            try:
                loop.call_soon_threadsafe(tell, found, failure)
            except RuntimeError:
                return  # the loop has been closed meanwhile

        threading.Thread(target=look, name=f"resolve {host}", daemon=True).start()
        found = await answer
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        return [
            ResolveResult(
                hostname=host,
                host=entry[4][0],
                port=entry[4][1],
                family=entry[0],
                proto=entry[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for entry in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""
