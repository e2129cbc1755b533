"""The examples: described in full, packaged, served, and run by the public client unchanged."""

import io
import json
import subprocess
import zipfile

import pytest
from ubiops.utils import run_local

from serving.package import inspect

from .conftest import EXAMPLES

FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/pilothouse.json"))
TYPES = {"int", "double", "string", "bool", "dict", "array_int", "array_double", "array_string"}
# What the answer to the example request must hold, apart from its fields.
ANSWERS = {
    "onnx": {"digit": 2},
    "r-lm": {"mpg": 23.57},
    "sklearn-1.2-regression": {"scikit_learn": "1.2.2"},
    "sklearn-classifier": {"species": "setosa"},
    "streaming-echo": {"words": 8},
    "text-classifier": {"topic": "breast_cancer"},
}


def described(folder):
    return json.loads((folder / "pilothouse.json").read_text())


def fits(value: object, data_type: str) -> bool:
    scalar = {"int": int, "double": (int, float), "string": str, "bool": bool, "dict": dict}
    if data_type.startswith("array_"):
        return isinstance(value, list) and all(isinstance(item, scalar[data_type[6:]]) for item in value)
    return isinstance(value, scalar[data_type])


def test_each_kind_has_an_example():
    assert [folder.name for folder in FOLDERS] == sorted(ANSWERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_is_complete_and_small(folder):
    about = described(folder)
    assert set(about) >= {"title", "sentence", "runtime", "input_type", "output_type", "request"}
    assert {field["data_type"] for field in about["input_fields"] + about["output_fields"]} <= TYPES
    assert about["request"] == json.loads((folder / "request.json").read_text())
    assert set(about["request"]) == {field["name"] for field in about["input_fields"]}
    for field in about["input_fields"]:
        assert fits(about["request"][field["name"]], field["data_type"]), field
    assert 5 <= len((folder / "README.md").read_text().splitlines()) <= 20
    # Readable in a minute, and nothing large in the repository.
    code = next(folder.glob("deployment.*"))
    assert len(code.read_text().splitlines()) <= 40
    assert all(path.stat().st_size < 50_000 for path in folder.iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_is_a_package_without_problems(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"{folder.name}/{path.name}")
    found = inspect(buffer)
    assert found.problems == []
    assert found.language == ("r" if described(folder)["runtime"].startswith("r") else "python")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_answers_its_request(folder, environments, models, serve):
    about = described(folder)
    if folder.name == "sklearn-1.2-regression":
        env = environments.get((folder / "requirements.txt").read_text())
    else:
        env = models
    server = serve(env, folder)
    answer = server.request(about["request"])
    assert {field["name"] for field in about["output_fields"]} == set(answer)
    for field in about["output_fields"]:
        assert fits(answer[field["name"]], field["data_type"]), field
    assert ANSWERS[folder.name].items() <= answer.items()
    if folder.name == "streaming-echo":
        events = server.stream(dict(about["request"], seconds_per_word=0))
        assert [data for event, data in events if event == "message"] == [
            word + " " for word in about["request"]["text"].split()
        ]


def test_the_models_environment_satisfies_the_pins_of_the_examples(models):
    frozen = set((models / "packages.txt").read_text().split())
    for folder in FOLDERS:
        requirements = folder / "requirements.txt"
        if folder.name == "sklearn-1.2-regression" or not requirements.exists():
            continue
        pins = {line for line in requirements.read_text().split() if "==" in line}
        assert pins <= frozen, folder.name


def test_the_public_client_runs_an_example_unchanged():
    folder = EXAMPLES / "streaming-echo"
    data = {"text": "one two", "seconds_per_word": 0}
    assert run_local(str(folder), data) == {"text": "one two", "words": 2}
    assert run_local(str(folder), [data]) == [{"text": "one two", "words": 2}]


COMPARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from deployment import Deployment
data = json.load(open(sys.argv[1] + "/request.json"))
for folder in sys.argv[1:]:
    result = Deployment(folder, {}).request(data)
    print(json.dumps([result.get("species", result.get("topic")), float(result["probability"])]))
"""


@pytest.mark.parametrize("name", ["sklearn-classifier", "text-classifier"])
def test_training_makes_the_model_again(name, models, tmp_path):
    folder, python = EXAMPLES / name, models / "bin" / "python"
    (tmp_path / "train.py").write_bytes((folder / "train.py").read_bytes())
    subprocess.run([python, tmp_path / "train.py"], check=True, capture_output=True)
    command = [python, "-B", "-c", COMPARE, folder, tmp_path]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kept, made = map(json.loads, shown.splitlines())
    assert made == [kept[0], pytest.approx(kept[1], abs=1e-6)]


def test_the_registry_model_is_trained_and_served_without_code(models, serve, tmp_path):
    folder = EXAMPLES / "registry"
    subprocess.run([models / "bin" / "python", folder / "wine.py", tmp_path], check=True, capture_output=True)
    server = serve(models, tmp_path, PILOTHOUSE_MODEL_FRAMEWORK="sklearn-joblib")
    answer = server.request(json.loads((folder / "request.json").read_text()))
    assert answer["prediction"] == "Barolo"
    assert set(answer["probabilities"]) == {"Barolo", "Grignolino", "Barbera"}
