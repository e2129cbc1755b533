"""Tensors of the Open Inference Protocol V2, in plain Python: no NumPy is needed to speak it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from .errors import InvalidInput, UserCodeFailed
from .serialize import plain

INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
FLOATS = {"FP16", "FP32", "FP64", "BF16"}
DATATYPES = INTEGERS | FLOATS | {"BOOL", "BYTES"}

# Field types of UbiOps that hold one value; the others are lists.
SCALARS = {"int", "double", "string", "bool", "dict"}


@dataclass
class Tensor:
    """One tensor: `data` is flat, row-major, with as many values as the product of `shape`."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]

    def nested(self) -> Any:
        """The values as lists in lists, as deep as `shape` is long."""
        values = self.data
        for size in reversed(self.shape[1:]):
            step = size or 1
            values = [values[start : start + size] for start in range(0, len(values), step)]
        return values

    def as_json(self) -> dict[str, Any]:
        """The tensor as it stands in a request or an answer."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape, "data": self.data}


def parse(body: Any) -> list[Tensor]:
    """The input tensors of an inference request. Raises `InvalidInput` that names the tensor."""
    if not isinstance(body, dict) or not isinstance(body.get("inputs"), list) or not body["inputs"]:
        raise InvalidInput("'inputs' is missing: a list of tensors with name, datatype, shape and data is needed.", 400)
    tensors = [_parse_one(item, index) for index, item in enumerate(body["inputs"])]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise InvalidInput("'inputs' holds two tensors of the same name.", 400)
    return tensors


def _parse_one(item: Any, index: int) -> Tensor:
    where = f"inputs[{index}]"
    if not isinstance(item, dict):
        raise InvalidInput(f"{where} is not an object.", 400)
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{where}.name is missing.", 400)
    where = f"Input '{name}'"
    if datatype not in DATATYPES:
        raise InvalidInput(f"{where}: datatype is '{datatype}'; allowed are {', '.join(sorted(DATATYPES))}.", 400)
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
        raise InvalidInput(f"{where}: shape is not a list of whole numbers from 0.", 400)
    if not isinstance(item.get("data"), list):
        raise InvalidInput(f"{where}: data is missing: give a list, or bytes and binary_data_size.", 400)
    data = list(_flat(item["data"]))
    if len(data) != math.prod(shape):
        raise InvalidInput(f"{where}: shape {shape} asks for {math.prod(shape)} values, data has {len(data)}.", 400)
    for value in data:
        if not _fits(value, datatype):
            raise InvalidInput(f"{where}: {json.dumps(value)[:80]} is not a value of datatype {datatype}.", 400)
    return Tensor(name, datatype, shape, data)


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 0


def _fits(value: Any, datatype: str) -> bool:
    if datatype == "BOOL":
        return isinstance(value, bool)
    if datatype == "BYTES":
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    if datatype in INTEGERS:
        return isinstance(value, int)
    return isinstance(value, (int, float)) or value is None


def _flat(values: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def to_fields(tensors: list[Tensor], field_types: Mapping[str, str]) -> dict[str, Any]:
    """Tensors as the fields of a structured request.

    A tensor of one value becomes that value where the field's type is a scalar, or where the type is not
    known and the shape is [1]; otherwise it stays a list, nested as the shape says.
    """
    fields = {}
    for tensor in tensors:
        kind = field_types.get(tensor.name, "scalar" if tensor.shape == [1] else "array")
        single = len(tensor.data) == 1 and (kind == "scalar" or kind in SCALARS)
        value = tensor.data[0] if single or not tensor.shape else tensor.nested()
        fields[tensor.name] = json.loads(value) if kind == "dict" and isinstance(value, str) else value
    return fields


def from_result(result: Any) -> list[Tensor]:
    """A result as tensors: one per field of a dict, otherwise one named ``result``."""
    if isinstance(result, dict):
        return [from_value(str(name), value) for name, value in result.items()]
    return [from_value("result", result)]


def from_value(name: str, value: Any) -> Tensor:
    """A value as a tensor: shape and datatype as found. What is no number, truth or text becomes JSON text."""
    if not isinstance(value, (str, bool, int, float, list, tuple, dict, type(None))):
        try:
            value = plain(value)
        except TypeError as error:
            raise UserCodeFailed("ResultNotSerializable", f"Output '{name}': {error}.") from None
    shape = _shape(value)
    if shape is None:  # Ragged: one JSON text per item keeps every value.
        shape, data = [len(value)], [json.dumps(item, default=plain) for item in value]
    else:
        data = list(_flat(value)) if isinstance(value, (list, tuple)) else [value]
        data = [item if isinstance(item, (str, bool, int, float)) or item is None else _scalar(item) for item in data]
    return Tensor(name, *_typed(data, shape or [1]))


def _scalar(item: Any) -> Any:
    value = plain(item) if not isinstance(item, (dict, list, tuple)) else item
    return json.dumps(value, default=plain) if isinstance(value, (dict, list, tuple)) else value


def _typed(data: list[Any], shape: list[int]) -> tuple[str, list[int], list[Any]]:
    if all(isinstance(item, bool) for item in data) and data:
        return "BOOL", shape, data
    if all(isinstance(item, int) and not isinstance(item, bool) for item in data) and data:
        return "INT64", shape, data
    if all(item is None or (isinstance(item, (int, float)) and not isinstance(item, bool)) for item in data):
        return "FP64", shape, [None if item is None else float(item) for item in data]
    return "BYTES", shape, [item if isinstance(item, str) else json.dumps(item) for item in data]


def _shape(value: Any) -> list[int] | None:
    """The shape of nested lists; [] for a scalar, None when the lists differ in length or depth."""
    if not isinstance(value, (list, tuple)):
        return []
    if not value:
        return [0]
    shapes = [_shape(item) for item in value]
    if any(shape is None or shape != shapes[0] for shape in shapes):
        return None
    first = shapes[0]
    assert first is not None
    return [len(value), *first]
