"""ONNX models from the registry, served by onnxruntime without any code of the user's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from . import rows, tensors
from .errors import InvalidInput, StartFailed, describe
from .handlers import Emit, Handler

SUFFIXES = (".onnx",)

# ONNX's names of element types: (Open Inference Protocol's, NumPy's).
_TYPES = {
    "float": ("FP32", "float32"),
    "double": ("FP64", "float64"),
    "float16": ("FP16", "float16"),
    "int8": ("INT8", "int8"),
    "int16": ("INT16", "int16"),
    "int32": ("INT32", "int32"),
    "int64": ("INT64", "int64"),
    "uint8": ("UINT8", "uint8"),
    "uint16": ("UINT16", "uint16"),
    "uint32": ("UINT32", "uint32"),
    "uint64": ("UINT64", "uint64"),
    "bool": ("BOOL", "bool"),
    "string": ("BYTES", "object"),
}


class OnnxModel(Handler):
    """Answers with the graph's outputs by their names.

    A model with one input also takes it as ``{"data": ...}``. Where the first dimension is free, a value that
    lacks it is taken as a batch of one, and the answer then lacks it too.
    """

    platform = "onnx"

    def __init__(self, package_dir: Path) -> None:
        self._package_dir = package_dir
        self._session: Any = None
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def load(self) -> None:
        """Read the graph. Raises `StartFailed`."""
        path = rows.model_file(self._package_dir, SUFFIXES)
        try:
            import onnxruntime

            self.loading()
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise StartFailed(f"The model cannot be loaded: {describe(error)}") from None
        self._inputs = self._session.get_inputs()
        self._outputs = self._session.get_outputs()

    def request(self, data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        if not isinstance(data, dict):
            data = {rows.DATA: data}
        if set(data) == {rows.DATA} and len(self._inputs) == 1:
            data = {self._inputs[0].name: data[rows.DATA]}
        names = [node.name for node in self._inputs]
        for name in names:
            if name not in data:
                raise InvalidInput(f"Field '{name}' is missing. The model's inputs are {', '.join(names)}.")
        for name in data:
            if name not in names:
                raise InvalidInput(f"Field '{name}' is not known. The model's inputs are {', '.join(names)}.")
        feeds, single = {}, False
        for node in self._inputs:
            feeds[node.name], promoted = self._array(node, data[node.name])
            single = single or promoted
        return {name: _first(value) if single else value for name, value in self._run(feeds).items()}

    def predict(self, instances: list[Any], context: dict[str, Any]) -> list[Any]:
        if isinstance(instances[0], dict):
            columns = {node.name: [row.get(node.name) for row in instances] for node in self._inputs}
            outputs = self.request(columns, context, None)
        else:
            outputs = self.request({rows.DATA: instances}, context, None)
        if len(outputs) == 1:
            return list(next(iter(outputs.values())))
        return [dict(zip(outputs, row)) for row in zip(*outputs.values())]

    def infer(self, inputs: list[tensors.Tensor], context: dict[str, Any]) -> list[tensors.Tensor]:
        by_name = {tensor.name: tensor.nested() for tensor in inputs}
        if len(self._inputs) == 1 and len(by_name) == 1:
            by_name = {self._inputs[0].name: next(iter(by_name.values()))}
        outputs = tensors.from_result(self.request(by_name, context, None))
        declared = {node.name: _types(node)[0] for node in self._outputs if node.type.startswith("tensor(")}
        for tensor in outputs:
            tensor.datatype = declared.get(tensor.name, tensor.datatype)
        return outputs

    def _array(self, node: Any, value: Any) -> tuple[Any, bool]:
        """(array for an input, whether it was put into a batch of one)."""
        import numpy

        _, dtype = _types(node)
        try:
            array = numpy.array(value, dtype=dtype)
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"Field '{node.name}': {error}.") from None
        rank = len(node.shape)
        # skl2onnx makes one input of shape [rows, 1] per column: a list of values fits with a dimension behind.
        if rank == 2 and node.shape[1] == 1 and array.ndim == 1:
            return array.reshape(-1, 1), False
        missing = rank - array.ndim
        promoted = missing > 0 and (missing == 1 or array.ndim == 0)
        if promoted:
            array = array.reshape((1,) * missing + array.shape)
        fits = array.ndim == rank and all(
            not isinstance(wanted, int) or wanted == size for wanted, size in zip(node.shape, array.shape)
        )
        if not fits:
            shape = [size if isinstance(size, int) else "any" for size in node.shape]
            raise InvalidInput(f"Field '{node.name}' has shape {list(array.shape)}; the model takes {shape}.")
        return array, promoted

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        try:
            values = self._session.run(None, feeds)
        except Exception as error:
            # onnxruntime's errors share no class; what reaches it has been checked, so the input is at fault.
            raise InvalidInput(f"The model does not take this input: {error}") from None
        return {
            node.name: value.tolist() if hasattr(value, "tolist") else value
            for node, value in zip(self._outputs, values)
        }

    def metadata(self) -> dict[str, list[dict[str, Any]]]:
        return {
            "inputs": [_described(node) for node in self._inputs],
            "outputs": [_described(n) for n in self._outputs],
        }

    def fields(self) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """(input fields, output fields) in the shape of UbiOps, for one row."""
        return [_field(node) for node in self._inputs], [_field(node) for node in self._outputs]


def _types(node: Any) -> tuple[str, str]:
    """(Open Inference Protocol's, NumPy's) type of ``tensor(float)`` and the like; text for what is no tensor."""
    inner = node.type[len("tensor(") : -1] if node.type.startswith("tensor(") else ""
    return _TYPES.get(inner, ("BYTES", "object"))


def _described(node: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in node.shape or [-1]]
    return {"name": node.name, "datatype": _types(node)[0], "shape": shape}


def _field(node: Any) -> dict[str, str]:
    if not node.type.startswith("tensor("):
        return {"name": node.name, "data_type": "dict"}
    datatype = _types(node)[0]
    kind = {"BYTES": "string", "BOOL": "bool"}.get(datatype, "int" if datatype in tensors.INTEGERS else "double")
    per_row = [size if isinstance(size, int) else 2 for size in node.shape[1:]]
    scalar = math.prod(per_row) == 1 or kind == "bool"
    return {"name": node.name, "data_type": kind if scalar else f"array_{kind}"}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
