"""The listening socket and the kubeconfigs, made before anything slow is loaded.

Clients may connect as soon as this is done: the kernel keeps them waiting until the server answers.
"""

from __future__ import annotations

import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from localcluster import kubeconfig
from localcluster.apiserver import certificates
from localcluster.apiserver.auth import Tokens
from localcluster.apiserver.certificates import Certificates

HOST = "127.0.0.1"
COMPONENT_KUBECONFIG = "component.kubeconfig"
ADMIN_KUBECONFIG = "admin.kubeconfig"
_PORT_FILE = "port"
_DESCRIPTORS = 65536


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server will answer, and with what it proves itself."""

    data: Path
    listener: socket.socket
    port: int
    tls: Certificates
    tokens: Tokens


def _listen(port: int, data: Path) -> socket.socket:
    """A listening socket on loopback. Port 0 means the port of the last start if free, else any."""
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
            continue
        listener.listen(1024)
        remembered.write_text(str(listener.getsockname()[1]))
        return listener
    raise OSError(f"port {port} on {HOST} is taken; choose another --port, or 0 for any free one")


def allow_many_connections() -> None:
    """Take as many file descriptors as the system permits; a thousand, the usual limit, is few for a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def prepare(data: Path, port: int) -> Place:
    """Bind the port, make what is missing of tokens and certificates, and write the kubeconfigs."""
    allow_many_connections()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = _listen(port, data)
    bound: int = listener.getsockname()[1]
    tokens, tls = Tokens(data), certificates.ensure(data, HOST)
    url, authority = f"https://{HOST}:{bound}", tls.authority.read_bytes()
    kubeconfig.write(data / COMPONENT_KUBECONFIG, url, tokens.component, authority)
    kubeconfig.write(data / ADMIN_KUBECONFIG, url, tokens.admin, authority)
    return Place(data, listener, bound, tls, tokens)
