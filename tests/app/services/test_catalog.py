"""The model registry."""

import io
from pathlib import Path
from typing import Any

import pytest

from accounts.errors import Conflict, Invalid
from accounts.models import AuditEvent
from deployments.models import Model, ModelVersion
from deployments.services import catalog
from tests.app import factories
from tests.app.services.conftest import World

PICKLE = b"\x80\x04K\x01."
SIGNATURE = {"inputs": [{"name": "x", "data_type": "array_double"}], "outputs": [{"name": "y", "data_type": "int"}]}


def _add(world: World, content: bytes = PICKLE, **fields: Any) -> ModelVersion:
    fields.setdefault("framework", "sklearn-joblib")
    return catalog.create_model_version(world.editor, world.model, file=io.BytesIO(content), **fields)


EXAMPLE = next(Path(__file__).parents[3].glob("examples/sklearn-1.2-regression/*.joblib"))


def test_a_model_is_stored_changed_and_deleted(world: World):
    model = catalog.create_model(world.editor, world.project, name="wine", labels={"a": "b"})
    catalog.update_model(world.editor, model, name="wines", description="Reds")
    stored = Model.objects.get(pk=model.pk)
    assert (stored.name, stored.description, stored.labels) == ("wines", "Reds", {"a": "b"})
    catalog.delete_model(world.editor, model)
    assert not Model.objects.filter(pk=model.pk).exists()
    assert [event.action for event in AuditEvent.objects.all()] == ["delete", "update", "create"]


def test_bad_names_and_duplicates_are_refused(world: World):
    with pytest.raises(Invalid) as refusal:
        catalog.create_model(world.editor, world.project, name="Bad Name", labels={"a": 1})  # type: ignore[dict-item]
    assert set(refusal.value.fields) == {"name", "labels"}
    with pytest.raises(Conflict, match="already a model named"):
        catalog.create_model(world.editor, world.project, name=world.model.name)
    with pytest.raises(Conflict, match="already a model named"):
        catalog.update_model(world.editor, factories.model(world.project), name=world.model.name)


def test_versions_are_numbered_and_immutable_files(world: World):
    made = _add(
        world, file_name="/tmp/model.joblib", requirements="scikit-learn==1.5.0", signature=SIGNATURE, source={"run": 7}
    )
    stored = ModelVersion.objects.get(pk=made.pk)
    assert (stored.number, stored.file_name, stored.size) == (2, "model.joblib", len(PICKLE))
    assert (stored.signature, stored.source, stored.created_by) == (SIGNATURE, {"run": 7}, world.editor)
    with catalog.open_file(world.viewer, stored).open() as file:
        assert file.read() == PICKLE
    assert _add(world).number == 3


@pytest.mark.parametrize(
    ("field", "content", "given", "says"),
    [
        ("file", b"", {}, "empty"),
        ("file", b"<html>", {}, "can be served without code"),
        ("file", PICKLE, {"framework": "sklearn-skops"}, "skops.io.dump"),
        ("file", PICKLE, {"framework": "onnx"}, "skl2onnx"),
        ("framework", PICKLE, {"framework": "keras"}, "sklearn-joblib, sklearn-skops, onnx"),
        ("requirements", PICKLE, {"requirements": "-e ."}, "line 1"),
        ("signature", PICKLE, {"signature": {"input": []}}, '"inputs" and "outputs"'),
        ("signature", PICKLE, {"signature": {"inputs": [{"name": "x", "data_type": "tensor"}]}}, "use one of"),
        ("source", PICKLE, {"source": {"log": "x" * 70_000}}, "at most 64 KiB"),
        ("description", PICKLE, {"description": 3}, "Give a text"),
    ],
)
def test_a_bad_version_is_refused_by_field(world: World, field: str, content: bytes, given: dict[str, Any], says: str):
    with pytest.raises(Invalid) as refusal:
        _add(world, content, **given)
    assert says in refusal.value.fields[field]
    assert world.model.versions.count() == 1


def test_framework_and_requirements_are_read_from_the_file(world: World):
    wine = EXAMPLE.read_bytes()
    model = factories.model(world.project)
    found = catalog.create_model_version(world.admin, model, file=io.BytesIO(wine), file_name="model.joblib")
    assert found.framework == "sklearn-joblib"
    assert "scikit-learn==" in found.requirements
    given = catalog.create_model_version(world.admin, model, file=io.BytesIO(wine), requirements="scikit-learn==1.4.0")
    assert given.requirements == "scikit-learn==1.4.0"
    with pytest.raises(Invalid) as refusal:
        catalog.create_model_version(world.admin, model, file=io.BytesIO(wine), framework="onnx")
    assert set(refusal.value.fields) == {"file"}


def test_artifacts_are_never_unpickled_here(world: World):
    # Would create a file if anything loaded it.
    bomb = b"\x80\x04cposix\nsystem\n(X\x12\x00\x00\x00touch /tmp/ph-bombtR."
    assert _add(world, bomb).size == len(bomb)


def test_what_a_deployment_uses_is_not_deleted(world: World):
    factories.revision(world.version, kind="model", model_version=world.model_version, target=False)
    for delete in (
        lambda: catalog.delete_model(world.editor, world.model),
        lambda: catalog.delete_model_version(world.editor, world.model_version),
    ):
        with pytest.raises(Conflict, match=f"is used by {world.deployment.name}/v1; delete"):
            delete()
    assert ModelVersion.objects.filter(pk=world.model_version.pk).exists()
