"""JSON in and out, with the values that data scientists return: NumPy, pandas, dates, sets, bytes."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import uuid
from typing import Any

from .errors import InvalidInput, UserCodeFailed


def dumps(value: Any) -> bytes:
    """`value` as UTF-8 JSON. NaN and infinities become null, as JSON has no other word for them.

    Raises `UserCodeFailed` for values without a JSON form.
    """
    try:
        try:
            text = json.dumps(value, default=plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        except (ValueError, TypeError):
            # NaN somewhere, or a key that is no string (a NumPy integer from value_counts, say).
            text = json.dumps(_clean(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        # A lone surrogate (from a file name, say) has no UTF-8 form: it becomes a question mark.
        return text.encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        raise UserCodeFailed("ResultNotSerializable", f"The result has no JSON form: {error}") from None


def loads(body: bytes) -> Any:
    """The value in a JSON body. Raises `InvalidInput` (400) that says where reading stopped."""
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        raise InvalidInput("The body is not UTF-8.", 400) from None
    except RecursionError:
        raise InvalidInput("The body is nested too deeply.", 400) from None
    except ValueError as error:
        reason = f"The body is not JSON: {error}." if body.strip() else "The body is empty: send JSON."
        raise InvalidInput(reason, 400) from None


def plain(value: Any) -> Any:
    """A value that `json` does not know as one that it does. Raises TypeError."""
    # By capability, not by import: NumPy and pandas may not be installed, or be of any version.
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if hasattr(value, "to_list") and callable(value.to_list):
        return value.to_list()
    if hasattr(value, "tolist") and callable(value.tolist):
        return value.tolist()
    if hasattr(value, "detach") and hasattr(value, "numpy"):
        return value.detach().cpu().numpy().tolist()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat() if value == value else None  # pandas' NaT is a datetime that equals nothing
    if type(value).__name__ == "NAType":  # pandas.NA
        return None
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, (uuid.UUID, pathlib.PurePath)):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} cannot be written as JSON")


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return _clean(plain(value))


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    if isinstance(key, (int, float)):
        return str(key)
    if isinstance(key, (tuple, frozenset)):
        return str(key)
    return str(plain(key))
