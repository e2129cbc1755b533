"""Zips from strangers: what is refused, and that unpacking never leaves its folder."""

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.archive import ArchiveError, Limits, members, open_zip, read, unpack

from .packages import link_zip, make_zip


def refused(file: io.BytesIO, tmp_path: Path, limits: Limits | None = None) -> str:
    """The message for an archive that must not leave anything outside its folder."""
    target = tmp_path / "inside" / "target"
    target.mkdir(parents=True)
    with pytest.raises(ArchiveError) as caught:
        unpack(file, target, limits=limits or Limits())
    assert [path for path in tmp_path.rglob("*") if path.is_file() and target not in path.parents] == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "outside"),
        ("a/../../evil", "outside"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("C:evil", "absolute"),
        ("a\\..\\evil", "backslash"),
        ("a//b", "outside"),
        ("./a", "outside"),
        ("a\nb", "control character"),
        ("x" * 300, "too long"),
        ("/".join(["d"] * 300), "too long"),
    ],
)
def test_names_that_leave_the_folder_are_refused(name, said, tmp_path):
    assert said in refused(make_zip({name: "x"}), tmp_path)


def test_a_name_with_nul_is_refused(tmp_path):
    raw = make_zip({"deployment.pyXtxt": "x"}).getvalue().replace(b"deployment.pyXtxt", b"deployment.py\0txt")
    assert "control character" in refused(io.BytesIO(raw), tmp_path)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "inside"])
def test_links_are_refused(target, tmp_path):
    assert "a link" in refused(link_zip("deployment.py", target), tmp_path)


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_are_refused(kind, tmp_path):
    assert "no ordinary file" in refused(make_zip({"x": ""}, create_system=3, external_attr=kind << 16), tmp_path)


def test_encrypted_archives_are_refused(tmp_path):
    raw = bytearray(make_zip({"x": "y"}).getvalue())
    at = raw.index(b"PK\x01\x02") + 8
    raw[at] |= 1
    assert "encrypted" in refused(io.BytesIO(bytes(raw)), tmp_path)


def test_unknown_compression_is_refused(tmp_path):
    raw = bytearray(make_zip({"x": "y"}).getvalue())
    at = raw.index(b"PK\x01\x02") + 10
    raw[at : at + 2] = struct.pack("<H", 97)
    assert "compressed in an unknown way" in refused(io.BytesIO(bytes(raw)), tmp_path)


@pytest.mark.parametrize("names", [("a", "A"), ("x/a", "X/b"), ("é", "e\u0301"), ("ß", "ss")])
def test_names_that_some_file_systems_take_for_one_are_refused(names, tmp_path):
    assert "case" in refused(make_zip(dict.fromkeys(names, "x")), tmp_path)


def test_a_file_that_is_also_a_folder_is_refused(tmp_path):
    assert "both a file and a folder" in refused(make_zip({"a": "x", "a/b": "y"}), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("a", "y")
    assert "twice" in refused(buffer, tmp_path)


def test_a_bomb_is_refused_before_anything_is_unpacked(tmp_path):
    assert "zip bomb" in refused(make_zip({"zeros": b"\0" * 20_000_000}), tmp_path)


def test_total_size_and_number_of_files_are_limited(tmp_path):
    content = os.urandom(1000)
    small = Limits(files=3, total_bytes=2500)
    assert "at most 2500" in refused(make_zip({"a": content, "b": content, "c": content}), tmp_path / "1", small)
    assert "at most 3" in refused(make_zip(dict.fromkeys("abcd", b"")), tmp_path / "2", small)


def test_entries_that_share_bytes_are_refused(tmp_path):
    raw = make_zip({"aa": os.urandom(100), "bb": os.urandom(100)}).getvalue()
    second = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)
    # The second entry's header offset now points into the first entry's data.
    forged = raw[: second + 42] + struct.pack("<I", 10) + raw[second + 46 :]
    assert "overlaps" in refused(io.BytesIO(forged), tmp_path)


def test_a_declared_size_that_is_too_small_is_found_out(tmp_path):
    raw = bytearray(make_zip({"a": os.urandom(5000)}).getvalue())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = struct.pack("<I", 10)
    assert "damaged" in refused(io.BytesIO(bytes(raw)), tmp_path)


def test_damaged_content_is_found_out(tmp_path):
    raw = bytearray(make_zip({"a": os.urandom(5000)}).getvalue())
    raw[2000] ^= 0xFF
    assert "damaged" in refused(io.BytesIO(bytes(raw)), tmp_path)


@pytest.mark.parametrize("raw", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_zip_is_told(raw):
    with pytest.raises(ArchiveError, match="not a zip archive"):
        open_zip(io.BytesIO(raw))


def test_unpack_keeps_content_folders_and_the_executable_bit(tmp_path):
    file = make_zip({"p/run.sh": "#!/bin/sh\n", "p/sub/": "", "q": "other"}, create_system=3)
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo("p/tool")
        info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o755) << 16
        archive.writestr(info, b"tool")
    file.seek(0)
    assert unpack(file, tmp_path, "p/") == len("#!/bin/sh\n") + len("tool")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.sh", "sub", "tool"]
    assert (tmp_path / "tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "run.sh").stat().st_mode & 0o111 == 0


def test_what_is_there_already_is_not_overwritten(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").symlink_to(outside)
    with pytest.raises(FileExistsError):
        unpack(make_zip({"a": "evil"}), target)
    assert outside.read_text() == "kept"


def test_reading_one_entry_is_limited():
    with open_zip(make_zip({"a": "x" * 100})) as archive:
        entry = members(archive)[0]
        assert read(archive, entry, 100) == b"x" * 100
        with pytest.raises(ArchiveError, match="larger than 99"):
            read(archive, entry, 99)


part = st.sampled_from(["a", "B", "b", "..", ".", "", "é", "x" * 256, "C:", "\\", "\n", "deployment.py", "~"])


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.lists(part, min_size=1, max_size=4).map("/".join), min_size=1, max_size=5, unique=True))
def test_no_name_ever_leaves_the_folder(names, tmp_path_factory):
    base = tmp_path_factory.mktemp("zip")
    target = base / "target"
    target.mkdir()
    try:
        unpack(make_zip(dict.fromkeys(filter(None, names), "content")), target)
    except ArchiveError:
        pass
    else:
        files = [path for path in target.rglob("*") if path.is_file()]
        assert len(files) == len([name for name in names if name and not name.endswith("/")])
    assert [path for path in base.rglob("*") if path.is_file() and target not in path.parents] == []


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 400), value=st.integers(0, 255), tail=st.integers(0, 40))
def test_any_damage_is_refused_or_harmless(position, value, tail, tmp_path_factory):
    content = bytes(range(200))
    raw = bytearray(make_zip({"a/deployment.py": content, "a/b.txt": "text"}).getvalue())
    raw[position % len(raw)] = value
    target = tmp_path_factory.mktemp("zip")
    try:
        unpack(io.BytesIO(bytes(raw[: len(raw) - tail])), target)
    except ArchiveError:
        return
    for path in target.rglob("*"):
        if path.is_file():
            assert path.read_bytes() in (content, b"text")
