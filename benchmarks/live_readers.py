"""Those who read live lines or hints, in a process of their own: sockets as browsers have them, and `kubectl logs -f`.

Started by `live_rig.Readers`; takes its task as JSON on the first line of standard input, says ``ready`` when all
sockets are subscribed, and prints what they got as one line of JSON when all writers have ended or a second line
comes. Writers' lines are ``NUMBER NANOSECONDS ...``, the last one ``end NUMBER_OF_LINES``.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import orjson
import psutil
import uvloop

OPENING = 50  # sockets that are opened at a time
DONE_AFTER_END = 3.0  # seconds, for lines that are still on their way


class Log:
    """What one reader got of all writers' lines."""

    def __init__(self, latencies: Counter[int]) -> None:
        self.latencies = latencies  # of all readers alike: whole milliseconds
        self.began = time.time_ns()
        self.first: dict[str, int] = {}
        self.next: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.received = self.repeated = self.skipped = 0
        self.heard = False
        self.newest = 0
        self.disorder = self.latest_by = 0

    def line(self, pod: str, text: str, now: int) -> None:
        number, _, rest = text.partition(" ")
        written = rest.partition(" ")[0]
        if number == "end":
            self.ends[pod] = int(written)
            return
        if not number.isdigit():
            self.heard = self.heard or number == "hello"
            return  # the other lines are of the instance that answers requests
        at, wrote = int(number), int(written)
        if pod not in self.first:
            self.first[pod] = at
        elif at < self.next[pod]:
            self.repeated += 1
            return
        self.next[pod] = at + 1
        self.received += 1
        if wrote < self.newest:
            self.disorder += 1
            self.latest_by = max(self.latest_by, self.newest - wrote)
        else:
            self.newest = wrote
        if wrote > self.began:
            self.latencies[(now - wrote) // 1_000_000] += 1

    def missing(self, ends: dict[str, int]) -> int:
        """Lines between the first one that came and the last one that was written which neither came nor were told."""
        due = sum(ends.get(pod, self.next[pod]) - first for pod, first in self.first.items())
        return due - self.received - self.skipped


def told(logs: list[Log], latencies: Counter[int]) -> dict[str, Any]:
    ends = {pod: end for log in logs for pod, end in log.ends.items()}
    return {
        "received": sum(log.received for log in logs),
        "skipped": sum(log.skipped for log in logs),
        "missing": sum(abs(log.missing(ends)) for log in logs),
        "repeated": sum(log.repeated for log in logs),
        "writers": len(ends),
        "disorder": sum(log.disorder for log in logs),
        "latest_by_ms": max((log.latest_by for log in logs), default=0) / 1e6,
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "worst": max(latencies, default=0),
    }


def percentile(counts: Counter[int], share: float) -> int:
    """Milliseconds that this share of all stayed within."""
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return 0


class Sockets:
    """Browsers' sockets on one topic."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.latencies: Counter[int] = Counter()
        self.logs: list[Log] = []
        self.hints: list[list[int]] = []  # of each socket: when hints came
        self.pages: list[float] = []  # how long the page's own parts took to come after a hint, in seconds
        self.opened = 0
        self.closed = 0

    async def run(self, session: aiohttp.ClientSession) -> None:
        gate = asyncio.Semaphore(OPENING)
        await asyncio.gather(*(self._one(session, gate, number) for number in range(self.task["sockets"])))

    async def _one(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, number: int) -> None:
        async with gate:
            socket = await session.ws_connect(
                self.task["socket"], origin=self.task["origin"], max_msg_size=0, compress=self.task.get("deflate", 0)
            )
            await socket.send_str(json.dumps({"subscribe": [self.task["topic"]]}))
        log, hints = Log(self.latencies), []
        self.logs.append(log)
        self.hints.append(hints)
        self.opened += 1
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            now = time.time_ns()
            body = orjson.loads(message.data)
            if "lines" in body:
                log.skipped += body["skipped"]
                for line in body["lines"]:
                    log.line(line["instance"], line["text"], now)
            elif "changed" in body:
                hints.append(now)
                if number == 0 and self.task.get("page"):
                    await self._page(session)
        self.closed += 1

    async def _page(self, session: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        async with session.get(self.task["page"], headers={"HX-Request": "true"}) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(f"{self.task['page']}: {answer.status}")
        self.pages.append(time.monotonic() - began)


class Deaf:
    """A socket that subscribes and never reads; opened again when the server has given it up."""

    def __init__(self) -> None:
        self.given_up = 0

    async def run(self, task: dict[str, Any]) -> None:
        host, port = task["origin"].removeprefix("http://").split(":")
        head = (
            f"GET /ws/live/ HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {task['origin']}\r\nCookie: {task['cookie']}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        body = json.dumps({"subscribe": [task["topic"]]}).encode()
        frame = bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body
        while True:
            reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
            writer.write(head.encode())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            try:
                # Nothing is read: the kernel's buffers fill, then those of the server.
                while not writer.transport.is_closing():
                    await asyncio.sleep(1)
                    writer.write(bytes([0x8A, 0x80, 0, 0, 0, 0]))  # a pong nobody asked for shows whether it lives
            except OSError:
                pass
            self.given_up += 1


class Kubectl:
    """`kubectl logs -f` of the same pods."""

    def __init__(self) -> None:
        self.latencies: Counter[int] = Counter()
        self.log = Log(self.latencies)
        self.cpu = 0.0

    async def run(self, command: list[str]) -> None:
        self.log.began = time.time_ns()
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
        seen = psutil.Process(process.pid)
        assert process.stdout is not None
        try:
            while raw := await process.stdout.readline():
                text = raw.decode(errors="replace").rstrip("\n")
                pod = ""
                if text.startswith("[pod/"):
                    pod, _, text = text[5:].partition("] ")
                self.log.line(pod, text, time.time_ns())
                if self.log.received % 200 == 0:
                    times = seen.cpu_times()
                    self.cpu = times.user + times.system
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def main() -> None:
    loop = asyncio.get_running_loop()
    inputs = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(inputs), sys.stdin)
    task = json.loads(await inputs.readline())
    sockets, kubectl, deaf = Sockets(task), Kubectl(), Deaf()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Cookie": task["cookie"]}) as session:
        running = [asyncio.create_task(sockets.run(session))]
        if task.get("deaf"):
            running.append(asyncio.create_task(deaf.run(task)))
        while sockets.opened < task["sockets"]:
            for one in running:
                if one.done():
                    one.result()
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        stop = asyncio.create_task(inputs.readline())
        while not stop.done():
            await asyncio.sleep(0.1)
            for one in running:
                if one.done():
                    one.result()
            if task.get("kubectl") and len(running) < 3 and any(log.heard for log in sockets.logs):
                running.append(asyncio.create_task(kubectl.run(task["kubectl"])))
            if task.get("writers") and all(len(log.ends) >= task["writers"] for log in sockets.logs):
                await asyncio.sleep(DONE_AFTER_END)
                break
        answer = {
            **told(sockets.logs, sockets.latencies),
            "closed": sockets.closed,
            "given_up": deaf.given_up,
            "hints": sockets.hints,
            "pages": sockets.pages,
            "kubectl": {**told([kubectl.log], kubectl.latencies), "cpu": kubectl.cpu},
        }
        for one in [*running, stop]:
            one.cancel()
        await asyncio.gather(*running, stop, return_exceptions=True)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
