"""One small process per container: it keeps the log and the exit code while the kubelet comes and goes.

The kubelet starts one server that forks a shim per request, which costs a millisecond where a new interpreter
costs fifty. A request is one message of the socket with four file descriptors: the configuration (JSON, in memory,
as it may hold secrets), the container's lock file, a reply pipe and the network claim. The shim holds the
lock for as long as it lives, so a held lock means a live container, whatever became of the kubelet.

Files in the container's directory: `state.json` (pid, start time) once running, `exit.json` at the end, `log`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
import time
import traceback
from typing import Any

from . import kernel, sandbox
from .log import Log
from .tree import kill_tree, start_time, tree_memory

_CHUNK = 65536
_POLL = 0.25  # seconds between looks at memory where no cgroup limits it


def write_json(path: str, content: Any) -> None:
    """Write a file that is there whole or not at all."""
    temporary = f"{path}.new"
    with open(temporary, "w") as stream:
        json.dump(content, stream)
    os.replace(temporary, path)


def run_shim(config: dict[str, Any], reply: int) -> None:
    """Start the container, keep its log, write down how it ended."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.set_child_subreaper()
    directory = config["directory"]
    log = Log(f"{directory}/log", config["log_limit"], config["log_files"])
    if config["isolation"] == "user":
        sandbox.enter_user_namespace()
    if config["isolation"] != "none":
        kernel.unshare(kernel.CLONE_NEWPID)
    readers = {name: os.pipe() for name in ("stdout", "stderr", "error")}
    begun = time.time()
    pid = os.fork()
    if pid == 0:
        _run_child(config, readers)
    for _, writer in readers.values():
        os.close(writer)
    failure = _read_all(readers["error"][0])
    if failure:
        os.waitpid(pid, 0)
        write_json(
            f"{directory}/exit.json",
            {
                "exitCode": 128,
                "startError": failure.decode("utf-8", "replace"),
                "startedAt": 0,
                "finishedAt": time.time(),
            },
        )
        _reply(reply, {"error": failure.decode("utf-8", "replace"), "shim": os.getpid()})
        return
    state = {"pid": pid, "start": start_time(pid), "startedAt": begun, "shim": os.getpid()}
    write_json(f"{directory}/state.json", state)
    _reply(reply, state)
    status, killed = _follow(config, pid, readers, log)
    log.finish()
    code = os.waitstatus_to_exitcode(status)
    write_json(
        f"{directory}/exit.json",
        {
            "exitCode": code if code >= 0 else 128 - code,
            "signal": -code if code < 0 else 0,
            "oom": killed or _oom_kills(config) > config.get("oom_before", 0),
            "startedAt": begun,
            "finishedAt": time.time(),
        },
    )


