"""The published OpenAPI definitions of Kubernetes, as the package `kubernetes-validate` brings them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import orjson

SCHEMA_VERSION = "v1.36.0"


def file() -> Path:
    """The OpenAPI definitions in the package `kubernetes-validate` (found without importing it)."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package kubernetes-validate is missing: install requirements.txt")
    folder = Path(spec.origin).parent / "kubernetes-json-schema" / f"{SCHEMA_VERSION}-local"
    return folder / "_definitions.json"


def _lean(node: Any) -> Any:
    # Descriptions are nine tenths of the definitions and serve `kubectl explain` only.
    if isinstance(node, dict):
        return {k: _lean(v) for k, v in node.items() if k != "description" or isinstance(v, dict)}
    return [_lean(one) for one in node] if isinstance(node, list) else node


@cache
def definitions() -> dict[str, Any]:
    """Definitions by name, without descriptions."""
    return _lean(orjson.loads(file().read_bytes())["$defs"])


def forget() -> None:
    """Free the definitions once everything usual is compiled; they are read again when need be."""
    definitions.cache_clear()
