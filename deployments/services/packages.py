"""Looking into uploaded archives without running anything: checks at upload, and the difference between two packages.

What a package must be and what is refused: `serving.package` and `serving.archive`.
"""

import dataclasses
import difflib
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from django.conf import settings

from accounts.errors import Invalid
from deployments.services.variables import check_name
from serving.archive import ArchiveError, Limits, members, open_zip
from serving.package import Package, find_root
from serving.package import inspect as look_over

# Bounds of a diff that is shown to a person: bytes of one file, and characters of all diffs together.
MAX_TEXT = 256 * 1024
MAX_DIFF = 512 * 1024

Entry = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class FileChange:
    """One file that differs. ``status`` is added, removed or changed; ``note`` says why ``diff`` is empty."""

    path: str
    status: str
    old_size: int | None = None
    new_size: int | None = None
    diff: str = ""
    note: str = ""


def limits() -> Limits:
    return Limits(total_bytes=settings.PILOTHOUSE_UNPACKED_MAX_BYTES)


def inspect(file: BinaryIO, language: str, *, field: str = "file") -> Package:
    """What the package is. Raises Invalid with everything that is wrong with it, by file inside the archive."""
    package = look_over(file, language, limits())
    problems = [str(problem) for problem in package.problems]
    for name in package.environment_variables:
        try:
            check_name(name)
        except Invalid as refusal:
            problems.append(f"ubiops.yaml: {refusal.fields['name']}")
    if problems:
        raise Invalid(**{field: " ".join(problems)})
    return package


def manifest(file: BinaryIO, root: str) -> list[Entry]:
    """``[{"path", "size", "crc"}]`` of the files below ``root`` ("" or "folder/"), sorted by path."""
    with open_zip(file) as archive:
        return sorted(
            (
                {"path": member.path[len(root) :], "size": member.size, "crc": member.info.CRC}
                for member in members(archive, limits())
                if not member.is_folder and member.path.startswith(root)
            ),
            key=lambda entry: entry["path"],
        )


def changes(old: list[Entry], new: list[Entry]) -> list[FileChange]:
    """What was added, removed and changed between two manifests, by path; no text yet."""
    before, after = ({entry["path"]: entry for entry in side} for side in (old, new))
    found = []
    for path in sorted(before.keys() | after.keys()):
        a, b = before.get(path), after.get(path)
        if a is None and b is not None:
            found.append(FileChange(path, "added", new_size=b["size"]))
        elif b is None and a is not None:
            found.append(FileChange(path, "removed", old_size=a["size"]))
        elif a is not None and b is not None and (a["size"], a["crc"]) != (b["size"], b["crc"]):
            found.append(FileChange(path, "changed", a["size"], b["size"]))
    return found


def with_text(found: list[FileChange], old: BinaryIO, new: BinaryIO) -> list[FileChange]:
    """The changes with unified diffs of texts, as far as `MAX_TEXT` and `MAX_DIFF` reach."""
    with _Texts(old) as before, _Texts(new) as after:
        return list(_compared(found, before, after))


def _compared(found: list[FileChange], before: "_Texts", after: "_Texts") -> Iterator[FileChange]:
    left = MAX_DIFF
    for change in found:
        if max(change.old_size or 0, change.new_size or 0) > MAX_TEXT:
            yield dataclasses.replace(change, note=f"Larger than {MAX_TEXT // 1024} KiB, not compared line by line")
            continue
        if left <= 0:
            yield dataclasses.replace(change, note="Too many changes to show all; download both to compare")
            continue
        a = before.lines(change.path) if change.old_size is not None else []
        b = after.lines(change.path) if change.new_size is not None else []
        if a is None or b is None:
            yield dataclasses.replace(change, note="Binary file")
            continue
        text = "\n".join(difflib.unified_diff(a, b, f"a/{change.path}", f"b/{change.path}", lineterm=""))
        note = "" if len(text) <= left else "Too many changes to show all; download both to compare"
        left -= len(text)
        yield dataclasses.replace(change, diff=text[: left + len(text)], note=note)


class _Texts:
    """Text files of a package by their path below its root."""

    def __init__(self, file: BinaryIO) -> None:
        self._archive = open_zip(file)
        names = self._archive.namelist()
        try:
            self._root = find_root(names)
        except ArchiveError:
            self._root = ""

    def __enter__(self) -> "_Texts":
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def lines(self, path: str) -> list[str] | None:
        """The lines, or None for a binary file."""
        try:
            with self._archive.open(self._root + path) as stream:
                # Bounded whatever size the archive declares.
                content = stream.read(MAX_TEXT + 1)
        except (KeyError, zipfile.BadZipFile):
            return None
        if b"\0" in content:
            return None
        try:
            return content.decode().splitlines()
        except UnicodeDecodeError:
            return None
