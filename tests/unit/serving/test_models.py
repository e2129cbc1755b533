"""Registry models served without code: scikit-learn by joblib and skops, ONNX."""

import json
import subprocess

import pytest

from serving.artifact import inspect_model

from .conftest import EXAMPLES

SETOSA = [5.1, 3.5, 1.4, 0.2]
VIRGINICA = [6.7, 3.0, 5.2, 2.3]


@pytest.fixture(scope="module")
def start(models, trained):
    from .harness import Server

    running = {}

    def start(name: str, framework: str = "sklearn-joblib") -> Server:
        if name not in running:
            package = EXAMPLES / name if name == "onnx" else trained / name
            running[name] = Server(models, package, PILOTHOUSE_MODEL_FRAMEWORK=framework)
            running[name].wait_ready()
        return running[name]

    yield start
    for server in running.values():
        server.__exit__(None, None, None)


@pytest.fixture(params=["iris", "iris-skops"])
def iris(request, start):
    return start(request.param, "sklearn-skops" if request.param == "iris-skops" else "sklearn-joblib")


def test_one_row_gives_one_prediction(iris):
    answer = iris.request({"data": SETOSA})
    assert answer["prediction"] == "setosa"
    assert set(answer["probabilities"]) == {"setosa", "versicolor", "virginica"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert max(answer["probabilities"], key=answer["probabilities"].get) == "setosa"


def test_rows_give_lists(iris):
    answer = iris.request({"data": [SETOSA, VIRGINICA]})
    assert answer["prediction"] == ["setosa", "virginica"]
    assert len(answer["probabilities"]) == 2
    assert iris.request([VIRGINICA])["prediction"] == ["virginica"]


def test_a_batch_and_v1(iris):
    batch = iris.post("/requests", [{"data": SETOSA}, {"data": [1]}]).json()["results"]
    assert batch[0]["result"]["prediction"] == "setosa"
    assert "row 0 has 1 values, the model has 4 features" in batch[1]["error"]["message"]
    assert iris.post("/v1/models/demo:predict", {"instances": [SETOSA, VIRGINICA]}).json() == {
        "predictions": ["setosa", "virginica"]
    }


def test_v2(iris):
    described = iris.client.get("/v2/models/demo").json()
    assert described["platform"] == "sklearn"
    assert described["inputs"] == [{"name": "data", "datatype": "FP64", "shape": [-1, 4]}]
    assert described["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]}
    tensor = {"name": "data", "datatype": "FP32", "shape": [2, 4], "data": [*SETOSA, *VIRGINICA]}
    prediction, probabilities = iris.post("/v2/models/demo/infer", {"inputs": [tensor]}).json()["outputs"]
    assert prediction == {
        "name": "prediction",
        "datatype": "BYTES",
        "shape": [2],
        "data": ["setosa", "virginica"],
    }
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP64", [2, 3])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "Field 'data' is missing: a row, or a list of rows of 4 values"),
        ({"data": []}, "Field 'data' must be a row"),
        ({"data": "x"}, "Field 'data' must be a row"),
        ({"data": [SETOSA, 3]}, "row 1 is not a list"),
        ({"data": [1, 2, 3]}, "row 0 has 3 values, the model has 4 features"),
        ({"data": ["a", "b", "c", "d"]}, "The model does not take this input"),
        ({"data": [1, 2, 3, None]}, "The model does not take this input"),
    ],
)
def test_input_that_does_not_fit_is_422_and_names_the_field(iris, data, said):
    answer = iris.post("/request", data)
    assert answer.status_code == 422
    assert said in answer.json()["error"]["message"]


def test_a_regression_has_no_probabilities(start):
    assert list(start("diabetes").request({"data": [0.1] * 10})) == ["prediction"]


def test_texts(start):
    server = start("mood")
    assert server.request({"text": "very good"})["prediction"] == "glad"
    assert server.request(["good", "bad"])["prediction"] == ["glad", "sad"]
    assert server.post("/v1/models/demo:predict", {"instances": ["bad"]}).json() == {"predictions": ["sad"]}
    assert "Field 'text' must be a text" in server.post("/request", {"text": 3}).json()["error"]["message"]


def test_features_with_names_are_fields(start):
    server = start("named")
    assert server.request({"width": 2, "height": 4}) == server.request({"data": [2, 4]})
    assert server.request({"width": [2, 2], "height": [4, 4]}) == server.request({"data": [[2, 4], [2, 4]]})
    missing = server.post("/request", {"width": 2}).json()["error"]["message"]
    assert missing == "Field 'height' is missing. The model's features are width, height."
    assert "Field 'depth' is not known" in server.post("/request", {"width": 1, "height": 1, "depth": 1}).text
    tensors = [{"name": name, "datatype": "FP64", "shape": [1], "data": [2]} for name in ("height", "width")]
    [output] = server.post("/v2/models/demo/infer", {"inputs": tensors}).json()["outputs"]
    assert output["shape"] == [1]


