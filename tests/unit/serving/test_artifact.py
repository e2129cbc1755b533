"""Model files looked at without unpickling them."""

import io
import pickle
import zlib

import pytest

from serving.artifact import inspect_model

from .packages import DEPLOYMENT, make_zip


class Trap:
    """Ends the test run when unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_never_run(protocol):
    state = {"trap": Trap(), "_sklearn_version": "1.3.0", "module": "sklearn.linear_model lightgbm.sklearn"}
    found = inspect_model(io.BytesIO(pickle.dumps(state, protocol)), "model.pkl")
    assert found.problems == []
    assert found.requirements == ["scikit-learn==1.3.0", "numpy<2", "joblib", "lightgbm"]


def test_columns_by_name_need_pandas():
    found = inspect_model(io.BytesIO(pickle.dumps("sklearn.compose ColumnTransformer")), "model.pkl")
    assert found.requirements == ["scikit-learn", "joblib", "pandas"]


def test_a_zip_around_one_model_is_looked_into():
    content = pickle.dumps({"_sklearn_version": "1.5.1"})
    found = inspect_model(make_zip({"m/model.joblib": content, "m/notes.txt": "x"}), "m.zip")
    assert (found.framework, found.sklearn_version) == ("sklearn-joblib", "1.5.1")
    nested = make_zip({"model.skops": make_zip({"schema.json": '{"_sklearn_version": "1.5.2"}'}).getvalue()})
    assert inspect_model(nested, "m.zip").framework == "sklearn-skops"


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "model.joblib", "empty"),
        (b"\x89PNG....", "model.png", "not a model that can be served without code"),
        (b"hello", "model.onnx", "not an ONNX model"),
        (make_zip({"deployment.py": DEPLOYMENT}).getvalue(), "p.zip", "found: none"),
        (make_zip({"a.onnx": "x", "b.onnx": "y"}).getvalue(), "p.zip", "found: a.onnx, b.onnx"),
        (make_zip({"../a.onnx": "x"}).getvalue(), "p.zip", "outside"),
        (zlib.compress(b"x" * 1000)[:-8], "model.joblib", "damaged"),
        (b"\x1f\x8b\x08\x00garbage", "model.joblib", "damaged"),
        (make_zip({"m.skops": make_zip({"x": "y"}).getvalue()}).getvalue(), "m.zip", "no schema.json"),
    ],
)
def test_what_is_no_model_is_told(content, name, said):
    [problem] = inspect_model(io.BytesIO(content), name).problems
    assert said in problem
