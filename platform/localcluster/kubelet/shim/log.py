"""The container's log on disk. Standard library only."""

from __future__ import annotations

import os
import time

_LINE = 16384  # longer lines are stored in parts, as containerd does


class Log:
    """The container's log in the CRI format: `TIME STREAM P|F TEXT`, rotated by size."""

    def __init__(self, path: str, limit: int, keep: int) -> None:
        self.path = path
        self.limit = limit
        self.keep = keep
        self.rest = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.descriptor).st_size

    def feed(self, stream: str, data: bytes) -> None:
        """Store what the container wrote; an unfinished line waits for its end."""
        *lines, rest = (self.rest[stream] + data).split(b"\n")
        out = []
        stamp = self._stamp()
        for line in lines:
            while len(line) > _LINE:
                out.append(b"%s %s P %s\n" % (stamp, stream.encode(), line[:_LINE]))
                line = line[_LINE:]
            out.append(b"%s %s F %s\n" % (stamp, stream.encode(), line))
        while len(rest) >= _LINE:
            out.append(b"%s %s P %s\n" % (stamp, stream.encode(), rest[:_LINE]))
            rest = rest[_LINE:]
        self.rest[stream] = rest
        self._write(b"".join(out))

    def finish(self) -> None:
        for stream, rest in self.rest.items():
            if rest:
                self._write(b"%s %s P %s\n" % (self._stamp(), stream.encode(), rest))
        os.close(self.descriptor)

    def _stamp(self) -> bytes:
        nanoseconds = time.time_ns()
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 1_000_000_000))
        return b"%s.%09dZ" % (seconds.encode(), nanoseconds % 1_000_000_000)

    def _write(self, data: bytes) -> None:
        if not data:
            return
        if self.size and self.size + len(data) > self.limit:
            self._rotate()
        view = memoryview(data)
        try:
            while view:
                written = os.write(self.descriptor, view)
                self.size += written
                view = view[written:]
        except OSError:
            return  # a full disk costs log lines, not the container

    def _rotate(self) -> None:
        os.close(self.descriptor)
        for number in range(self.keep - 1, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            if os.path.exists(older):
                os.replace(older, f"{self.path}.{number}")
        self._open()
