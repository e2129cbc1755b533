"""What a model file of the registry is, found out from its bytes: nothing is ever unpickled here.

Used by the platform at upload. Standard library only.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Iterator

from .archive import DEFAULT_LIMITS, ArchiveError, Limits, members, open_zip, read

FRAMEWORKS = ("sklearn-joblib", "sklearn-skops", "onnx")
_SUFFIXES = {
    ".joblib": "sklearn-joblib",
    ".pkl": "sklearn-joblib",
    ".pickle": "sklearn-joblib",
    ".skops": "sklearn-skops",
    ".onnx": "onnx",
}
_CHUNK = 1 << 20
_OVERLAP = 256
# So far is looked into a pickle; the version stands near the front, weights fill the rest.
_SCAN_BYTES = 256 << 20
_SCHEMA_BYTES = 64 << 20

# "_sklearn_version", then how pickle writes memo entries, a text's length, and the text.
_SKLEARN_VERSION = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4}|\"[,:\s{]*)*(?:\x8c.|X.{4}|[^}]{0,200}?\"content\": \"\\\")?"
    rb"(\d+\.\d+(?:\.\d+)?(?:(?:a|b|rc)\d+)?)",
    re.DOTALL,
)
_LIBRARIES = re.compile(rb"(?<![\w.])(sklearn|xgboost|lightgbm|catboost|imblearn|category_encoders)\.[a-z_]")
_DISTRIBUTIONS = {"imblearn": "imbalanced-learn", "category_encoders": "category-encoders"}


@dataclass
class ModelArtifact:
    """What was found. `requirements` are what an environment needs to serve the file, one per line."""

    framework: str = ""
    sklearn_version: str = ""
    requirements: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect_model(file: str | Path | BinaryIO, name: str, limits: Limits = DEFAULT_LIMITS) -> ModelArtifact:
    """Look at a model file, or a zip around one. `name` is the file's name, whose suffix is a hint only.

    Never raises for a bad file: what is wrong is in ``problems``.
    """
    found = ModelArtifact()
    try:
        if isinstance(file, (str, Path)):
            with open(file, "rb") as stream:
                _look(stream, name, limits, found)
        else:
            _look(file, name, limits, found)
    except ArchiveError as error:
        found.problems.append(str(error))
    return found


def _look(stream: BinaryIO, name: str, limits: Limits, found: ModelArtifact) -> None:
    stream.seek(0)
    head = stream.read(8)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        _look_into_zip(stream, limits, found)
    elif not head:
        found.problems.append("The file is empty.")
    else:
        _look_at_file(stream, name, head, found)


def _look_into_zip(stream: BinaryIO, limits: Limits, found: ModelArtifact) -> None:
    with open_zip(stream) as archive:
        entries = {entry.path: entry for entry in members(archive, limits) if not entry.is_folder}
        if "schema.json" in entries:
            _describe_skops(read(archive, entries["schema.json"], _SCHEMA_BYTES), found)
            return
        models = [path for path in entries if PurePosixPath(path).suffix in _SUFFIXES]
        if len(models) != 1:
            shown = ", ".join(sorted(models)[:5]) or "none"
            found.problems.append(
                f"The zip must hold one model file ({', '.join(_SUFFIXES)}); found: {shown}. A package with code "
                "(deployment.py) is uploaded to a deployment, not to a model."
            )
            return
        with archive.open(entries[models[0]].info) as inner:
            head = inner.read(8)
        with archive.open(entries[models[0]].info) as inner:
            if head.startswith(b"PK\x03\x04"):
                with open_zip(inner) as nested:
                    schema = {entry.path: entry for entry in members(nested, limits)}.get("schema.json")
                    _describe_skops(read(nested, schema, _SCHEMA_BYTES) if schema else b"", found)
            else:
                _look_at_file(inner, models[0], head, found)


def _look_at_file(stream: IO[bytes], name: str, head: bytes, found: ModelArtifact) -> None:
    hinted = _SUFFIXES.get(PurePosixPath(name).suffix.lower(), "")
    is_pickle = head[:1] == b"\x80" or _decompressor(head) is not None
    if hinted == "onnx" and not is_pickle:
        # A ModelProto starts with its ir_version: field 1, a small number.
        if head[0] != 0x08:
            found.problems.append(f"'{name}' is not an ONNX model.")
            return
        found.framework, found.requirements = "onnx", ["onnxruntime", "numpy"]
    elif is_pickle and hinted in ("sklearn-joblib", ""):
        found.framework = "sklearn-joblib"
        _describe_pickle(stream, head, found)
    else:
        found.problems.append(
            f"'{name}' is not a model that can be served without code: scikit-learn (.joblib, .pkl, .skops) or "
            "ONNX (.onnx). Write a deployment.py for it instead."
        )


def _describe_pickle(stream: IO[bytes], head: bytes, found: ModelArtifact) -> None:
    libraries: set[str] = set()
    wants_pandas = False
    for window in _windows(stream, head):
        if not found.sklearn_version:
            match = _SKLEARN_VERSION.search(window)
            found.sklearn_version = match.group(1).decode() if match else ""
        libraries |= {name.decode() for name in _LIBRARIES.findall(window)}
        wants_pandas = wants_pandas or _wants_pandas(window)
    found.requirements = [*_sklearn_requirements(found.sklearn_version), "joblib"]
    found.requirements += sorted(_DISTRIBUTIONS.get(name, name) for name in libraries - {"sklearn"})
    if wants_pandas:
        found.requirements.append("pandas")


def _wants_pandas(content: bytes) -> bool:
    """Whether the model picks columns by name or keeps pandas' types; names alone go well with arrays."""
    return b"ColumnTransformer" in content or b"pandas" in content


