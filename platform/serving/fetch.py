"""``python -m pilothouse_serving.fetch``: bring a package or model into its pod.

Streams ``$PILOTHOUSE_PACKAGE_URL``, checks it against ``$PILOTHOUSE_PACKAGE_SHA256`` and unpacks it into
``$PILOTHOUSE_PACKAGE_DIR``. Standard library only. The address is never shown: it may carry a signature.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Callable

from .archive import ArchiveError, open_zip, unpack
from .package import find_root

# Left in the folder when all is done: a container that restarts need not fetch again.
MARKER = ".pilothouse-package"
ATTEMPTS = 6
TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
_MODEL_FILES = {"sklearn-joblib": "model.joblib", "sklearn-skops": "model.skops", "onnx": "model.onnx"}


class FetchError(Exception):
    """The package cannot be brought; the message says why and is safe to show."""


def main() -> int:
    """Fetch as the environment variables say; returns the exit code."""
    try:
        url, digest, folder = (_variable(name) for name in ("URL", "SHA256", "DIR"))
        fetch(url, digest.lower(), Path(folder), os.environ.get("PILOTHOUSE_MODEL_FRAMEWORK", ""))
    except (FetchError, ArchiveError) as error:
        print(f"The package cannot be fetched: {error}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        print(f"The package cannot be stored: {error.strerror or error}.", file=sys.stderr, flush=True)
        return 1
    return 0


def _variable(name: str) -> str:
    value = os.environ.get("PILOTHOUSE_PACKAGE_" + name, "")
    if not value:
        raise FetchError(f"PILOTHOUSE_PACKAGE_{name} is not set.")
    return value


def fetch(
    url: str, digest: str, folder: Path, framework: str = "", pause: Callable[[float], None] = time.sleep
) -> None:
    """Bring the artifact at `url` into `folder`, which then holds it unpacked and nothing else.

    `digest` is its SHA-256 in hexadecimal. Raises `FetchError`, `ArchiveError`, OSError.
    """
    marker = folder / MARKER
    if marker.is_file() and marker.read_text() == digest:
        print("The package is already here.", flush=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    _empty(folder)
    artifact = folder / (MARKER + ".download")
    size = _download_whole(url, digest, artifact, pause)
    place(artifact, folder, framework)
    marker.write_text(digest)
    print(f"The package is here: {size} bytes, SHA-256 {digest[:12]}...", flush=True)


def place(artifact: Path, folder: Path, framework: str) -> None:
    """Unpack `artifact` into `folder`, or put it there under its model's name; the artifact is gone afterwards."""
    if framework and not _is_archive_of_model(artifact, framework):
        os.replace(artifact, folder / _MODEL_FILES.get(framework, "model"))
        return
    with open_zip(artifact) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    unpack(artifact, folder, "" if framework else find_root(names))
    artifact.unlink()


def _is_archive_of_model(artifact: Path, framework: str) -> bool:
    """Whether the artifact is a zip around a model, and not a model that is a zip itself (skops is)."""
    if not zipfile.is_zipfile(artifact):
        return False
    with open_zip(artifact) as archive:
        return not (framework == "sklearn-skops" and "schema.json" in archive.namelist())


def _download_whole(url: str, digest: str, path: Path, pause: Callable[[float], None]) -> int:
    """Download with resumption, and once more from the start when the digest does not fit; returns the size."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise FetchError("PILOTHOUSE_PACKAGE_URL is not an http or https address.")
    for attempt in (1, 2):
        _download(url, path, pause)
        found = hashlib.sha256()
        with open(path, "rb") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                found.update(chunk)
        if found.hexdigest() == digest:
            return path.stat().st_size
        path.unlink()
        if attempt == 1:
            print("What came has another digest; once more from the start.", file=sys.stderr, flush=True)
    raise FetchError(f"what came has SHA-256 {found.hexdigest()[:12]}..., {digest[:12]}... was expected.")


def _download(url: str, path: Path, pause: Callable[[float], None]) -> None:
    """Append to `path` until the answer is complete, going on where a broken connection stopped."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"Fetching again: {reason}", file=sys.stderr, flush=True)
            pause(min(0.25 * 2**attempt, 8.0))
        have = path.stat().st_size if path.exists() else 0
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - scheme checked
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                resumed = answer.status == 206
                expected = answer.headers.get("Content-Length")
                got = 0
                with open(path, "ab" if resumed else "wb") as output:
                    for chunk in iter(lambda: answer.read(_CHUNK), b""):
                        output.write(chunk)
                        got += len(chunk)
            if expected is None or got == int(expected):
                return
            reason = "the connection ended early."
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and have:
                return  # All of it was here already; the digest will tell.
            reason = f"the storage answered {error.code} {error.reason}."
            if error.code < 500 and error.code not in (408, 425, 429):
                raise FetchError(reason) from None
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            cause = getattr(error, "reason", error)
            reason = f"{getattr(cause, 'strerror', None) or type(cause).__name__}."
        except Exception as error:  # http.client has errors of its own for answers that break off.
            if isinstance(error, OSError):
                raise
            reason = f"the answer broke off ({type(error).__name__})."
    raise FetchError(f"given up after {ATTEMPTS} attempts: {reason}")


def _empty(folder: Path) -> None:
    """Remove what an earlier attempt left, but not the folder: it is a mounted volume."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
