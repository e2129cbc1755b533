"""``python -m pilothouse_serving``: serve the package in ``$PILOTHOUSE_PACKAGE_DIR``."""

from __future__ import annotations

import os
import socket
import sys

from .metrics import SharedMetrics
from .process import serve
from .settings import Settings, SettingsError, from_environ
from .supervisor import supervise


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    try:
        settings = from_environ(os.environ)
        listener = bind(settings)
    except (SettingsError, OSError) as error:
        print(f"The server cannot start: {error}", file=sys.stderr, flush=True)
        return 1
    shared = SharedMetrics(settings.processes)
    if settings.processes == 1:
        return serve(settings, listener, shared, 0)
    return supervise(settings, listener, shared)


def bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(f"{settings.host} port {settings.port}: {error.strerror}") from None
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    sys.exit(main())