def _describe_skops(schema: bytes, found: ModelArtifact) -> None:
    if not schema:
        found.problems.append("The zip in the zip is not a skops model: it has no schema.json.")
        return
    found.framework = "sklearn-skops"
    match = _SKLEARN_VERSION.search(schema)
    found.sklearn_version = match.group(1).decode() if match else ""
    found.requirements = [*_sklearn_requirements(found.sklearn_version), "skops"]
    if _wants_pandas(schema):
        found.requirements.append("pandas")


def _sklearn_requirements(version: str) -> list[str]:
    if not version:
        return ["scikit-learn"]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    # Wheels before 1.4.2 were compiled against NumPy 1.
    return [f"scikit-learn=={version}"] + (["numpy<2"] if numbers < (1, 4, 2) else [])


def _decompressor(head: bytes) -> Any:
    """What joblib may have compressed a file with, by its first bytes; None for no compression."""
    if head.startswith(b"\x1f\x8b"):
        return gzip.open
    if head.startswith(b"BZh"):
        return bz2.open
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.open
    if head[:1] == b"\x78" and len(head) > 1 and (head[0] * 256 + head[1]) % 31 == 0:
        return _ZlibReader
    return None


def _windows(stream: IO[bytes], head: bytes) -> Iterator[bytes]:
    """The content in pieces that overlap, so that nothing is cut; no more than is worth looking at."""
    opener = _decompressor(head)
    source = stream if opener is None else opener(stream)
    previous, seen = b"", 0
    try:
        while seen < _SCAN_BYTES:
            chunk = source.read(_CHUNK)
            if not chunk:
                return
            seen += len(chunk)
            yield previous + chunk
            previous = chunk[-_OVERLAP:]
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(f"The file is damaged: {error}.") from None


class _ZlibReader:
    """Reads a zlib stream piece by piece; the standard library has no file object for it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(_CHUNK)
            if not packed:
                raise EOFError("it ends early")
            content = self._inflate.decompress(packed, size)
            if content:
                return content
        return b""