def _run_child(config: dict[str, Any], pipes: dict[str, tuple[int, int]]) -> None:
    """In the forked child; never returns."""
    error = pipes["error"][1]
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(pipes["stdout"][1], 1)
        os.dup2(pipes["stderr"][1], 2)
        if error != 3:
            os.dup2(error, 3, inheritable=False)
            error = 3
        os.closerange(4, 65536)
        os.umask(0o022)
        sandbox.join_cgroups(config.get("cgroups") or [])
        if config["isolation"] != "none":
            sandbox.build_root(config)
        sandbox.become(config)
        sandbox.execute(config)
    except BaseException as failure:
        text = failure.strerror if isinstance(failure, OSError) and failure.strerror else repr(failure)
        if not isinstance(failure, OSError):
            text = "".join(traceback.format_exception(failure))[-2000:]
        os.write(error, text.encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _follow(config: dict[str, Any], pid: int, pipes: dict[str, tuple[int, int]], log: Log) -> tuple[int, bool]:
    """Copy output to the log until the main process has ended; (wait status, killed for its memory)."""
    poller = select.poll()
    names = {}
    for name in ("stdout", "stderr"):
        reader = pipes[name][0]
        os.set_blocking(reader, False)
        names[reader] = name
        poller.register(reader, select.POLLIN)
    process = os.pidfd_open(pid)
    poller.register(process, select.POLLIN)
    limit = config.get("memory_poll") or 0
    killed = False
    while True:
        ready = poller.poll(_POLL * 1000 if limit else None)
        for descriptor, _ in ready:
            if descriptor in names and not _drain(descriptor, names[descriptor], log):
                poller.unregister(descriptor)
                del names[descriptor]
        if any(descriptor == process for descriptor, _ in ready):
            break
        if limit and tree_memory(os.getpid()) > limit:
            killed = True
            kill_tree(os.getpid())
    kill_tree(os.getpid())
    _, status = os.waitpid(pid, 0)
    for descriptor, name in names.items():
        while _drain(descriptor, name, log) and _more(descriptor):
            pass
    return status, killed


def _more(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def _drain(descriptor: int, name: str, log: Log) -> bool:
    """One read; False at the end of the stream."""
    try:
        data = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return True
    log.feed(name, data)
    return bool(data)


def _oom_kills(config: dict[str, Any]) -> int:
    path = config.get("oom_file")
    if not path:
        return 0
    try:
        with open(path) as stream:
            for line in stream:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    except OSError:
        return 0
    return 0


def _read_all(descriptor: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, 65536):
        data += chunk
    os.close(descriptor)
    return data


def _reply(descriptor: int, content: Any) -> None:
    try:
        os.write(descriptor, json.dumps(content).encode())
        os.close(descriptor)
    except OSError:
        return  # the kubelet is gone; state.json tells the next one


_NAMESPACES = (("pid", kernel.CLONE_NEWPID), ("ipc", kernel.CLONE_NEWIPC), ("uts", kernel.CLONE_NEWUTS))


def run_exec(config: dict[str, Any], descriptors: list[int]) -> None:
    """Run a command inside a running container: config, stdin, stdout, stderr and reply are the descriptors.

    With a terminal the three are one socket, over which our end of the terminal is sent; the command's end is opened
    where the command runs, so that it has a name there. The reply is two JSON lines: the command's pid or an error,
    then its exit code.
    """
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, stdin, stdout, stderr, reply = descriptors
    sandbox.join_cgroups(config.get("cgroups") or [])
    target = config["pid"]
    if config["isolation"] != "none":
        kinds = [(f"/proc/{target}/ns/{name}", flag) for name, flag in (*_NAMESPACES, ("mnt", kernel.CLONE_NEWNS))]
        opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag) for path, flag in kinds]
        if config["isolation"] == "user":
            kernel.setns(os.open(f"/proc/{target}/ns/user", os.O_RDONLY | os.O_CLOEXEC), kernel.CLONE_NEWUSER)
        for descriptor, flag in opened:
            kernel.setns(descriptor, flag)
    if config.get("tty"):
        try:
            terminal = _open_terminal(config, stdin)
        except OSError as refusal:
            _reply(reply, {"error": f"open /dev/ptmx: {(refusal.strerror or '').lower()}"})
            return
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
        stdin, stdout, stderr = terminal, os.dup(terminal), os.dup(terminal)
    error, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run_exec_child(config, (stdin, stdout, stderr), writer)
    for descriptor in (writer, stdin, stdout, stderr):
        os.close(descriptor)
    failure = _read_all(error)
    first = {"error": failure.decode("utf-8", "replace")} if failure else {"pid": pid}
    with os.fdopen(reply, "wb", buffering=0) as stream:
        stream.write(json.dumps(first).encode() + b"\n")
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        stream.write(json.dumps({"exitCode": code if code >= 0 else 128 - code}).encode() + b"\n")


def _open_terminal(config: dict[str, Any], channel: int) -> int:
    """A new terminal: its master goes to whoever holds the other end of the socket `channel`, its slave is returned."""
    master, slave = os.openpty()
    os.fchown(slave, config["uid"], -1)
    with socket.socket(fileno=os.dup(channel)) as sender:
        socket.send_fds(sender, [b"terminal"], [master])
    os.close(master)
    return slave


def _run_exec_child(config: dict[str, Any], streams: tuple[int, int, int], error: int) -> None:
    """In the forked child; never returns."""
    try:
        os.setsid()
        copies = [os.dup(stream) for stream in streams]
        for number, copy in enumerate(copies):
            os.dup2(copy, number)
        keep = os.dup(error)
        os.dup2(keep, 3, inheritable=False)
        error = 3
        os.closerange(4, 65536)
        if config.get("tty"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.umask(0o022)
        sandbox.become(config)
        sandbox.execute(config)
    except BaseException as failure:
        text = failure.strerror if isinstance(failure, OSError) and failure.strerror else repr(failure)
        os.write(error, text.encode("utf-8", "replace"))
    finally:
        os._exit(126)


def serve(control: socket.socket) -> None:
    """Fork a shim or a command for every request until the kubelet closes the socket."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 16, 8)
        except InterruptedError:
            continue
        if not message:
            return
        if os.fork() == 0:
            control.close()
            code = 1
            try:
                config = json.loads(_read_all(descriptors[0]))
                if message == b"exec":
                    run_exec(config, descriptors)
                else:
                    run_shim(config, descriptors[2])
                code = 0
            except BaseException:
                text = traceback.format_exc()[-2000:]
                _reply(descriptors[4 if message == b"exec" else 2], {"error": f"the container runtime failed: {text}"})
            finally:
                os._exit(code)
        for descriptor in descriptors:
            os.close(descriptor)


def main() -> None:
    """Entry point: the last argument is the descriptor of the control socket."""
    serve(socket.socket(fileno=int(sys.argv[-1])))
