"""Rows of features, as requests and tensors give them, for models that predict row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable

from . import tensors
from .errors import InvalidInput, StartFailed

# The field that takes rows where a model has no names for its features.
DATA = "data"


def model_file(package_dir: Path, suffixes: tuple[str, ...]) -> Path:
    """The one file with such a suffix in the package. Raises `StartFailed` when there is none or more."""
    found = sorted(path for path in package_dir.rglob("*") if path.suffix in suffixes and path.is_file())
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(package_dir)) for path in found[:5]) or "none"
        raise StartFailed(f"One model file ({' or '.join(suffixes)}) is needed in the package; found: {names}.")
    return found[0]


def from_data(data: Any, names: list[str], width: int | None) -> tuple[list[list[Any]], bool]:
    """(rows, whether it was one) from a request.

    Takes ``{"data": row or rows}``, a list of either, or an object with a value (one row) or a list of values
    (rows) for each of `names`. `width` is how many features a row has, None when that is not known.
    Raises `InvalidInput` that names the field.
    """
    if isinstance(data, dict) and names and not (set(data) == {DATA} and DATA not in names):
        return _from_fields(data, names)
    if isinstance(data, dict):
        if DATA not in data:
            raise InvalidInput(f"Field '{DATA}' is missing: a row, or a list of rows{_of_width(width)}.")
        data = data[DATA]
    if not isinstance(data, list) or not data:
        raise InvalidInput(f"Field '{DATA}' must be a row, or a list of rows{_of_width(width)}.")
    single = not isinstance(data[0], (list, dict))
    rows = [data] if single else data
    rows = [_from_fields(row, names)[0][0] if isinstance(row, dict) and names else row for row in rows]
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            raise InvalidInput(f"Field '{DATA}': row {index} is not a list{_of_width(width)}.")
        if width is not None and len(row) != width:
            raise InvalidInput(f"Field '{DATA}': row {index} has {len(row)} values, the model has {width} features.")
    return rows, single


def _of_width(width: int | None) -> str:
    return "" if width is None else f" of {width} values"


def _from_fields(data: dict[str, Any], names: list[str]) -> tuple[list[list[Any]], bool]:
    missing = [name for name in names if name not in data]
    unknown = [name for name in data if name not in names]
    if missing or unknown:
        what = f"Field '{missing[0]}' is missing" if missing else f"Field '{unknown[0]}' is not known"
        raise InvalidInput(f"{what}. The model's features are {', '.join(names[:20])}.")
    columns = [data[name] for name in names]
    if not any(isinstance(column, list) for column in columns):
        return [columns], True
    for name, column in zip(names, columns):
        if not isinstance(column, list) or len(column) != len(columns[0]):
            raise InvalidInput(f"Field '{name}' must be a list as long as those of the other features.")
    return [list(row) for row in zip(*columns)], False


def from_tensors(inputs: list[tensors.Tensor], names: list[str], width: int | None) -> list[list[Any]]:
    """Rows from tensors: one of shape [rows, features], or one of shape [rows] or [rows, 1] per feature."""
    if names and len(inputs) == len(names) and {tensor.name for tensor in inputs} == set(names):
        by_name = {tensor.name: tensor.data for tensor in inputs}
        return from_data(by_name, names, width)[0]
    if len(inputs) != 1:
        wanted = f", or one per feature: {', '.join(names[:20])}" if names else ""
        raise InvalidInput(f"One input tensor of shape [rows, features] is needed{wanted}.", 400)
    tensor = inputs[0]
    if len(tensor.shape) not in (1, 2):
        raise InvalidInput(f"Input '{tensor.name}': shape must be [rows, features], not {tensor.shape}.", 400)
    return from_data(tensor.nested(), [], width)[0]


def fields(names: Iterable[str], data_type: str) -> list[dict[str, str]]:
    """Fields in the shape of UbiOps."""
    return [{"name": name, "data_type": data_type} for name in names]
