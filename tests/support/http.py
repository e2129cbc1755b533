"""Small HTTP servers that stand for what the platform talks to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class QuietHandler(BaseHTTPRequestHandler):
    """Answers in one piece and logs nothing; what is not told to answer a method answers it with 405."""

    def get(self) -> None:
        """A GET."""
        self.answer(405, b"")

    def post(self) -> None:
        """A POST; its body is yet to be read."""
        self.answer(405, b"")

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send everything; ``Content_Type`` is the header ``Content-Type``."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """On a free port of the loopback."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serves until the block ends."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


@contextmanager
def telling(tell: Callable[[], str]) -> Iterator[str]:
    """A server of metrics in Prometheus' text format, at ``/metrics`` only; gives host and port."""

    class Handler(QuietHandler):
        def get(self) -> None:
            found = self.path == "/metrics"
            self.answer(
                200 if found else 404, tell().encode() if found else b"", Content_Type="text/plain; version=0.0.4"
            )

    with Server(Handler).running() as server:
        yield server.address
