"""Put on PYTHONPATH of every container: a Python server that binds "all addresses" gets the pod's own.

All pods of a machine share its loopback network; each has an address of its own in 127.0.0.0/8. Narrowing wildcard
binds keeps two pods with the same port out of each other's way, as separate network namespaces would.
Works with any Python 3; runs the next sitecustomize, if any.
"""

import os
import sys


def _narrow(socket, address):
    plain_bind = socket.socket.bind

    def bind(self, target):
        if isinstance(target, tuple) and len(target) >= 2 and target[0] in ("", "0.0.0.0", "::"):  # noqa: S104
            if self.family == socket.AF_INET:
                target = (address, *target[1:])
            elif self.family == getattr(socket, "AF_INET6", None):
                # Dual-stack sockets take the IPv4 address; there is no IPv6 network to serve.
                if self.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                    target = ("::1", 0)
                else:
                    target = ("::ffff:" + address, *target[1:])
        return plain_bind(self, target)

    socket.socket.bind = bind


class _SocketFinder:
    """Patches `socket` when it is first imported, so that programs without network start as fast as ever."""

    def __init__(self, address):
        self.address = address

    def find_spec(self, name, path=None, target=None):
        if name != "socket":
            return None
        sys.meta_path.remove(self)
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module
        address = self.address

        def exec_module(module):
            execute(module)
            _narrow(module, address)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _install():
    address = os.environ.get("POD_IP") or os.environ.get("LOCALCLUSTER_POD_IP")
    if not address:
        return
    if "socket" in sys.modules:
        _narrow(sys.modules["socket"], address)
    else:
        sys.meta_path.insert(0, _SocketFinder(address))


def _chain():
    here = os.path.dirname(os.path.abspath(__file__))
    kept = sys.path[:]
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    own = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        if own is not None:
            sys.modules["sitecustomize"] = own
    finally:
        sys.path[:] = kept


_install()
_chain()
