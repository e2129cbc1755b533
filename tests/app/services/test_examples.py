"""Every example can be created and uploaded as it lies in the repository."""

import json
from pathlib import Path

import pytest

from deployments.services import deployments, revisions
from tests.app.services.conftest import World, zipped

EXAMPLES = sorted(path.parent for path in Path(__file__).parents[3].glob("examples/*/pilothouse.json"))


def test_there_are_examples():
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_accepted(world: World, folder: Path):
    about = json.loads((folder / "pilothouse.json").read_text())
    deployment = deployments.create_deployment(
        world.editor,
        world.project,
        name="example",
        input_type=about["input_type"],
        output_type=about["output_type"],
        input_fields=about["input_fields"],
        output_fields=about["output_fields"],
    )
    version = deployments.create_version(
        world.editor, deployment, version="v1", environment=about["runtime"].replace(".", "-")
    )
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    made = revisions.upload_package(world.editor, version, zipped(dict(files)))
    assert made.has_request_method
    assert made.environment_build is not None
    assert made.environment_build.runtime == about["runtime"]
