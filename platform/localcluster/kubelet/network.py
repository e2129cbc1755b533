"""Pod addresses: every pod has one in 127.0.0.0/8, so that all may use the same port.

Several kubelets may share a machine. Each claims a block of 4,096 addresses by an abstract Unix socket, which the
kernel frees when its last holder dies; shims inherit it, so that a block stays claimed while a pod lives in it.
"""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

_FIRST = 16  # 127.0.0.0 to 127.0.255.255 is left to the machine (127.0.0.1, 127.0.0.53, 127.0.1.1)
_BLOCKS = 256 * 16
_SIZE = 4096


class Addresses:
    """Gives out addresses of one claimed block."""

    def __init__(self, data: Path) -> None:
        self._file = data / "network.json"
        self._used: set[int] = set()
        self._next = 1
        self.block, self._claim = self._acquire()

    def _acquire(self) -> tuple[int, socket.socket | None]:
        try:
            before = json.loads(self._file.read_text())["block"]
        except (OSError, ValueError, KeyError):
            before = None
        if before is not None:
            # Held by our own pods of an earlier run, or by us again.
            return before, _claim(before)
        order = list(range(_FIRST, _BLOCKS))
        random.shuffle(order)
        for block in order:
            claim = _claim(block)
            if claim is not None:
                self._file.write_text(json.dumps({"block": block}))
                return block, claim
        raise RuntimeError("all pod address blocks in 127.0.0.0/8 are claimed: stop some embedded clusters")

    @property
    def claim(self) -> int | None:
        """The descriptor that holds the block, for shims to inherit."""
        if self._claim is None:
            self._claim = _claim(self.block)
        return self._claim.fileno() if self._claim else None

    def allocate(self, wanted: str | None = None) -> str:
        """A free address, or `wanted` again."""
        if wanted:
            number = self._number(wanted)
            if number is not None:
                self._used.add(number)
                return wanted
        for step in range(_SIZE - 2):
            number = 1 + (self._next - 1 + step) % (_SIZE - 2)
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return self._address(number)
        raise RuntimeError(f"all {_SIZE - 2} pod addresses of this node are in use: delete some pods")

    def release(self, address: str) -> None:
        number = self._number(address)
        if number is not None:
            self._used.discard(number)

    def close(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _address(self, number: int) -> str:
        value = self.block * _SIZE + number
        return f"127.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"

    def _number(self, address: str) -> int | None:
        _, a, b, c = map(int, address.split("."))
        number = (a << 16 | b << 8 | c) - self.block * _SIZE
        return number if 0 < number < _SIZE else None


def _claim(block: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0localcluster-pods-{block}")
    except OSError:
        claim.close()
        return None
    return claim
