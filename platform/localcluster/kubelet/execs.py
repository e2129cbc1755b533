"""Commands inside containers over a websocket (subprotocols v4 and v5.channel.k8s.io).

Every message starts with a channel byte: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size,
255 (v5) closes a channel. Source: kubernetes pkg/util/flushwriter, apimachinery remotecommand constants.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket as sockets
import struct
import termios
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from localcluster.client import Object
from localcluster.kubelet.containers import Container
from localcluster.kubelet.processes import StartError, stream_of

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 32768


@dataclass(slots=True)
class _Pipes:
    """Our ends of the command's streams and the ends the command gets.

    With a terminal the command gets a socket, over which the terminal that is opened in the container comes back.
    """

    stdin: int | None
    outputs: dict[int, int]
    given: tuple[int, int, int]
    wants_stdin: bool = False
    incoming: sockets.socket | None = None
    terminal: int | None = None

    def close_given(self) -> None:
        for descriptor in set(self.given):
            os.close(descriptor)

    async def receive_terminal(self) -> None:
        """Take in the terminal; there is none when the command could not be started."""
        if self.incoming is None:
            return
        with self.incoming as channel:
            self.terminal = await _receive(channel)
            self.incoming = None
        if self.terminal is not None:
            self.stdin = os.dup(self.terminal) if self.wants_stdin else None
            self.outputs = {_STDOUT: os.dup(self.terminal)}


async def _receive(channel: sockets.socket) -> int | None:
    """The descriptor that is sent over a socket, None when the other end closes instead."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    channel.setblocking(False)
    loop.add_reader(channel, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(channel)
    _, descriptors, _, _ = sockets.recv_fds(channel, 16, 1)
    return descriptors[0] if descriptors else None


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("true", "1")


def _pipes(stdin: bool, stderr: bool, tty: bool) -> _Pipes:
    if tty:
        ours, theirs = sockets.socketpair()
        given = theirs.detach()
        return _Pipes(None, {}, (given, given, given), stdin, ours)
    out_reader, out_writer = os.pipe()
    err_reader, err_writer = os.pipe()
    outputs = {_STDOUT: out_reader}
    if stderr:
        outputs[_STDERR] = err_reader
    else:
        os.close(err_reader)
        os.close(err_writer)
        err_writer = os.open(os.devnull, os.O_WRONLY)
    if stdin:
        in_reader, in_writer = os.pipe()
        return _Pipes(in_writer, outputs, (in_reader, out_writer, err_writer))
    return _Pipes(None, outputs, (os.open(os.devnull, os.O_RDONLY), out_writer, err_writer))


def failure(code: int) -> Object:
    """The Status of a command that ended with a non-zero code."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def serve_exec(request: web.Request, container: Container) -> web.StreamResponse:
    """Run `command` in the container and carry its streams."""
    argv = request.query.getall("command", [])
    if not argv:
        raise web.HTTPBadRequest(text="you must specify at least 1 command for the container")
    running = container.shim is not None
    socket = web.WebSocketResponse(protocols=_PROTOCOLS, heartbeat=30.0, max_msg_size=2**20)
    await socket.prepare(request)
    if not running:
        # Told inside the stream: a refused handshake makes clients try another protocol and hide the reason.
        await _finish(socket, _internal(f'unable to upgrade connection: container not found ("{container.name}")'))
        return socket
    tty = _flag(request, "tty")
    pipes = _pipes(_flag(request, "stdin"), _flag(request, "stderr") and not tty, tty)
    try:
        answers = container.execute(argv, pipes.given, tty)
    except StartError as error:
        _close(pipes)
        for descriptor in pipes.outputs.values():
            os.close(descriptor)
        await _finish(socket, _internal(str(error)))
        return socket
    finally:
        pipes.close_given()
    await pipes.receive_terminal()
    await socket.send_bytes(bytes([_STDOUT]))
    outputs = [
        asyncio.ensure_future(_copy(socket, channel, stream_of(descriptor)))
        for channel, descriptor in pipes.outputs.items()
    ]
    first = json.loads(await answers.readline() or b'{"error": "the container runtime did not answer"}')
    feeding = asyncio.ensure_future(_feed(socket, pipes, first.get("pid")))
    try:
        if "error" in first:
            status = _internal(
                "error executing command in container: failed to exec in container: failed to start exec: "
                f"OCI runtime exec failed: exec failed: unable to start container process: {first['error']}"
            )
        else:
            last = json.loads(await answers.readline() or b'{"exitCode": 137}')
            code = last["exitCode"]
            status = failure(code) if code else {"metadata": {}, "status": "Success"}
        if outputs:
            await asyncio.wait(outputs, timeout=2.0)  # background children may keep the pipes open
        await _finish(socket, status)
    finally:
        feeding.cancel()
        for task in outputs:
            task.cancel()
        await asyncio.gather(feeding, *outputs, return_exceptions=True)
        _close(pipes)
    return socket


def _internal(text: str) -> Object:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {text}",
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    }


async def _finish(socket: web.WebSocketResponse, status: Object) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        await socket.send_bytes(bytes([_STATUS]) + json.dumps(status).encode())
        await socket.close(code=1000)


async def _copy(socket: web.WebSocketResponse, channel: int, stream: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        while data := await stream.read(_CHUNK):
            await socket.send_bytes(bytes([channel]) + data)


async def _feed(socket: web.WebSocketResponse, pipes: _Pipes, pid: int | None) -> None:
    """Carry what the client sends; when it goes away the command is ended."""
    loop = asyncio.get_running_loop()
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STDIN and pipes.stdin is not None:
            await loop.run_in_executor(None, _write_all, pipes.stdin, data)
        elif channel == _RESIZE and pipes.terminal is not None:
            _resize(pipes.terminal, data)
        elif channel == _CLOSE and data[:1] == bytes([_STDIN]) and pipes.stdin is not None and pipes.terminal is None:
            os.close(pipes.stdin)
            pipes.stdin = None
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    with contextlib.suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]


def _resize(terminal: int, data: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError, OSError):
        size = json.loads(data)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size["Height"], size["Width"], 0, 0))


def _close(pipes: _Pipes) -> None:
    if pipes.incoming is not None:
        pipes.incoming.close()
    for descriptor in (pipes.stdin, pipes.terminal):
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)
