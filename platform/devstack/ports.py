"""Finding TCP ports on this machine."""

import socket


class PortBusyError(RuntimeError):
    """The port that was asked for is taken by another program."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on right now, chosen by the kernel."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``host:port`` now; connections left in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def keep_or_choose(port: int | None, host: str = "127.0.0.1") -> int:
    """``port`` while it is free, else another: addresses stay the same from start to start."""
    if port and is_free(port, host):
        return port
    return free_port(host)
