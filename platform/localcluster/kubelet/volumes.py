"""Volumes as directories of this machine, one per pod and volume.

ConfigMap, Secret, downward API and projected volumes have the kubelet's layout: `..data` links to a dated
directory, and every entry links through it, so that an update is one rename.
Source: kubernetes pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from localcluster.client import Object
from localcluster.kubelet.environment import ConfigError, Lookup, field_value, resource_value

DEFAULT_MODE = 0o644


class MountError(Exception):
    """A volume cannot be set up; the text follows "MountVolume.SetUp failed for volume ..."."""


@dataclass(frozen=True, slots=True)
class File:
    """Content and mode of one file of a volume."""

    content: bytes
    mode: int = DEFAULT_MODE


Tokens = Callable[[Object], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Source:
    """What volumes are made from: the pod, lookups, addresses, and who will use the files."""

    pod: Object
    lookup: Lookup
    addresses: Mapping[str, str]
    allocatable: Mapping[str, str]
    uid: int
    gid: int
    token: Tokens
    fs_group: int | None = None
    memory: Path | None = None  # a directory in memory for the pod, if the machine has such


async def prepare(volume: Object, directory: Path, source: Source) -> Path:
    """Set up one volume below `directory`; returns the path to mount. Idempotent."""
    target = directory / volume["name"]
    if volume.get("hostPath"):
        return _host_path(volume["hostPath"], source)
    if "emptyDir" in volume and volume["emptyDir"] is not None:
        if volume["emptyDir"].get("medium") == "Memory" and source.memory is not None:
            target = source.memory / volume["name"]
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o777)
        if source.fs_group is not None:
            with contextlib.suppress(OSError):  # not root
                os.chown(target, -1, source.fs_group)
                target.chmod(0o2777)  # what is made in it belongs to the group
        return target
    files = await content(volume, source)
    if files is None:
        raise MountError("this node has no driver for it: use emptyDir, hostPath, configMap, secret or downwardAPI")
    write_files(target, files, source.uid, source.gid if source.fs_group is None else source.fs_group)
    return target


def _host_path(spec: Object, source: Source) -> Path:
    path, kind = Path(spec["path"]), spec.get("type") or ""
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
        with contextlib.suppress(OSError):
            # A directory made for this pod belongs to the pod's user, or nobody could write into it.
            os.chown(path, source.uid, source.gid)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(0o644)
    checks: dict[str, tuple[Callable[[Path], bool], str]] = {
        "Directory": (Path.is_dir, "a directory"),
        "DirectoryOrCreate": (Path.is_dir, "a directory"),
        "File": (Path.is_file, "a file"),
        "FileOrCreate": (Path.is_file, "a file"),
        "Socket": (Path.is_socket, "a socket file"),
        "CharDevice": (Path.is_char_device, "a character device"),
        "BlockDevice": (Path.is_block_device, "a block device"),
    }
    if kind in checks and not checks[kind][0](path):
        raise MountError(f"hostPath type check failed: {path} is not {checks[kind][1]}")
    if not kind and not path.exists():
        path.mkdir(parents=True)
    return path


async def content(volume: Object, source: Source) -> dict[str, File] | None:
    """The files of a configMap, secret, downwardAPI or projected volume; None for any other kind."""
    if volume.get("configMap"):
        spec = volume["configMap"]
        return await _keys("ConfigMap", spec, source, spec.get("defaultMode", DEFAULT_MODE))
    if volume.get("secret"):
        return await _keys("Secret", volume["secret"], source, volume["secret"].get("defaultMode", DEFAULT_MODE))
    if volume.get("downwardAPI"):
        mode = volume["downwardAPI"].get("defaultMode", DEFAULT_MODE)
        return _downward(volume["downwardAPI"], source, mode)
    if not volume.get("projected"):
        return None
    mode = volume["projected"].get("defaultMode", DEFAULT_MODE)
    files: dict[str, File] = {}
    for entry in volume["projected"].get("sources") or []:
        if entry.get("configMap"):
            files |= await _keys("ConfigMap", entry["configMap"], source, mode)
        if entry.get("secret"):
            files |= await _keys("Secret", entry["secret"], source, mode)
        if entry.get("downwardAPI"):
            files |= _downward(entry["downwardAPI"], source, mode)
        if entry.get("serviceAccountToken"):
            token = await source.token(entry["serviceAccountToken"])
            files[entry["serviceAccountToken"]["path"]] = File(token.encode(), mode)
    return files


async def _keys(kind: Literal["ConfigMap", "Secret"], spec: Object, source: Source, mode: int) -> dict[str, File]:
    name = spec.get("secretName") or spec.get("name") or ""
    found = await source.lookup(kind, name)
    if found is None:
        if spec.get("optional"):
            return {}
        raise MountError(f'{kind.lower()} "{name}" not found')
    data = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    for key, value in (found.get("data") or {}).items():
        data[key] = base64.b64decode(value) if kind == "Secret" else value.encode()
    items = spec.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        if item["key"] not in data:
            if spec.get("optional"):
                continue
            raise MountError(f"references non-existent {kind.lower()} key: {item['key']}")
        files[item["path"]] = File(data[item["key"]], item.get("mode", mode))
    return files


def _downward(spec: Object, source: Source, mode: int) -> dict[str, File]:
    files = {}
    for item in spec.get("items") or []:
        try:
            if item.get("fieldRef"):
                text = field_value(source.pod, item["fieldRef"]["fieldPath"], addresses=source.addresses)
            else:
                container = source.pod["spec"]["containers"][0]
                text = resource_value(source.pod, container, item["resourceFieldRef"], source.allocatable)
        except ConfigError as error:
            raise MountError(str(error)) from error
        files[item["path"]] = File(text.encode(), item.get("mode", mode))
    return files


def write_files(target: Path, files: Mapping[str, File], uid: int, gid: int) -> bool:
    """Make `target` hold exactly these files, in one step; True when something changed."""
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o777)
    if _current(target) == {path: file.content for path, file in files.items()}:
        return False
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    fresh = target / stamp
    fresh.mkdir(mode=0o755)
    for path, file in files.items():
        place = fresh / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
        place.chmod(file.mode)
        with contextlib.suppress(OSError):  # not root, or a user that this namespace does not know (EINVAL)
            os.chown(place, uid, gid)
    data, link = target / "..data", target / "..data_tmp"
    old = os.readlink(data) if data.is_symlink() else None
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(stamp)
    link.replace(data)
    tops = {path.split("/")[0] for path in files}
    for top in tops:
        if not (target / top).is_symlink():
            (target / top).symlink_to(f"..data/{top}")
    for entry in target.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old:
        shutil.rmtree(target / old, ignore_errors=True)
    return True


def _current(target: Path) -> dict[str, bytes] | None:
    data = target / "..data"
    if not data.is_symlink():
        return None
    found = {}
    for path in sorted((target / os.readlink(data)).rglob("*")):
        if path.is_file():
            found[str(path.relative_to(target / os.readlink(data)))] = path.read_bytes()
    return found
