"""Environments built as pods build them, and servers running in them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving import environment

from .harness import BuildFailed, Server, build

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = REPOSITORY / "examples"


class Environments:
    """Builds each environment once per test session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._built: dict[str, Path] = {}

    def get(self, requirements: str = "", runtime: str = "python3.11") -> Path:
        """The environment with these requirements; built on first use."""
        key = environment.environment_hash(runtime, requirements, environment.serving_archive()[1], "test")
        if key not in self._built:
            # Here most of what is installed is imported once or never: compiling all of it would be a waste.
            files = environment.build_files(runtime, requirements)
            result = build(self.folder, key, files, UV_COMPILE_BYTECODE="0")
            if result.returncode:
                raise BuildFailed(result.stdout)
            self._built[key] = self.folder / key
        return self._built[key]


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    folder = tmp_path_factory.mktemp("environments")
    yield Environments(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def plain(environments: Environments) -> Path:
    """An environment with nothing but the server."""
    return environments.get()


@pytest.fixture(scope="session")
def models(environments: Environments) -> Path:
    """An environment that serves every kind of registry model."""
    return environments.get("scikit-learn==1.9.1\njoblib\nskops\nonnxruntime\npandas\n")


@pytest.fixture(scope="session")
def trained(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with one trained model each, made by scikit-learn itself."""
    folder = tmp_path_factory.mktemp("trained")
    script = Path(__file__).with_name("train_models.py")
    subprocess.run([models / "bin" / "python", script, folder], check=True)
    return folder


@pytest.fixture(scope="session")
def rscript() -> str:
    found = shutil.which("Rscript")
    assert found, "Rscript is missing: install R (Debian's r-base-core); `make test` does so where it may."
    return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator["Serve"]:
    with ExitStack() as stack:
        yield Serve(stack, tmp_path)


class Serve:
    """Starts servers that end with the test."""

    def __init__(self, stack: ExitStack, tmp_path: Path) -> None:
        self._stack = stack
        self._tmp_path = tmp_path
        self._count = 0

    def __call__(self, env: Path, package: Path | str | dict[str, str], ready: bool = True, **variables: str) -> Server:
        """Serve a package folder, the code of a deployment.py, or files by name."""
        if not isinstance(package, Path):
            files = {"deployment.py": package} if isinstance(package, str) else package
            self._count += 1
            package = self._tmp_path / f"package-{self._count}"
            package.mkdir()
            for name, content in files.items():
                (package / name).write_text(content)
        server = self._stack.enter_context(Server(env, package, **variables))
        if ready:
            server.wait_ready()
        return server


def python_for(version: str) -> str | None:
    """An interpreter of this minor version, if the machine has one."""
    candidates = [shutil.which(f"python{version}")]
    candidates += [str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for path in filter(None, candidates):
        tried = subprocess.run([path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if tried.returncode == 0 and tried.stdout.strip() == str(tuple(map(int, version.split(".")))):
            return path
    return None
