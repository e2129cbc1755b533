"""scikit-learn models from the registry, served without any code of the user's."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from . import rows, tensors
from .errors import InvalidInput, StartFailed, describe, user_traceback
from .handlers import Emit, Handler

JOBLIB_SUFFIXES = (".joblib", ".pkl", ".pickle")
SKOPS_SUFFIXES = (".skops",)
TRUSTED_VARIABLE = "PILOTHOUSE_SKOPS_TRUSTED"


class SklearnModel(Handler):
    """Answers with ``predict`` and, where the model has it, ``predict_proba``.

    A request of one row gives ``{"prediction": value, "probabilities": {class: p}}``; rows give lists of them.
    """

    platform = "sklearn"

    def __init__(self, package_dir: Path, framework: str) -> None:
        self._package_dir = package_dir
        self._framework = framework
        self._model: Any = None
        self._names: list[str] = []
        self._width: int | None = None
        self._classes: list[Any] | None = None
        self._takes_text = False
        self._pandas: Any = None

    def load(self) -> None:
        """Read the model. Raises `StartFailed`."""
        loaders = {"sklearn-joblib": _load_joblib, "sklearn-skops": _load_skops}
        load = loaders.get(self._framework)
        if load is None:
            raise StartFailed(f"'{self._framework}' is not a way to store scikit-learn models: {', '.join(loaders)}.")
        self.loading()
        try:
            model = load(self._package_dir)
        except StartFailed:
            raise
        except BaseException as error:
            raise StartFailed(f"The model cannot be loaded: {describe(error)}", user_traceback(error)) from None
        if not callable(getattr(model, "predict", None)):
            raise StartFailed(f"The file holds a {type(model).__name__}, which has no method 'predict'.")
        self._model = model
        self._names = [str(name) for name in getattr(model, "feature_names_in_", [])]
        if self._names:
            self._pandas = _imported("pandas")
        width = getattr(model, "n_features_in_", None)
        self._takes_text = width is None and hasattr(_first_step(model), "build_analyzer")
        self._width = None if width is None else int(width)
        classes = getattr(model, "classes_", None)
        # A list of arrays stands for several outputs, each with classes of its own.
        self._classes = None if classes is None or isinstance(classes, list) else classes.tolist()

    def request(self, data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        given: list[Any]
        if self._takes_text:
            given, single = _texts(data)
        else:
            given, single = rows.from_data(data, self._names, self._width)
        predictions, chances = self._predict(given)
        answer: dict[str, Any] = {"prediction": predictions[0] if single else predictions}
        if chances is not None and self._classes is not None:
            named = [dict(zip(map(str, self._classes), row)) for row in chances]
            answer["probabilities"] = named[0] if single else named
        return answer

    def predict(self, instances: list[Any], context: dict[str, Any]) -> list[Any]:
        if self._takes_text:
            return self._predict(_texts(instances)[0])[0]
        wrapped = [item if isinstance(item, (list, dict)) else [item] for item in instances]
        return self._predict(rows.from_data(wrapped, self._names, self._width)[0])[0]

    def infer(self, inputs: list[tensors.Tensor], context: dict[str, Any]) -> list[tensors.Tensor]:
        if self._takes_text:
            given: list[Any] = inputs[0].data
        else:
            given = rows.from_tensors(inputs, self._names, self._width)
        predictions, chances = self._predict(given)
        outputs = [tensors.from_value("prediction", predictions)]
        if chances is not None:
            outputs.append(tensors.from_value("probabilities", chances))
        return outputs

    def _predict(self, given: list[Any]) -> tuple[list[Any], list[list[float]] | None]:
        """(predictions, probabilities by row or None) for rows or texts."""
        table = given if self._takes_text else self._table(given)
        with warnings.catch_warnings():
            # Where pandas is absent the features go by place, which is right: they come in the model's order.
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            try:
                predictions = self._model.predict(table)
            except (ValueError, TypeError) as error:
                raise InvalidInput(f"The model does not take this input: {error}") from None
            if self._classes is None or not hasattr(self._model, "predict_proba"):
                return predictions.tolist(), None
            return predictions.tolist(), self._model.predict_proba(table).tolist()

    def _table(self, given: list[list[Any]]) -> Any:
        """A DataFrame for a model that was trained on one, else an array of floats (null is NaN)."""
        if self._pandas is not None:
            return self._pandas.DataFrame(given, columns=self._names)
        import numpy

        try:
            return numpy.array([[float("nan") if cell is None else cell for cell in row] for row in given])
        except ValueError as error:
            raise InvalidInput(f"The rows are no table of numbers: {error}") from None

    def metadata(self) -> dict[str, list[dict[str, Any]]]:
        if self._takes_text:
            inputs = [{"name": rows.DATA, "datatype": "BYTES", "shape": [-1]}]
        elif self._names:
            texts = self._text_columns()
            inputs = [
                {"name": name, "datatype": "BYTES" if name in texts else "FP64", "shape": [-1]} for name in self._names
            ]
        else:
            inputs = [{"name": rows.DATA, "datatype": "FP64", "shape": [-1, self._width or -1]}]
        outputs: list[dict[str, Any]] = [{"name": "prediction", "datatype": self._prediction_type(), "shape": [-1]}]
        if self._classes is not None and hasattr(self._model, "predict_proba"):
            outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(self._classes)]})
        return {"inputs": inputs, "outputs": outputs}

    def fields(self) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """(input fields, output fields) in the shape of UbiOps, for one row."""
        if self._takes_text:
            inputs = rows.fields(["text"], "string")
        elif self._names:
            texts = self._text_columns()
            inputs = [{"name": name, "data_type": "string" if name in texts else "double"} for name in self._names]
        else:
            inputs = rows.fields([rows.DATA], "array_double")
        kinds = {"BYTES": "string", "INT64": "int", "BOOL": "bool"}
        outputs = rows.fields(["prediction"], kinds.get(self._prediction_type(), "double"))
        if self._classes is not None and hasattr(self._model, "predict_proba"):
            outputs += rows.fields(["probabilities"], "dict")
        return inputs, outputs

    def _prediction_type(self) -> str:
        if not self._classes:
            return "FP64"
        return tensors.from_value("class", self._classes).datatype

    def _text_columns(self) -> set[str]:
        """Features that an encoder of text categories reads."""
        found: set[str] = set()
        for _, transformer, columns in getattr(_first_step(self._model), "transformers_", []):
            categories = getattr(_first_step(transformer), "categories_", [])
            for column, values in zip(columns if isinstance(columns, (list, tuple)) else [], categories):
                if any(isinstance(value, str) for value in values):
                    found.add(str(column))
        return found


def _imported(name: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def _first_step(model: Any) -> Any:
    """A pipeline's first step, or the model itself."""
    steps = getattr(model, "steps", None)
    return steps[0][1] if steps else model


