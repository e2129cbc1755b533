"""What one project's build and instances can reach of another's environments: nothing, by real pods that try."""

import functools
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from accounts.models import Project, Role
from deployments.models import DeploymentVersion, EnvironmentBuild, Rollout
from deployments.services import revisions
from kube.connect import Cluster
from tests.app import factories
from tests.app.reconcile.conftest import roll
from tests.app.reconcile.test_rollouts import ask

# Goes over every folder that it is given and tells what it could list, and where it could write.
PROBE = """
import os
def probe(folders):
    found = {}
    for name, folder in folders.items():
        seen = {"listed": [], "written": False}
        try:
            seen["listed"] = sorted(os.listdir(folder))
            with open(os.path.join(folder, "planted"), "w") as file:
                file.write("hostile")
            seen["written"] = True
        except OSError as error:
            seen["error"] = type(error).__name__
        found[name] = seen
    return found
"""
# A build backend within a source distribution: pip and uv run it to make the wheel, which brings home what it found.
BACKEND = """
import json, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "nosy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel_directory + "/" + name, "w") as wheel:
        wheel.writestr("nosy.py", f"{PROBE}\\nFOUND = {probe(FOLDERS)!r}\\nFOLDERS = {FOLDERS!r}\\n")
        wheel.writestr("nosy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: nosy\\nVersion: 1.0\\n")
        wheel.writestr("nosy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("nosy-1.0.dist-info/RECORD", "")
    return name
"""
DEPLOYMENT = """
import nosy
class Deployment:
    def request(self, data):
        return {"build": nosy.FOUND, "instance": nosy.probe(nosy.FOLDERS)}
"""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of a page of links to what the test puts into its folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def nosy(folder: Path, places: dict[str, str]) -> None:
    """Puts a source distribution into the folder that looks into these places when it is built."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"PROBE = {PROBE!r}\nFOLDERS = {json.dumps(places)}\n{PROBE}{BACKEND}",
        "PKG-INFO": "Metadata-Version: 2.1\nName: nosy\nVersion: 1.0\n",
    }
    with tarfile.open(folder / "nosy-1.0.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"nosy-1.0/{name}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))


def serve(project: Project, files: dict[str, str | bytes]) -> tuple[DeploymentVersion, EnvironmentBuild]:
    """A version in the project that answers, and the build that it runs in."""
    deployment = factories.deployment(project, input_fields=[], output_fields=[])
    version = factories.version(deployment, instance_type=factories.instance_type("256mb"))
    actor = factories.member(project, Role.EDITOR)
    revision = revisions.upload_package(actor, version, io.BytesIO(factories.package(files)), file_name="package.zip")
    rollout = roll(version)
    build = EnvironmentBuild.objects.get(pk=revision.environment_build_id)
    assert rollout.state == Rollout.State.COMPLETE, (rollout.reason_message, build.log)
    return version, build


def contents(folder: Path) -> dict[str, float]:
    return {
        os.path.join(path, name): os.lstat(os.path.join(path, name)).st_mtime
        for path, _, names in os.walk(folder)
        for name in names
    }


def test_a_hostile_build_reaches_nothing_but_its_own_projects_tree(
    cluster: Cluster, project: Project, tmp_path: Path, index: str
) -> None:
    volume = Path(settings.PILOTHOUSE_ENVIRONMENTS_DIR)
    own, victim = project, factories.project()
    _, theirs = serve(victim, {"deployment.py": factories.ECHO, "requirements.txt": "six\n"})
    _, shared = serve(victim, {"deployment.py": factories.ECHO})
    assert (theirs.tree, shared.tree) == (victim.pk.hex, "shared")
    before = contents(volume / theirs.tree), contents(volume / "shared")

    places = {
        "volume": "",
        "shared": "shared",
        "shared environment": shared.directory,
        "shared cache": "shared/.cache",
        "other": theirs.tree,
        "other environment": theirs.directory,
        "other cache": f"{theirs.tree}/.cache/uv",
        "own": own.pk.hex,
    }
    nosy(tmp_path, {name: str(volume / place) for name, place in places.items()})
    requirements = f"--find-links {index}\nnosy==1.0\n"
    version, build = serve(own, {"deployment.py": DEPLOYMENT, "requirements.txt": requirements})
    assert build.tree == own.pk.hex
    answer = ask(factories.member(own, Role.EDITOR), version).result

    nothing = {"listed": [], "written": False}
    for place in ("other", "other environment", "other cache"):
        for found in (answer["build"], answer["instance"]):
            assert found[place] == {**nothing, "error": "FileNotFoundError"}
    # Of the volume there is only what is mounted; of others' trees not even the names.
    assert set(answer["build"]["volume"]["listed"]) <= {own.pk.hex, "shared"}
    assert set(answer["instance"]["volume"]["listed"]) <= {own.pk.hex}
    for place in ("shared", "shared environment", "shared cache"):
        assert answer["build"][place]["listed"]
        assert not answer["build"][place]["written"]
        assert answer["instance"][place] == {**nothing, "error": "FileNotFoundError"}
    # Its own is its own, but only builds write there.
    assert answer["build"]["own"]["written"]
    assert build.hash in answer["instance"]["own"]["listed"]
    assert not answer["instance"]["own"]["written"]

    assert (contents(volume / theirs.tree), contents(volume / "shared")) == before
    assert not (volume / "planted").exists()
    assert (volume / own.pk.hex / "planted").exists()
