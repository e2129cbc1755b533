"""How much of the disk pods use, and which of them exceed their limits.

Source: kubernetes pkg/kubelet/eviction, local storage capacity isolation.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from localcluster.client import Object
from localcluster.quantity import whole

_LOOK_SECONDS = 5.0
_EPHEMERAL = "ephemeral-storage"


def used_bytes(folder: Path) -> int:
    """What a folder's files occupy on disk; files that go meanwhile count nothing."""
    total, seen = 0, set()
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_blocks * 512
    return total


def has_limits(pod: Object) -> bool:
    """Whether anything of a pod's use of disk is limited."""
    spec = pod["spec"]
    return any((one.get("emptyDir") or {}).get("sizeLimit") for one in spec.get("volumes") or ()) or any(
        _limit(container) for container in spec["containers"]
    )


def _limit(container: Object) -> str | None:
    return ((container.get("resources") or {}).get("limits") or {}).get(_EPHEMERAL)


def excess(pod: Object, volumes: Mapping[str, Path], containers: Mapping[str, Path]) -> str | None:
    """Why a pod must go, in the words of the kubelet; None as long as it keeps to its limits.

    `volumes` and `containers` are the folders of what it has mounted and of its containers' files and logs.
    """
    spec, on_disk = pod["spec"], 0
    for volume in spec.get("volumes") or ():
        folder, source = volumes.get(volume["name"]), volume.get("emptyDir")
        if folder is None or source is None:
            continue
        used, limit = used_bytes(folder), source.get("sizeLimit")
        if limit and used > whole(limit):
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". '
        on_disk += used if source.get("medium") != "Memory" else 0
    used_by = {name: used_bytes(folder) for name, folder in containers.items()}
    limits = {one["name"]: limit for one in spec["containers"] if (limit := _limit(one))}
    for name, limit in limits.items():
        if used_by.get(name, 0) > whole(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    if limits and on_disk + sum(used_by.values()) > sum(map(whole, limits.values())):
        total = sum(map(whole, limits.values()))
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
    return None


async def exceeded(pod: Object, volumes: Mapping[str, Path], containers: Callable[[], Mapping[str, Path]]) -> str:
    """Wait until a pod uses more than it may; why it must go."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        found = await asyncio.to_thread(excess, pod, dict(volumes), containers())
        if found:
            return found