def test_onnx(start):
    server = start("onnx", "onnx")
    example = json.loads((EXAMPLES / "onnx" / "request.json").read_text())
    answer = server.request(example)
    assert answer["label"] == 2
    assert max(range(10), key=answer["probabilities"].__getitem__) == 2
    rows = server.request({"data": [example["pixels"]] * 2})
    assert rows["label"] == [2, 2]
    described = server.client.get("/v2/models/demo").json()
    assert described["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": example["pixels"]}
    label, probabilities = server.post("/v2/models/demo/infer", {"inputs": [tensor]}).json()["outputs"]
    assert label == {"name": "label", "datatype": "INT64", "shape": [1], "data": [2]}
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [1, 10])
    predictions = server.post("/v1/models/demo:predict", {"instances": [example["pixels"]] * 2}).json()["predictions"]
    assert [item["label"] for item in predictions] == [2, 2]
    wrong = server.post("/request", {"pixels": [1, 2]})
    assert wrong.status_code == 422
    assert wrong.json()["error"]["message"] == "Field 'pixels' has shape [1, 2]; the model takes ['any', 64]."
    assert "Field 'pixels' is missing" in server.post("/request", {"pixel": 1}).json()["error"]["message"]


def test_skops_types_that_are_not_trusted_are_listed(serve, models, trained):
    refused = serve(models, trained / "suspicious", ready=False, PILOTHOUSE_MODEL_FRAMEWORK="sklearn-skops")
    assert refused.wait_exit() == 1
    assert "types that are not trusted: numpy.nan_to_num" in refused.log
    trusted = {"PILOTHOUSE_SKOPS_TRUSTED": "numpy.nan_to_num"}
    server = serve(models, trained / "suspicious", PILOTHOUSE_MODEL_FRAMEWORK="sklearn-skops", **trusted)
    assert server.request({"data": [1.5]})["prediction"] == pytest.approx(1.5, abs=0.2)


def test_what_is_no_model_ends_with_a_sentence(serve, models, trained, tmp_path):
    server = serve(models, trained / "dict", ready=False, PILOTHOUSE_MODEL_FRAMEWORK="sklearn-joblib")
    assert server.wait_exit() == 1
    assert server.log.splitlines()[-1] == "The file holds a dict, which has no method 'predict'."
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.onnx").write_bytes(b"\x08nonsense")
    server = serve(models, damaged, ready=False, PILOTHOUSE_MODEL_FRAMEWORK="onnx")
    assert server.wait_exit() == 1
    assert "The model cannot be loaded" in server.log.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "framework", "inputs", "outputs"),
    [
        ("iris", "sklearn-joblib", {"data": "array_double"}, {"prediction": "string", "probabilities": "dict"}),
        ("named", "sklearn-joblib", {"width": "double", "height": "double"}, {"prediction": "double"}),
        ("mood", "sklearn-joblib", {"text": "string"}, {"prediction": "string", "probabilities": "dict"}),
        ("onnx", "onnx", {"pixels": "array_double"}, {"label": "int", "probabilities": "array_double"}),
    ],
)
def test_a_model_is_described_in_its_own_environment(models, trained, name, framework, inputs, outputs):
    folder = EXAMPLES / name if name == "onnx" else trained / name
    command = [models / "bin" / "python", "-m", "pilothouse_serving.describe", folder, framework]
    described = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert {field["name"]: field["data_type"] for field in described["input_fields"]} == inputs
    assert {field["name"]: field["data_type"] for field in described["output_fields"]} == outputs
    failed = subprocess.run([*command[:3], trained / "dict", "sklearn-joblib"], capture_output=True)
    assert failed.returncode == 1
    assert "no method 'predict'" in json.loads(failed.stdout)["error"]


@pytest.mark.parametrize("name", ["iris", "iris-zlib", "iris-gzip", "iris-bz2", "iris-xz", "iris-lzma"])
def test_the_version_a_pickle_was_made_with_is_read_from_its_bytes(trained, name):
    found = inspect_model(trained / name / "model.joblib", "model.joblib")
    assert found.problems == []
    assert (found.framework, found.sklearn_version) == ("sklearn-joblib", "1.9.1")
    assert found.requirements == ["scikit-learn==1.9.1", "joblib"]


def test_other_frameworks_are_recognised(trained):
    skops = inspect_model(trained / "iris-skops" / "model.skops", "anything")
    assert (skops.framework, skops.requirements) == ("sklearn-skops", ["scikit-learn==1.9.1", "skops"])
    onnx = inspect_model(EXAMPLES / "onnx" / "model.onnx", "model.onnx")
    assert (onnx.framework, onnx.requirements) == ("onnx", ["onnxruntime", "numpy"])
    old = inspect_model(EXAMPLES / "sklearn-1.2-regression" / "model.joblib", "model.joblib")
    assert old.requirements == ["scikit-learn==1.2.2", "numpy<2", "joblib"]
