"""Containers as processes, in every isolation this machine permits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from localcluster.kubelet.isolation import probe
from localcluster.kubelet.processes import Shim, ShimServer, StartError, is_locked, read_exit
from localcluster.kubelet.shim.log import Log

PATH = "/usr/local/bin:/usr/bin:/bin"
KINDS = ("none", "strongest")


@pytest.fixture
async def shims() -> AsyncIterator[ShimServer]:
    server = ShimServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def strongest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture(params=KINDS)
def isolation(request: pytest.FixtureRequest, strongest: str) -> str:
    return "none" if request.param == "none" else strongest


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not look():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)


def config(directory: Path, isolation: str, *argv: str, **more: Any) -> dict[str, Any]:
    root = directory / "root"
    for name in ("tmp", "home"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(0o777)
    return {
        "directory": str(directory),
        "root": str(root),
        "argv": list(argv),
        "env": {"PATH": PATH, "A": "value"},
        "cwd": "/",
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "switch_user": False,
        "isolation": isolation,
        "hostname": "box",
        "mounts": [],
        "log_limit": 1 << 20,
        "log_files": 2,
        **more,
    }


def lines(directory: Path) -> list[tuple[str, str, str]]:
    """(stream, P or F, text) of the stored log."""
    found = []
    for line in (directory / "log").read_text().splitlines():
        _, stream, kind, text = line.split(" ", 3)
        found.append((stream, kind, text))
    return found


async def test_output_and_exit_code_are_kept(shims: ShimServer, tmp_path: Path, isolation: str) -> None:
    script = 'echo "$A"; echo bad >&2; printf rest; exit 3'
    shim = await shims.run(config(tmp_path, isolation, "sh", "-c", script))
    outcome = await shim.wait()
    assert outcome["exitCode"] == 3
    assert outcome["oom"] is False
    assert outcome["finishedAt"] >= outcome["startedAt"] > 0
    assert sorted(lines(tmp_path)) == [("stderr", "F", "bad"), ("stdout", "F", "value"), ("stdout", "P", "rest")]
    assert read_exit(tmp_path) == outcome
    assert not is_locked(tmp_path)


async def test_only_the_declared_environment(
    shims: ShimServer, tmp_path: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBELET_SECRET", "x")
    shim = await shims.run(config(tmp_path, isolation, "env"))
    await shim.wait()
    names = {text.partition("=")[0] for _, _, text in lines(tmp_path)}
    assert names == {"PATH", "A"}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/does/not/exist", 'exec: "/does/not/exist": stat /does/not/exist: no such file or directory'),
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
async def test_programs_that_cannot_be_run(
    shims: ShimServer, tmp_path: Path, isolation: str, program: str, reason: str
) -> None:
    with pytest.raises(StartError) as failed:
        await shims.run(config(tmp_path, isolation, program))
    assert str(failed.value) == reason
    outcome = read_exit(tmp_path)
    assert outcome is not None
    assert outcome["exitCode"] == 128


async def test_the_whole_tree_ends_with_its_main_process(shims: ShimServer, tmp_path: Path, isolation: str) -> None:
    script = "(setsid sleep 1000 &) ; (sleep 1000 &) ; echo up; exec sleep 1000"
    shim = await shims.run(config(tmp_path, isolation, "sh", "-c", script))
    await until(lambda: (tmp_path / "log").read_text())
    tree = psutil.Process(shim.shim).children(recursive=True)
    assert len(tree) >= 3
    shim.kill()
    outcome = await shim.wait()
    assert outcome["exitCode"] == 137
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert alive == []


async def test_a_container_dies_with_its_shim(shims: ShimServer, tmp_path: Path, isolation: str) -> None:
    shim = await shims.run(config(tmp_path, isolation, "sleep", "1000"))
    main = psutil.Process(shim.pid)
    os.kill(shim.shim, signal.SIGKILL)
    outcome = await shim.wait()
    assert outcome["unknown"]
    psutil.wait_procs([main], timeout=5)
    assert not main.is_running() or main.status() == psutil.STATUS_ZOMBIE


async def test_a_container_outlives_the_server_and_is_found_again(tmp_path: Path, isolation: str) -> None:
    first = ShimServer()
    started = await first.run(config(tmp_path, isolation, "sh", "-c", "sleep 0.5; exit 4"))
    first.close()
    assert is_locked(tmp_path)
    found = await Shim.find(tmp_path)
    assert found is not None
    assert (found.pid, found.start) == (started.pid, started.start)
    assert (await found.wait())["exitCode"] == 4
    assert await Shim.find(tmp_path) is None


async def test_a_second_start_in_the_same_place_is_refused(shims: ShimServer, tmp_path: Path, isolation: str) -> None:
    shim = await shims.run(config(tmp_path, isolation, "sleep", "1000"))
    with pytest.raises(BlockingIOError):
        await shims.run(config(tmp_path, isolation, "sleep", "1000"))
    shim.kill()
    await shim.wait()


async def test_commands_run_inside(shims: ShimServer, tmp_path: Path, isolation: str) -> None:
    body = config(tmp_path, isolation, "sh", "-c", "touch /tmp/mark 2>/dev/null; exec sleep 1000")
    shim = await shims.run(body)
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    inside = body | {"pid": shim.pid, "argv": ["sh", "-c", 'echo "$A"; exit 5']}
    answers = shims.execute(inside, null, writer, writer)
    os.close(writer)
    os.close(null)
    first = json.loads(await answers.readline())
    assert first["pid"] > 0
    assert json.loads(await answers.readline()) == {"exitCode": 5}
    assert os.read(reader, 100) == b"value\n"
    os.close(reader)
    shim.kill()
    await shim.wait()


async def test_memory_is_watched_where_no_cgroup_limits_it(shims: ShimServer, tmp_path: Path) -> None:
    script = "python3 -c \"x=[]\nimport time\nwhile 1: x.append(bytearray(b'x'*4000000)); time.sleep(0.005)\""
    shim = await shims.run(config(tmp_path, "none", "sh", "-c", script, memory_poll=64 << 20, env=dict(os.environ)))
    outcome = await shim.wait()
    assert outcome["oom"] is True
    assert outcome["exitCode"] == 137


async def test_a_root_of_its_own(shims: ShimServer, tmp_path: Path, strongest: str) -> None:
    """Volumes are where they are said to be, and the rest of the machine is out of sight."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "file").write_text("content")
    mounts = [
        {"source": str(tmp_path / "volume"), "target": "/data/in", "readonly": True},
        {"source": str(tmp_path / "volume"), "target": "/var/run/deep/out"},
    ]
    script = f"cat /data/in/file; echo; hostname; ls -d {tmp_path} /root/.ssh 2>&1 | wc -l; echo x > /data/in/new"
    if strongest == "none":
        assert probe(tmp_path / "again") == "none"  # a machine without namespaces stays so
        return
    shim = await shims.run(config(tmp_path, strongest, "sh", "-c", script, mounts=mounts))
    await shim.wait()
    texts = [text for stream, _, text in lines(tmp_path) if stream == "stdout"]
    assert texts[:2] == ["content", "box"]
    assert not (tmp_path / "volume" / "new").exists()
    assert "Read-only file system" in " ".join(text for stream, _, text in lines(tmp_path) if stream == "stderr")


def test_log_rotation_and_long_lines(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), limit=50_000, keep=2)
    log.feed("stdout", b"x" * 40_000)
    log.feed("stdout", b"y\nshort\n")
    entries = [line.split(b" ", 3) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [(entry[2], len(entry[3])) for entry in entries] == [(b"P", 16384), (b"P", 16384), (b"F", 7233), (b"F", 5)]
    for _ in range(4):
        log.feed("stderr", b"z" * 15_000 + b"\n")
    log.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert (tmp_path / "log").stat().st_size <= 50_000
