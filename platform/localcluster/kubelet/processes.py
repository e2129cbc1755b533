"""Starting, finding again and signalling containers: the kubelet's side of the shim."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from localcluster.kubelet.shim.tree import start_time

_HERE = Path(__file__).parent
_HALF_WAY_LOOKS = 500  # looks, 20 ms apart, at a container that is being started
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from shim.server import main; main()"


class StartError(Exception):
    """A container's program could not be executed; the text is what the container runtime says."""


class ShimServer:
    """The process that forks shims; started at first use and again when it is found dead."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # The server gets no environment of ours: what a container has is what its pod declares.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(_HERE), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # None of our streams either: shims outlive us, and whoever waits for our end waits for theirs to close.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        self._control = ours

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    async def run(self, config: dict[str, Any], claim: int | None = None) -> Shim:
        """Start a container in `config["directory"]`; StartError when its program cannot be executed.

        `claim` is a descriptor that stays open as long as the container lives.
        """
        self.start()
        directory = Path(config["directory"])
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        reader, writer = os.pipe()
        try:
            # Held by us before there is a shim and by the shim afterwards: never free while a start is under way.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._send(b"run", config, [lock, writer, claim if claim is not None else lock])
        finally:
            os.close(lock)
            os.close(writer)
        answer = await _read_pipe(reader)
        if not answer:
            raise StartError("the shim ended before the container was started")
        reply = json.loads(answer)
        if "error" in reply:
            raise StartError(reply["error"])
        return Shim(directory, reply)

    def _send(self, message: bytes, config: dict[str, Any], descriptors: list[int]) -> None:
        """One request; the configuration travels in memory, as it holds the container's secrets."""
        if self._control is None:
            raise StartError("the shim server is not running")
        content = os.memfd_create("config")
        try:
            os.write(content, json.dumps(config).encode())
            os.lseek(content, 0, os.SEEK_SET)
            socket.send_fds(self._control, [message], [content, *descriptors])
        except OSError as error:
            raise StartError(f"the shim server does not answer: {error}") from error
        finally:
            os.close(content)

    def execute(self, config: dict[str, Any], stdin: int, stdout: int, stderr: int) -> asyncio.StreamReader:
        """Run a command in a container; the reader gives its pid (or error) and exit code as JSON lines.

        The three descriptors stay the caller's to close.
        """
        self.start()
        reader, writer = os.pipe()
        try:
            self._send(b"exec", config, [stdin, stdout, stderr, writer])
        except StartError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return stream_of(reader)


def stream_of(descriptor: int) -> asyncio.StreamReader:
    """A stream of what a pipe (or pty) gives; takes the descriptor over."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit=2**20)
    os.set_blocking(descriptor, False)

    def on_ready() -> None:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a pty whose other side is closed fails with EIO instead of ending
        if data:
            stream.feed_data(data)
            return
        loop.remove_reader(descriptor)
        os.close(descriptor)
        stream.feed_eof()

    loop.add_reader(descriptor, on_ready)
    return stream


async def _read_pipe(reader: int) -> bytes:
    """Everything until the other end closes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    data = bytearray()
    os.set_blocking(reader, False)

    def on_ready() -> None:
        try:
            chunk = os.read(reader, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            if not done.done():
                done.set_exception(error)
            return
        data.extend(chunk)
        if not chunk and not done.done():
            done.set_result(bytes(data))

    loop.add_reader(reader, on_ready)
    try:
        return await done
    finally:
        loop.remove_reader(reader)
        os.close(reader)


class Shim:
    """A running container: its main process and the shim that waits for it."""

    def __init__(self, directory: Path, state: dict[str, Any]) -> None:
        self.directory = directory
        self.pid: int = state["pid"]
        self.start: int = state["start"]
        self.shim: int = state["shim"]
        self.started_at: float = state["startedAt"]

    @classmethod
    async def find(cls, directory: Path) -> Shim | None:
        """The live container of a directory, None when it has ended or never ran.

        Waits for a start that another kubelet left half-way: a lock that is held means a shim that will soon say
        what it has started.
        """
        for _ in range(_HALF_WAY_LOOKS):
            if not is_locked(directory):
                return None
            with contextlib.suppress(OSError, ValueError):
                return cls(directory, json.loads((directory / "state.json").read_text()))
            await asyncio.sleep(0.02)
        return None

    def is_alive(self) -> bool:
        try:
            return start_time(self.pid) == self.start
        except (OSError, ValueError, IndexError):
            return False

    def signal(self, number: int) -> None:
        """Send a signal to the main process; SIGKILL takes everything in its namespace along."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    async def wait(self) -> dict[str, Any]:
        """How the container ended: the content of exit.json."""
        await process_end(self.shim)
        outcome = read_exit(self.directory)
        if outcome is not None:
            return outcome
        # The shim was killed: its death takes the container along, and nobody saw the exit code.
        self.kill()
        return unknown_exit(self.started_at)


def unknown_exit(started_at: float = 0.0) -> dict[str, Any]:
    return {"exitCode": 137, "signal": 9, "oom": False, "unknown": True, "startedAt": started_at, "finishedAt": 0}


def read_exit(directory: Path) -> dict[str, Any] | None:
    try:
        return json.loads((directory / "exit.json").read_text())
    except (OSError, ValueError):
        return None


def is_locked(directory: Path) -> bool:
    """Whether a shim holds the directory's lock."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


async def process_end(pid: int) -> None:
    """Wait until a process (any, not only a child) is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def on_ready() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, on_ready)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
