"""What pods use of the disk, and when it is too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localcluster.kubelet.storage import excess, has_limits

Object = dict[str, Any]
MIB = 1024 * 1024


def pod(volume: Object, limit: str | None) -> Object:
    resources = {"limits": {"ephemeral-storage": limit}} if limit else {}
    return {"spec": {"volumes": [{"name": "v", **volume}], "containers": [{"name": "c", "resources": resources}]}}


DISK, MEMORY = {"emptyDir": {}}, {"emptyDir": {"medium": "Memory"}}
SMALL = {"emptyDir": {"sizeLimit": "1Mi"}}


@pytest.mark.parametrize(
    ("volume", "limit", "in_volume", "in_container", "expected"),
    [
        (SMALL, None, MIB // 2, 9 * MIB, None),
        (SMALL, None, 2 * MIB, 0, 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '),
        (DISK, None, 9 * MIB, 9 * MIB, None),
        (DISK, "1Mi", 0, 2 * MIB, 'Container c exceeded its local ephemeral storage limit "1Mi". '),
        (DISK, "3Mi", 2 * MIB, MIB // 2, None),
        (
            DISK,
            "3Mi",
            2 * MIB,
            2 * MIB,
            "Pod ephemeral local storage usage exceeds the total limit of containers 3145728. ",
        ),
        (MEMORY, "3Mi", 2 * MIB, 2 * MIB, None),
    ],
)
def test_what_is_too_much(
    tmp_path: Path, volume: Object, limit: str | None, in_volume: int, in_container: int, expected: str | None
) -> None:
    folders = {}
    for name, size in (("v", in_volume), ("c", in_container)):
        folders[name] = tmp_path / name / "deep"
        folders[name].mkdir(parents=True)
        (folders[name] / "file").write_bytes(bytes(size))
        (folders[name] / "link").hardlink_to(folders[name] / "file")  # counts once
    found = excess(pod(volume, limit), {"v": tmp_path / "v"}, {"c": tmp_path / "c"})
    assert found == expected


def test_only_pods_with_limits_are_looked_at() -> None:
    assert not has_limits(pod(DISK, None))
    assert has_limits(pod(SMALL, None))
    assert has_limits(pod(DISK, "1Mi"))
