"""Which handler serves what lies in the package folder."""

from __future__ import annotations

from typing import Any, Callable

from .errors import StartFailed
from .handlers import Handler
from .python_code import PythonCode
from .settings import Settings


def make_handler(settings: Settings, process_id: int, resolve: Callable[[Any], Any]) -> Handler:
    """The handler for the package or model as the settings name it, not loaded yet.

    Frameworks are imported only when they are wanted: an environment need not have the others.
    """
    if settings.framework.startswith("sklearn-"):
        from .sklearn_model import SklearnModel

        return SklearnModel(settings.package_dir, settings.framework)
    if settings.framework == "onnx":
        from .onnx_model import OnnxModel

        return OnnxModel(settings.package_dir)
    if settings.framework:
        return _Refused(
            f"PILOTHOUSE_MODEL_FRAMEWORK is '{settings.framework}'; sklearn-joblib, sklearn-skops and onnx can be "
            "served without code."
        )
    if (settings.package_dir / "deployment.R").is_file() and not (settings.package_dir / "deployment.py").is_file():
        from .r_code import RCode

        return RCode(settings.package_dir, dict(settings.init_context(process_id), language="r"))
    return PythonCode(settings.package_dir, settings.init_context(process_id), resolve)


class _Refused(Handler):
    """Fails at load, where the server already knows how to tell it."""

    def __init__(self, message: str) -> None:
        self._message = message

    def load(self) -> None:
        raise StartFailed(self._message)
