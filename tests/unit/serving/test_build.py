"""Environments: built once, at their final path, with the resolver's own words when they cannot be."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving import build as build_module
from serving import environment

from .conftest import python_for
from .harness import BASE_PYTHON, build, clean_environment
from .packages import DEPLOYMENT


def python_files(requirements: str = "") -> dict[str, bytes]:
    return environment.build_files("python3.11", requirements)


@pytest.fixture
def wheelhouse(tmp_path: Path) -> str:
    """A package index of our own: 'tinything' 1.0 and 2.0, where 2.0 wants what does not exist."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    _wheel(folder, "1.0", "")
    _wheel(folder, "2.0", "Requires-Dist: nowhere-to-be-found==9.9\n")
    return str(folder)


def _wheel(folder: Path, version: str, requires: str) -> None:
    info = f"tinything-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tinything-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinything.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n{requires}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_an_environment_has_the_requirements_the_server_and_bytecode(tmp_path, wheelhouse):
    files = python_files("tinything==1.0")
    result = build(tmp_path / "envs", "abc", files, PIP_FIND_LINKS=wheelhouse)
    assert result.returncode == 0, result.stdout
    target = tmp_path / "envs" / "abc"
    shown = subprocess.run(
        [
            target / "bin" / "python",
            "-B",
            "-c",
            "import tinything, pilothouse_serving as p; print(tinything.VERSION, p.__file__)",
        ],
        capture_output=True,
        text=True,
    )
    version, path = shown.stdout.split()
    assert version == "1.0"
    assert Path(path).is_relative_to(target)
    for module in ("pilothouse_serving/__pycache__/app", "__pycache__/tinything", "starlette/__pycache__/routing"):
        assert list(Path(path).parent.parent.glob(module + ".*.pyc")), module
    assert "tinything==1.0" in (target / "packages.txt").read_text()
    assert json.loads((target / ".complete").read_text())["python"].startswith("3.")

    before = (target / ".complete").stat().st_mtime_ns
    again = build(tmp_path / "envs", "abc", files)
    assert again.returncode == 0
    assert "already built" in again.stdout
    assert (target / ".complete").stat().st_mtime_ns == before


def test_requirements_that_do_not_resolve_end_the_log_with_the_resolvers_message(tmp_path, wheelhouse):
    result = build(tmp_path, "abc", python_files("tinything==2.0"), PIP_FIND_LINKS=wheelhouse)
    assert result.returncode == 1
    assert "==> Build failed: The requirements cannot be installed." in result.stdout
    tail = result.stdout[-2048:]
    assert "nowhere-to-be-found" in tail
    assert "tinything==2.0" in tail
    assert not (tmp_path / "abc").exists()


def test_an_index_that_does_not_answer_is_worth_another_try(tmp_path):
    variables = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    result = build(tmp_path, "abc", python_files("tinything"), **variables)
    assert result.returncode == 75
    assert "==> Build failed: A package index did not answer." in result.stdout


def test_what_an_interrupted_build_left_is_made_again(tmp_path):
    left = tmp_path / "abc" / "lib"
    left.mkdir(parents=True)
    (left / "half").write_text("made")
    result = build(tmp_path, "abc", python_files())
    assert result.returncode == 0, result.stdout
    assert "Removing what an interrupted build left" in result.stdout
    assert not (left / "half").exists()


def test_an_environment_whose_python_is_gone_is_made_again(tmp_path):
    assert build(tmp_path, "abc", python_files()).returncode == 0
    interpreter = tmp_path / "abc" / "bin" / "python"
    interpreter.unlink()
    interpreter.symlink_to("/nonexistent/python")
    result = build(tmp_path, "abc", python_files())
    assert result.returncode == 0, result.stdout
    assert interpreter.resolve() != Path("/nonexistent/python")


def test_two_builds_of_one_environment_do_not_collide(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: build(tmp_path, "abc", python_files()), range(2)))
    assert [result.returncode for result in results] == [0, 0]
    assert sorted("already built" in result.stdout for result in results) == [False, True]


