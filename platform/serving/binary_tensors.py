"""Tensors as bytes behind the JSON of a request or answer: the binary data extension of the Open Inference Protocol.

Values are little-endian and row-major; of ``BYTES`` each has its length before it, in four bytes. Source:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from typing import Any

from .errors import InvalidInput, UserCodeFailed
from .tensors import Tensor

HEADER = "inference-header-content-length"
CONTENT_TYPE = "application/octet-stream"

_SIZE = "binary_data_size"
_CODES = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


def split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """(JSON, what follows it) of a body whose header says how long the JSON is. Raises `InvalidInput`."""
    if length is None:
        return body, b""
    if not (length.isascii() and length.isdigit()) or int(length) > len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length is '{length[:20]}'; give the bytes of the JSON, at most {len(body)}.", 400
        )
    return body[: int(length)], body[int(length) :]


def read(body: Any, content: bytes) -> Any:
    """An inference request with its binary inputs put in as ``data``. Raises `InvalidInput` that names the tensor."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    place = 0
    for item in inputs if isinstance(inputs, list) else []:
        size = _parameters(item).get(_SIZE)
        if size is None:
            continue
        where = f"Input '{item.get('name')}'"
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or place + size > len(content):
            raise InvalidInput(f"{where}: {_SIZE} is {size}; {len(content) - place} bytes are left of the body.", 400)
        if "data" in item:
            raise InvalidInput(f"{where}: give either data or {_SIZE}.", 400)
        item["data"] = _unpack(where, item.get("datatype"), content[place : place + size])
        place += size
    if place != len(content):
        raise InvalidInput(f"{len(content) - place} bytes behind the last binary input belong to none.", 400)
    return body


def wanted(body: Any, name: str) -> bool:
    """Whether an output is asked for as bytes: by itself, or with all of them."""
    for item in body.get("outputs") or []:
        if isinstance(item, dict) and item.get("name") == name:
            asked = _parameters(item).get("binary_data")
            if asked is not None:
                return bool(asked)
    return bool(_parameters(body).get("binary_data_output"))


def write(tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    """An output's entry in the JSON, and its bytes. Raises `UserCodeFailed`."""
    try:
        content = _pack(tensor)
    except (struct.error, OverflowError) as error:
        raise UserCodeFailed("ResultNotSerializable", f"Output '{tensor.name}': {error}.") from None
    entry = tensor.as_json()
    del entry["data"]
    return dict(entry, parameters={_SIZE: len(content)}), content


def _parameters(item: Any) -> dict[str, Any]:
    found = item.get("parameters") if isinstance(item, dict) else None
    return found if isinstance(found, dict) else {}


def _unpack(where: str, datatype: Any, content: bytes) -> list[Any]:
    if datatype == "BYTES":
        return _texts(where, content)
    if datatype == "BF16":
        # The upper half of an FP32.
        content = b"".join(b"\0\0" + content[start : start + 2] for start in range(0, len(content), 2))
        datatype = "FP32"
    code = _CODES.get(str(datatype))
    if code is None:
        return []  # the datatype itself is refused by who reads the tensor
    width = struct.calcsize("<" + code)
    if len(content) % width:
        raise InvalidInput(f"{where}: {len(content)} bytes are no whole number of {datatype} values.", 400)
    values = list(struct.unpack(f"<{len(content) // width}{code}", content))
    if code in "efd":
        return [value if math.isfinite(value) else None for value in values]
    return values


def _texts(where: str, content: bytes) -> list[str]:
    values: list[str] = []
    place = 0
    while place < len(content):
        end = place + 4 + int.from_bytes(content[place : place + 4], "little")
        if end > len(content):
            raise InvalidInput(f"{where}: value {len(values)} is longer than the bytes that are left.", 400)
        try:
            values.append(content[place + 4 : end].decode("utf-8"))
        except UnicodeDecodeError:
            raise InvalidInput(f"{where}: value {len(values)} is not UTF-8 text.", 400) from None
        place = end
    return values


def _pack(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        texts = [str(value).encode("utf-8", "replace") for value in tensor.data]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    values = [math.nan if value is None else value for value in tensor.data]
    if tensor.datatype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{len(values)}{_CODES[tensor.datatype]}", *values)
