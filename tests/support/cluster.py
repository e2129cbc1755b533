"""An embedded cluster for the tests of the apps."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.conftest import start_cluster, stop_cluster


@contextmanager
def running_cluster(tmp_path_factory: pytest.TempPathFactory, *options: str) -> Iterator[Path]:
    """A cluster whose pods can run; gives its kubeconfig."""
    data = tmp_path_factory.mktemp("cluster")
    # Pods drop to another user, who must be able to reach their files.
    for folder in (data, data.parent, data.parent.parent):
        with contextlib.suppress(OSError):
            folder.chmod(0o755)
    process, kubeconfig = start_cluster(data, *options)
    try:
        yield kubeconfig
    finally:
        stop_cluster(process)
