"""Folders that a kubelet makes in a volume for a `subPath`."""

import os
import stat
from pathlib import Path

import pytest

from localcluster.kubelet.launch import _below


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2775])
def test_a_folder_that_is_missing_has_the_mode_of_the_volume(tmp_path: Path, mode: int) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(mode)
    made = _below(volume, Path("one/two"))
    assert made == volume / "one" / "two"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (volume / "one", made)] == [mode, mode]
    assert made.stat().st_uid == os.geteuid()


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    assert _below(tmp_path, Path("there")) == there
    assert stat.S_IMODE(there.stat().st_mode) == 0o700
