"""A terminal in a container: kubectl exec -it as a person has it, under a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import uuid
from collections.abc import Iterator

import pytest

from localcluster.client import Client
from localcluster.resources import PODS
from tests.contract.conftest import Cluster, Kubectl, new_namespace
from tests.contract.pods import SLEEP, pod, run
from tests.contract.waiting import is_ready, pod_until
from tests.support.stack import eventually

SECONDS = 60.0
# Says what its terminal is, and what becomes of it.
TALKS = """
import os, signal, sys
def say(*words):
    print("<", *words, ">", flush=True)
def size(*_):
    say("size", *os.get_terminal_size(0))
signal.signal(signal.SIGWINCH, size)
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
say("terminal", os.ttyname(0), os.ttyname(1) == os.ttyname(0), os.stat(os.ttyname(0)).st_rdev == os.fstat(0).st_rdev)
say("foreground", os.tcgetpgrp(0) == os.getpgrp(), os.open("/dev/tty", os.O_RDWR) > 2)
size()
for line in sys.stdin:
    say("got", line.strip()[::-1])
say("end of input")
sys.exit(7)
"""
# A program and its child, of whom nobody ends by itself.
LINGERS = "import os, signal; os.fork(); print('lingers', flush=True); signal.pause()"
COUNTS = """
import os, sys
def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read().split(bytes(1))
    except OSError:
        return []
others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
print(sum(sys.argv[1].encode() in command(pid) for pid in others))
"""


class Terminal:
    """kubectl on a terminal of its own, which is its controlling one."""

    def __init__(self, kubectl: Kubectl, *arguments: str, rows: int = 30, columns: int = 100) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            [*kubectl.command, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def shows(self, pattern: str) -> str:
        """Wait until what comes next matches; later calls look behind it."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            try:
                data = os.read(self.master, 65536) if ready else b""
            except OSError:  # the other side is closed
                data = b""
            assert data, f"{pattern!r} is not shown, but {self.seen!r}"
            self.seen += data.decode()
        self.seen = self.seen[found.end() :]
        return found[0]

    def ends(self) -> int:
        """The exit code, what is still written being read."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"kubectl does not end; it shows {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode()
                except OSError:
                    self.process.wait(SECONDS)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self.master)


@pytest.fixture
def opened() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for terminal in terminals:
        terminal.close()


async def test_a_terminal_in_a_container(
    client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl, opened: list[Terminal]
) -> None:
    await client.create(PODS, pod("p", cluster.image, SLEEP), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    terminal = Terminal(kubectl, "exec", "-it", "p", "--", *run(TALKS))
    opened.append(terminal)
    terminal.shows(r"< terminal /dev/pts/\d+ True True >")
    terminal.shows(r"< foreground True True >")
    terminal.shows(r"< size 100 30 >")
    terminal.resize(24, 81)
    terminal.shows(r"< size 81 24 >")
    terminal.type("abc\r")
    terminal.shows("abc")  # the terminal's own echo
    terminal.shows("< got cba >")
    terminal.type("\x03")
    terminal.shows("< interrupted >")
    terminal.type("still there\r")
    terminal.shows("< got ereht llits >")
    terminal.type("\x04")
    terminal.shows("< end of input >")
    assert terminal.ends() == 7


async def test_each_has_a_terminal_of_its_own(
    client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl, opened: list[Terminal]
) -> None:
    await client.create(PODS, pod("p", cluster.image, SLEEP), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    names = []
    for _ in range(2):
        terminal = Terminal(kubectl, "exec", "-it", "p", "--", *run(TALKS))
        opened.append(terminal)
        names.append(terminal.shows(r"/dev/pts/\d+"))
    assert names[0] != names[1]
    for number, terminal in enumerate(opened):
        terminal.type(f"{number}0\r")
        terminal.shows(f"< got 0{number} >")


async def test_without_a_terminal_there_is_none(
    client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl
) -> None:
    await client.create(PODS, pod("p", cluster.image, SLEEP), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    print_it = "import os; print([os.isatty(number) for number in range(3)])"
    assert kubectl("exec", "p", "--", *run(print_it)) == "[False, False, False]\n"
    absent = kubectl.run("exec", "p", "--", *run("open('/dev/tty')"))
    assert "No such device or address" in absent.stderr


async def test_a_hang_up_ends_what_runs_on_the_terminal(
    embedded_client: Client, embedded: Cluster, opened: list[Terminal]
) -> None:
    """Of the embedded cluster only: runtimes differ in what becomes of a command whose client is gone."""
    mark = uuid.uuid4().hex
    async with new_namespace(embedded_client) as namespace:
        kubectl = Kubectl(embedded, namespace)
        await embedded_client.create(PODS, pod("p", embedded.image, SLEEP), namespace)
        await pod_until(embedded_client, namespace, "p", is_ready, "running")
        terminal = Terminal(kubectl, "exec", "-it", "p", "--", *run(LINGERS), mark)
        opened.append(terminal)
        for _ in range(2):
            terminal.shows("lingers")

        def left() -> str:
            return kubectl("exec", "p", "--", *run(COUNTS), mark).strip()

        assert left() == "2"
        terminal.process.send_signal(signal.SIGKILL)
        eventually(lambda: left() == "0", "both have ended")


async def test_a_command_ignores_no_signals_as_those_do_who_start_it(
    embedded_client: Client, embedded: Cluster
) -> None:
    """Python ignores SIGPIPE, nohup SIGHUP; a command that inherited the latter would outlive its terminal."""
    async with new_namespace(embedded_client) as namespace:
        await embedded_client.create(PODS, pod("p", embedded.image, SLEEP), namespace)
        await pod_until(embedded_client, namespace, "p", is_ready, "running")
        state = Kubectl(embedded, namespace)("exec", "p", "--", "cat", "/proc/self/status")
    masks = dict(re.findall(r"^(SigIgn|SigBlk):\s*([0-9a-f]+)$", state, re.MULTILINE))
    # Signals 32 and up are not a program's to set: glibc has posix_spawn ignore one of them for its own use.
    assert {name: int(mask, 16) & 0x7FFFFFFF for name, mask in masks.items()} == {"SigIgn": 0, "SigBlk": 0}