def test_a_build_that_is_told_to_stop_leaves_nothing(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for name, content in python_files().items():
        (files / name).write_bytes(content)
    slow = tmp_path / "uv"
    slow.write_text("#!/bin/sh\nmkdir -p $TARGET\nexec sleep 60\n")
    slow.chmod(0o755)
    environ = clean_environment(UV=str(slow), TARGET=str(tmp_path / "envs" / "abc"))
    arguments = ["--hash", "abc", "--environments", str(tmp_path / "envs")]
    process = subprocess.Popen([sys.executable, files / "build.py", *arguments], env=environ)
    while not (tmp_path / "envs" / "abc").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not (tmp_path / "envs" / "abc").exists()


def test_a_runtime_without_uv_gets_it_by_pip_once(tmp_path):
    variables = {"PATH": "/usr/bin:/bin", "PIP_FIND_LINKS": uv_by_pip(tmp_path)}
    first = build(tmp_path / "envs", "one", python_files(), **variables)
    assert first.returncode == 0, first.stdout
    assert "Installing uv" in first.stdout
    second = build(tmp_path / "envs", "two", python_files(), **variables)
    assert second.returncode == 0, second.stdout
    assert "Installing uv" not in second.stdout


def uv_by_pip(tmp_path: Path) -> str:
    """Where pip finds a uv that only passes on to the real one, so that nothing large is downloaded."""
    real = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert real
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / "uv-9999-py3-none-any.whl", "w") as wheel:
        script = zipfile.ZipInfo("uv-9999.data/scripts/uv")
        script.external_attr = (stat.S_IFREG | 0o755) << 16
        wheel.writestr(script, f'#!/bin/sh\nexec {real} "$@"\n')
        wheel.writestr("uv-9999.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 9999\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("uv-9999.dist-info/WHEEL", tags)
        wheel.writestr("uv-9999.dist-info/RECORD", "")
    return str(links)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PILOTHOUSE_ENV_HASH": "../x"}, "PILOTHOUSE_ENV_HASH"),
        ({"PILOTHOUSE_ENVIRONMENTS_DIR": ""}, "PILOTHOUSE_ENVIRONMENTS_DIR"),
        ({"UV": "/nonexistent/uv"}, "UV names '/nonexistent/uv'"),
    ],
)
def test_wrong_use_is_told(tmp_path, variables, said):
    result = build(tmp_path, "abc", python_files(), **variables)
    assert result.returncode == 2
    assert said in result.stdout


