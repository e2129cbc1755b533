"""``python -m pilothouse_serving.describe FOLDER FRAMEWORK``: what a registry model takes and gives.

Loading a model may run code, so this runs in a pod or an environment of its own, never in the platform.
Prints one JSON object; on failure an object with ``error`` and exit code 1.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import StartFailed
from .onnx_model import OnnxModel
from .sklearn_model import SklearnModel

_VERSIONS = {"sklearn": ("sklearn", "numpy"), "onnx": ("onnxruntime", "numpy")}


def describe_model(package_dir: Path, framework: str) -> dict[str, Any]:
    """The signature of a model: UbiOps fields, protocol tensors and the versions it was read with.

    Raises `StartFailed`.
    """
    model: OnnxModel | SklearnModel
    model = OnnxModel(package_dir) if framework == "onnx" else SklearnModel(package_dir, framework)
    model.load()
    inputs, outputs = model.fields()
    modules = _VERSIONS[model.platform]
    return {
        "framework": framework,
        "input_type": "structured",
        "output_type": "structured",
        "input_fields": inputs,
        "output_fields": outputs,
        "tensors": model.metadata(),
        "versions": {name: import_module(name).__version__ for name in modules},
    }


def main(arguments: list[str]) -> int:
    """Describe the model that the arguments name; returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m pilothouse_serving.describe FOLDER FRAMEWORK", file=sys.stderr)
        return 2
    try:
        print(json.dumps(describe_model(Path(arguments[0]), arguments[1])))
    except StartFailed as error:
        print(error.trace, end="", file=sys.stderr)
        print(json.dumps({"error": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
