"""Bringing packages into a pod, over connections that break."""

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.archive import ArchiveError
from serving.fetch import ATTEMPTS, MARKER, FetchError, fetch, main

from .packages import DEPLOYMENT, make_zip

Answer = Callable[[BaseHTTPRequestHandler, "Storage"], None]


class Storage:
    """An object storage on this machine that answers as each test says: `answers` by number of the request."""

    def __init__(self) -> None:
        self.content = b""
        self.answers: dict[int, Answer] = {}
        self.ranges: list[str | None] = []
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                storage.ranges.append(self.headers.get("Range"))
                answer = storage.answers.get(len(storage.ranges), Storage.whole)
                answer(self, storage)

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/package?signature=secret"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @staticmethod
    def whole(handler: BaseHTTPRequestHandler, storage: "Storage") -> None:
        """The content, from where the client has it already."""
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        Storage.send(handler, 206 if start else 200, storage.content[start:])

    @staticmethod
    def without_ranges(handler: BaseHTTPRequestHandler, storage: "Storage") -> None:
        Storage.send(handler, 200, storage.content)

    @staticmethod
    def cut(handler: BaseHTTPRequestHandler, storage: "Storage") -> None:
        """Half of the content, then the connection breaks."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(storage.content)))
        handler.end_headers()
        handler.wfile.write(storage.content[: len(storage.content) // 2])
        handler.close_connection = True

    @staticmethod
    def status(code: int) -> Answer:
        return lambda handler, storage: Storage.send(handler, code, b"no")

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, code: int, body: bytes) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def storage() -> Iterator[Storage]:
    running = Storage()
    running.content = make_zip({"p/deployment.py": DEPLOYMENT, "p/weights.bin": bytes(range(256)) * 40}).getvalue()
    yield running
    running.close()


def bring(storage: Storage, folder: Path, framework: str = "", digest: str = "") -> None:
    fetch(storage.url, digest or storage.digest, folder, framework, pause=lambda seconds: None)


def test_a_package_is_unpacked_without_its_top_folder(storage, tmp_path):
    bring(storage, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "deployment.py", "weights.bin"]
    assert (tmp_path / "weights.bin").read_bytes() == bytes(range(256)) * 40


def test_a_container_that_restarts_does_not_fetch_again(storage, tmp_path):
    bring(storage, tmp_path)
    bring(storage, tmp_path)
    assert len(storage.ranges) == 1


def test_another_revision_replaces_what_is_there(storage, tmp_path):
    bring(storage, tmp_path)
    storage.content = make_zip({"deployment.py": "# new\n" + DEPLOYMENT}).getvalue()
    bring(storage, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "deployment.py"]


def test_a_broken_connection_is_resumed_where_it_stopped(storage, tmp_path):
    storage.answers = {1: Storage.cut}
    bring(storage, tmp_path)
    assert storage.ranges == [None, f"bytes={len(storage.content) // 2}-"]
    assert (tmp_path / "deployment.py").is_file()


def test_a_storage_without_ranges_starts_over(storage, tmp_path):
    storage.answers = {1: Storage.cut, 2: Storage.without_ranges}
    bring(storage, tmp_path)
    assert (tmp_path / "deployment.py").is_file()


def test_a_storage_that_is_down_for_a_moment_is_asked_again(storage, tmp_path):
    storage.answers = {1: Storage.status(503), 2: Storage.status(429)}
    bring(storage, tmp_path)
    assert len(storage.ranges) == 3


def test_a_storage_that_stays_down_is_given_up(storage, tmp_path):
    storage.answers = dict.fromkeys(range(1, 50), Storage.status(500))
    with pytest.raises(FetchError, match=f"given up after {ATTEMPTS} attempts: the storage answered 500"):
        bring(storage, tmp_path)
    assert len(storage.ranges) == ATTEMPTS


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_refusal_is_final(storage, tmp_path, code):
    storage.answers = {1: Storage.status(code)}
    with pytest.raises(FetchError, match=f"the storage answered {code}"):
        bring(storage, tmp_path)
    assert len(storage.ranges) == 1


def test_content_with_another_digest_is_never_unpacked(storage, tmp_path):
    with pytest.raises(FetchError, match="was expected"):
        bring(storage, tmp_path, digest="0" * 64)
    assert len(storage.ranges) == 2
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_leaves_its_folder_is_refused_in_the_pod_too(storage, tmp_path):
    storage.content = make_zip({"deployment.py": DEPLOYMENT, "../evil": "x"}).getvalue()
    with pytest.raises(ArchiveError, match="outside"):
        bring(storage, tmp_path / "target")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("framework", "name"),
    [("sklearn-joblib", "model.joblib"), ("onnx", "model.onnx")],
)
def test_a_model_file_gets_its_name(storage, tmp_path, framework, name):
    storage.content = b"not a zip"
    bring(storage, tmp_path, framework)
    assert (tmp_path / name).read_bytes() == b"not a zip"


def test_a_skops_file_stays_whole_and_a_zip_around_a_model_is_unpacked(storage, tmp_path):
    storage.content = make_zip({"schema.json": "{}"}).getvalue()
    bring(storage, tmp_path / "skops", "sklearn-skops")
    assert zipfile.is_zipfile(tmp_path / "skops" / "model.skops")
    storage.content = make_zip({"folder/m.joblib": b"x"}).getvalue()
    bring(storage, tmp_path / "joblib", "sklearn-joblib")
    assert (tmp_path / "joblib" / "folder" / "m.joblib").read_bytes() == b"x"


def test_the_command_tells_what_is_wrong_without_the_address(storage, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PILOTHOUSE_PACKAGE_URL", storage.url)
    monkeypatch.setenv("PILOTHOUSE_PACKAGE_SHA256", storage.digest.upper())
    assert main() == 1
    assert "PILOTHOUSE_PACKAGE_DIR is not set" in capsys.readouterr().err
    monkeypatch.setenv("PILOTHOUSE_PACKAGE_DIR", str(tmp_path / "ok"))
    assert main() == 0
    storage.answers = {2: Storage.status(403)}
    monkeypatch.setenv("PILOTHOUSE_PACKAGE_DIR", str(tmp_path / "no"))
    assert main() == 1
    output = capsys.readouterr()
    assert "The package cannot be fetched: the storage answered 403" in output.err
    assert "secret" not in output.err + output.out
    monkeypatch.setenv("PILOTHOUSE_PACKAGE_URL", "file:///etc/passwd")
    assert main() == 1
    assert "not an http or https address" in capsys.readouterr().err