def test_pips_settings_reach_uv(tmp_path, monkeypatch):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://index.example/simple\ntrusted-host =\n    a.example\n    b.example\n"
    )
    monkeypatch.setattr(os, "environ", {"PIP_CONFIG_FILE": str(config), "PIP_TIMEOUT": "7", "VIRTUAL_ENV": "/x"})
    found = build_module.uv_environment(tmp_path)
    assert found["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert found["UV_INSECURE_HOST"] == "a.example b.example"
    assert found["UV_HTTP_TIMEOUT"] == "7"
    assert found["UV_CACHE_DIR"] == str(tmp_path / ".cache" / "uv")
    assert "VIRTUAL_ENV" not in found
    monkeypatch.setattr(os, "environ", {"PIP_CONFIG_FILE": str(config), "UV_DEFAULT_INDEX": "https://mine.example"})
    assert build_module.uv_environment(tmp_path)["UV_DEFAULT_INDEX"] == "https://mine.example"


# The oldest and the newest Python that the server promises to run on, as far as the machine has them.
FAR_APART = [path for path in map(python_for, ("3.8", "3.13")) if path] or [BASE_PYTHON]


@pytest.mark.parametrize("python", FAR_APART)
def test_the_server_runs_on_old_and_new_pythons(environments, serve, python):
    key = "python-" + str(abs(hash(python)))
    result = build(environments.folder, key, python_files(), python=python)
    assert result.returncode == 0, result.stdout
    server = serve(environments.folder / key, DEPLOYMENT + "    def requests(self, data):\n        return data\n")
    assert server.request({"a": 1}) == {"a": 1}
    assert server.post("/requests", [1]).json() == {"results": [{"result": 1}]}
    assert server.stream("x") == [("result", '{"result":"x"}')]
    assert server.client.get("/v2/models/demo").status_code == 200


# Old versions, which the server's own requirements must not push away.
def test_old_pins_of_the_user_win(environments, serve):
    env = environments.get("starlette==0.27.0\nuvicorn==0.20.0\nanyio==3.7.1\nclick==8.0.4\nh11==0.14.0\n")
    frozen = (env / "packages.txt").read_text()
    assert "starlette==0.27.0" in frozen
    assert "anyio==3.7.1" in frozen
    server = serve(env, DEPLOYMENT)
    assert server.request([1]) == [1]
    assert server.stream("x") == [("result", '{"result":"x"}')]
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_environments_are_removed_and_what_only_they_had_leaves_the_cache(tmp_path, wheelhouse):
    envs = tmp_path / "envs"
    for key in ("old", "kept"):
        assert with_cache(envs, key, wheelhouse).returncode == 0
    assert cached(envs) > 0
    before = cached(envs)
    removed = removal(envs, "old never-there")
    assert removed.returncode == 0, removed.stdout
    assert "Removed old" in removed.stdout
    assert not (envs / "old").exists()
    assert cached(envs) == before  # the other one has the same
    assert runs(envs / "kept")

    assert removal(envs, "kept").returncode == 0
    assert cached(envs) == 0
    # uv makes up for what is gone.
    assert with_cache(envs, "again", wheelhouse).returncode == 0
    assert runs(envs / "again")


def test_a_cache_that_a_build_is_using_is_left_alone(tmp_path, wheelhouse):
    envs = tmp_path / "envs"
    assert with_cache(envs, "old", wheelhouse).returncode == 0
    before = cached(envs)
    with build_module.lock(envs, "cache", shared=True):
        removed = removal(envs, "old")
    assert (removed.returncode, cached(envs)) == (0, before)
    assert "stays as it is" in removed.stdout
    assert not (envs / "old").exists()


def test_a_tree_is_prepared_with_a_uv_that_others_can_only_read(tmp_path):
    """Whoever installs packages of its own finds uv in the shared tree, and never brings one for others."""
    variables = {"PATH": "/usr/bin:/bin", "PIP_FIND_LINKS": uv_by_pip(tmp_path)}
    volume = tmp_path / "volume"
    volume.mkdir()
    script = {"build.py": environment.build_script()}
    prepared = build(volume, "", script, arguments=("--prepare", "one"), **variables)
    assert prepared.returncode == 0, prepared.stdout
    assert "Installing uv" in prepared.stdout
    again = build(volume, "", script, arguments=("--prepare", "two"), **variables)
    assert (again.returncode, again.stdout) == (0, "")
    assert sorted(path.name for path in volume.iterdir()) == ["one", "shared", "two"]

    made = build(volume / "one", "abc", python_files(), **variables)
    assert made.returncode == 0, made.stdout
    assert "Installing uv" not in made.stdout
    assert (volume / "one" / "abc" / ".complete").is_file()
    assert not (volume / "one" / ".tools").exists()


def test_where_nothing_may_be_run_environments_alone_are_removed(tmp_path, wheelhouse):
    envs = tmp_path / "envs"
    assert with_cache(envs, "old", wheelhouse).returncode == 0
    before = cached(envs)
    script = {"build.py": environment.build_script()}
    gone = {"PILOTHOUSE_ENV_REMOVE": "old", "UV": "/bin/false"}
    removed = build(envs, "", script, arguments=("--keep-cache",), **gone)
    assert removed.returncode == 0, removed.stdout
    assert (cached(envs), (envs / "old").exists()) == (before, False)


@pytest.mark.parametrize("name", ["../other", ".cache", "/etc", "a/b"])
def test_nothing_but_environments_can_be_removed(tmp_path, name):
    (tmp_path / "envs" / ".cache").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    assert removal(tmp_path / "envs", name).returncode == build_module.EXIT_USAGE
    assert (tmp_path / "other").exists()
    assert (tmp_path / "envs" / ".cache").exists()


def cached(envs: Path) -> int:
    return len(list((envs / ".cache" / "uv").glob("archive-v*/*")))


def runs(target: Path) -> bool:
    return subprocess.run([target / "bin" / "python", "-c", "import tinything, starlette"], check=False).returncode == 0


def with_cache(envs: Path, key: str, wheelhouse: str) -> subprocess.CompletedProcess[str]:
    """A build with a cache beside it, as in a pod."""
    cache = str(envs / ".cache" / "uv")
    return build(envs, key, python_files("tinything==1.0"), PIP_FIND_LINKS=wheelhouse, UV_CACHE_DIR=cache)


def removal(envs: Path, names: str) -> subprocess.CompletedProcess[str]:
    return build(envs, "", {"build.py": environment.build_script()}, PILOTHOUSE_ENV_REMOVE=names)
