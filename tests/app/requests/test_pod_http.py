"""The HTTP client for pods against servers that answer byte by byte what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from deployments.services import pod_http
from deployments.services.pod_http import Answer, ConnectionLost, NotConnected, PodConnections

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


class Pod:
    """A server; ``script`` has each connection."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.connections = 0
        self.clients = PodConnections()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self, script: Script) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            try:
                await script(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # the client has closed
            finally:
                writer.close()

        self.server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port: int = self.server.sockets[0].getsockname()[1]

    async def post(self, body: bytes = b"{}", seconds: float = 30, path: str = "/request") -> Answer:
        return await self.clients.post(
            "127.0.0.1", self.port, path, {"X-Request-Id": "7"}, body, connect_seconds=10, seconds=seconds
        )

    async def stop(self) -> None:
        self.clients.close()
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    found = Pod()
    yield found
    await found.stop()


def answering(pod: Pod, *answers: bytes) -> Script:
    """Gives the answers in turn on a connection, then waits for it to end."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            pod.seen.append(await request_of(reader))
            writer.write(answer)
        await reader.read()

    return script


async def test_a_request_and_its_answer(pod: Pod) -> None:
    await pod.start(answering(pod, OK + b"hi"))
    assert await pod.post(b'{"a": 1}') == Answer(200, b"hi")
    head, _, body = pod.seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /request HTTP/1.1"
    assert {f"Host: 127.0.0.1:{pod.port}".encode(), b"Content-Length: 8", b"X-Request-Id: 7"} == set(lines[1:])
    assert body == b'{"a": 1}'


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"hi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"hi",
    ],
    ids=["length", "chunked", "after 100"],
)
async def test_connections_are_kept(pod: Pod, answer: bytes) -> None:
    await pod.start(answering(pod, answer, answer, answer))
    for _ in range(3):
        assert await pod.post() == Answer(200, b"hi")
    assert pod.connections == 1


async def test_an_answer_in_single_bytes(pod: Pod) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for byte in b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    await pod.start(script)
    assert await pod.post() == Answer(500, b"bad")


async def test_large_bodies_both_ways(pod: Pod) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = (await request_of(reader)).partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.read()

    await pod.start(script)
    content = b"x" * 5_000_000
    assert (await pod.post(content)).body == content


async def test_an_answer_may_end_with_its_connection(pod: Pod) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    await pod.start(script)
    assert await pod.post() == Answer(200, b"all of it")
    assert await pod.post() == Answer(200, b"all of it")
    assert pod.connections == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", OK + b"h", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh"],
    ids=["nothing", "half a head", "half a body", "half of the chunks"],
)
async def test_half_an_answer_is_none(pod: Pod, answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)

    await pod.start(script)
    with pytest.raises(ConnectionLost):
        await pod.post()


async def test_what_is_no_http(pod: Pod) -> None:
    await pod.start(answering(pod, b"SSH-2.0-OpenSSH_9.2\r\n"))
    with pytest.raises(ConnectionLost, match="not an HTTP answer"):
        await pod.post()


async def test_a_second_answer_is_never_taken_for_the_next_request_s(pod: Pod) -> None:
    await pod.start(answering(pod, OK + b"hi" + OK + b"no", OK + b"no"))
    assert (await pod.post()).body == b"hi"
    assert (await pod.post()).body == b"hi"
    assert pod.connections == 2


async def test_a_connection_that_is_to_be_closed_is_not_kept(pod: Pod) -> None:
    await pod.start(answering(pod, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", OK + b"no"))
    assert (await pod.post()).body == b"hi"
    assert (await pod.post()).body == b"hi"


async def test_after_a_lost_connection_others_to_that_pod_are_not_tried(pod: Pod) -> None:
    """A server with a short keep-alive closes many at a time; whoever repeats a request needs a fresh one."""
    over = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"hi")
        if not over.is_set():
            await request_of(reader)  # and hangs up over it
        else:
            await reader.read()

    await pod.start(script)
    await asyncio.gather(*(pod.post() for _ in range(5)))
    assert pod.connections == 5
    over.set()
    with pytest.raises(ConnectionLost):
        await pod.post()
    assert (await pod.post()).body == b"hi"
    assert pod.connections == 6


async def test_time_is_up_and_the_late_answer_is_nobody_s(pod: Pod) -> None:
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if asked.is_set():
            writer.write(OK + b"hi")
        asked.set()
        await reader.read()

    await pod.start(script)
    with pytest.raises(TimeoutError):
        await pod.post(seconds=0.2)
    assert (await pod.post()).body == b"hi"
    assert pod.connections == 2


async def test_who_gives_up_leaves_no_connection_behind(pod: Pod) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        begun.set()
        await reader.read()
        ended.set()

    await pod.start(script)
    task = asyncio.create_task(pod.post())
    await asyncio.wait_for(begun.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 30)


async def test_nobody_listens(pod: Pod) -> None:
    await pod.start(answering(pod))
    pod.server.close()
    await pod.server.wait_closed()
    with pytest.raises(NotConnected):
        await pod.post()


async def test_idle_connections_are_closed(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_http, "KEEP_SECONDS", 0.1)
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"hi")
        await reader.read()
        ended.set()

    await pod.start(script)
    await pod.post()
    await asyncio.wait_for(ended.wait(), 30)


async def test_no_header_can_bring_another(pod: Pod) -> None:
    await pod.start(answering(pod))
    with pytest.raises(ValueError, match="line break"):
        await pod.post(path="/request HTTP/1.1\r\nX-More: 1")
