"""Zip archives from strangers: what may be in one, and how it is unpacked safely.

Used by the platform at upload and again inside the pod. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Iterator

_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_CHUNK = 1 << 20
# Small files compress very well by nature; only above this size does a ratio say anything.
_RATIO_FROM_BYTES = 1 << 20


class ArchiveError(ValueError):
    """An archive that is refused; the message names the entry and what is allowed."""


@dataclass(frozen=True)
class Limits:
    """What an archive may be at most. Sizes in bytes, `ratio` is unpacked to packed size."""

    files: int = 20_000
    total_bytes: int = 8 << 30
    ratio: int = 200
    path_length: int = 400
    name_bytes: int = 255


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """One entry: its path inside the archive with forward slashes, and its unpacked size."""

    path: str
    size: int
    is_folder: bool
    info: zipfile.ZipInfo


def open_zip(file: str | Path | IO[bytes]) -> zipfile.ZipFile:
    """Open an archive for reading. Raises `ArchiveError` when it is none."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, NotImplementedError) as error:
        raise ArchiveError(f"The file is not a zip archive, or it is damaged: {error}.") from None


def members(archive: zipfile.ZipFile, limits: Limits = DEFAULT_LIMITS) -> list[Member]:
    """The entries of an archive, once all of it is found harmless. Raises `ArchiveError`.

    Reads the directory only, not the content; `unpack` holds the sizes declared here.
    """
    entries = archive.infolist()
    if len(entries) > limits.files:
        raise ArchiveError(f"The archive holds {len(entries)} entries; at most {limits.files} are allowed.")
    found = [_checked(info, limits) for info in entries]
    total = sum(member.size for member in found)
    if total > limits.total_bytes:
        raise ArchiveError(f"The archive unpacks to {total} bytes; at most {limits.total_bytes} are allowed.")
    packed = sum(member.info.compress_size for member in found)
    if total > _RATIO_FROM_BYTES and total > packed * limits.ratio:
        raise ArchiveError(
            f"The archive unpacks to more than {limits.ratio} times its size, as a zip bomb does. "
            "Remove the file of equal bytes, or store it uncompressed."
        )
    _check_overlap(found)
    _check_names(found)
    return found


def _checked(info: zipfile.ZipInfo, limits: Limits) -> Member:
    name = info.orig_filename if "\0" in info.orig_filename else info.filename
    shown = name[:80].encode("unicode_escape").decode()
    if info.flag_bits & 0x1:
        raise ArchiveError(f"'{shown}' is encrypted. Make the archive without a password.")
    if "\\" in name or re.search(r"[\x00-\x1f\x7f]", name):
        raise ArchiveError(f"'{shown}' has a backslash or a control character in its name.")
    if name.startswith("/") or re.match(r"^[A-Za-z]:", name):
        raise ArchiveError(f"'{shown}' is an absolute path. Names must be relative to the archive.")
    parts = name.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ArchiveError(f"'{shown}' points outside the archive or has an empty part ('..', '.', '//').")
    if len(name) > limits.path_length or any(len(os.fsencode(part)) > limits.name_bytes for part in parts):
        raise ArchiveError(f"'{shown}...' is too long a name.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    is_folder = name.endswith("/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "no ordinary file"
        raise ArchiveError(f"'{shown}' is {what}. Put the file itself into the archive.")
    if (kind == stat.S_IFDIR) != is_folder and kind != 0:
        raise ArchiveError(f"'{shown}' is a folder by its type but not by its name, or the other way round.")
    if info.compress_type not in _COMPRESSIONS:
        raise ArchiveError(f"'{shown}' is compressed in an unknown way. Use 'deflate', as zip programs do.")
    if is_folder and info.file_size:
        raise ArchiveError(f"'{shown}' is a folder with content.")
    return Member("/".join(parts), info.file_size, is_folder, info)


def _check_overlap(found: list[Member]) -> None:
    """Entries that share their bytes are how a small archive unpacks to petabytes."""
    end, previous = -1, ""
    for member in sorted(found, key=lambda member: member.info.header_offset):
        if member.info.header_offset < end:
            raise ArchiveError(f"'{member.path}' overlaps '{previous}' inside the archive, as in a zip bomb.")
        end = member.info.header_offset + 30 + len(member.info.orig_filename) + member.info.compress_size
        previous = member.path


def _check_names(found: list[Member]) -> None:
    """No name twice, also where upper and lower case or composed letters are one; no file that is a folder."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for member in found:
        parts = member.path.split("/")
        for depth in range(1, len(parts) + (1 if member.is_folder else 0)):
            path = "/".join(parts[:depth])
            if folders.setdefault(_folded(path), path) != path:
                raise ArchiveError(f"'{path}' and '{folders[_folded(path)]}' differ only in case or accents.")
        if member.is_folder:
            continue
        if _folded(member.path) in files:
            raise ArchiveError(f"'{member.path}' is in the archive twice, or differs only in case from another.")
        files[_folded(member.path)] = member.path
    for folded, path in files.items():
        if folded in folders:
            raise ArchiveError(f"'{path}' is both a file and a folder.")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def unpack(file: str | Path | BinaryIO, target: Path, root: str = "", limits: Limits = DEFAULT_LIMITS) -> int:
    """Unpack what lies below `root` ("" or "folder/") into the existing folder `target`; returns the bytes.

    Raises `ArchiveError` for whatever `members` refuses, and for content that is not as declared.
    """
    with open_zip(file) as archive:
        found = members(archive, limits)
        written = 0
        for member in found:
            if not (member.path + "/").startswith(root) or member.path + "/" == root:
                continue
            path = target.joinpath(*member.path[len(root) :].split("/"))
            if member.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            executable = (member.info.external_attr >> 16) & 0o111
            # O_EXCL and O_NOFOLLOW: nothing that is there already is written to or through.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(path, flags, 0o755 if executable else 0o644), "wb") as output:
                for chunk in _content(archive, member):
                    output.write(chunk)
                    written += len(chunk)
    return written


def read(archive: zipfile.ZipFile, member: Member, limit: int) -> bytes:
    """The content of one small entry. Raises `ArchiveError` when it is larger than `limit` bytes or damaged."""
    if member.size > limit:
        raise ArchiveError(f"'{member.path}' is larger than {limit} bytes.")
    return b"".join(_content(archive, member))


def _content(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    size = 0
    try:
        with archive.open(member.info) as stream:
            while True:
                chunk = stream.read(_CHUNK)
                if not chunk:
                    break
                size += len(chunk)
                if size > member.size:
                    break
                yield chunk
    except Exception as error:  # zlib, lzma, bz2 and zipfile each have errors of their own.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveError(f"'{member.path}' is damaged: {error}.") from None
    if size != member.size:
        raise ArchiveError(f"'{member.path}' is not of the size that the archive declares.")