def _texts(data: Any) -> tuple[list[str], bool]:
    """(texts, whether it was one) from ``{"text": ...}``, ``{"data": ...}``, a text or a list of texts."""
    if isinstance(data, dict):
        data = data.get("text", data.get(rows.DATA))
    texts = [data] if isinstance(data, str) else data
    if isinstance(texts, list):
        texts = [item.get("text") if isinstance(item, dict) else item for item in texts]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("Field 'text' must be a text, or a list of texts.")
    return texts, isinstance(data, str)


def _load_joblib(package_dir: Path) -> Any:
    import joblib

    return joblib.load(rows.model_file(package_dir, JOBLIB_SUFFIXES))


def _load_skops(package_dir: Path) -> Any:
    """A skops file holds no code; types that skops does not know as harmless must be named by the user."""
    from skops import io

    path = rows.model_file(package_dir, SKOPS_SUFFIXES)
    trusted = [name.strip() for name in os.environ.get(TRUSTED_VARIABLE, "").split(",") if name.strip()]
    untrusted = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    if untrusted:
        raise StartFailed(
            f"The model holds types that are not trusted: {', '.join(untrusted)}. If you know them, name them in the "
            f"environment variable {TRUSTED_VARIABLE}, separated by commas."
        )
    return io.load(path, trusted=trusted)
