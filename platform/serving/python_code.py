"""Packages with a ``deployment.py``: the contract of UbiOps' ``Deployment`` class."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
import types
from pathlib import Path
from typing import Any, Callable

from . import tensors
from .errors import StartFailed, UserCodeFailed, describe, user_traceback
from .handlers import Emit, Handler

ENTRY_POINT = "deployment.py"


class PythonCode(Handler):
    """Answers with the user's ``Deployment``: one instance per process.

    `resolve` waits for what a coroutine of the user's gives back.
    """

    platform = "python"

    def __init__(
        self, package_dir: Path, init_context: dict[str, Any], resolve: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self._package_dir = package_dir
        self._init_context = init_context
        self._resolve = resolve
        self._instance: Any = None
        self._request: Callable[..., Any] | None = None
        self._requests: Callable[..., Any] | None = None
        fields = init_context.get("input_fields", [])
        self._field_types = {
            field["name"]: field.get("data_type", "") for field in fields if isinstance(field, dict) and "name" in field
        }

    @property
    def asynchronous(self) -> bool:
        """Whether a method of the user's is a coroutine or an asynchronous generator."""
        methods = [method for method in (self._request, self._requests) if method]
        return any(inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method) for method in methods)

    def load(self) -> None:
        """Import ``deployment.py`` and make the instance. Raises `StartFailed` with the user's traceback."""
        module = self._import()
        maker = getattr(module, "Deployment", None)
        if not inspect.isclass(maker):
            raise StartFailed(f"{ENTRY_POINT} has no class named 'Deployment'.")
        self.loading()
        try:
            self._instance = maker(**self._wanted_arguments(maker))
        except BaseException as error:
            raise StartFailed(f"Deployment.__init__ failed: {describe(error)}", user_traceback(error)) from None
        self._request = self._method("request")
        self._requests = self._method("requests")
        if self._request is None and self._requests is None:
            raise StartFailed("The class 'Deployment' has neither a method 'request' nor 'requests'.")

    def _import(self) -> types.ModuleType:
        path = self._package_dir / ENTRY_POINT
        if not path.is_file():
            raise StartFailed(f"The package has no {ENTRY_POINT}.")
        # Behind everything else, as the public client's run_local does: a file of the package that is called
        # like an installed module must not take its place.
        sys.path += [str(self._package_dir), str(self._package_dir / "libraries")]
        os.chdir(self._package_dir)
        spec = importlib.util.spec_from_file_location("deployment", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["deployment"] = module  # Pickle and dataclasses look their module up by name.
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            trace = "".join(traceback.format_exception_only(type(error), error))
            raise StartFailed(f"{ENTRY_POINT} cannot be read: {describe(error)}", trace) from None
        except BaseException as error:
            raise StartFailed(f"{ENTRY_POINT} failed at import: {describe(error)}", user_traceback(error)) from None
        return module

    def _wanted_arguments(self, maker: type) -> dict[str, Any]:
        """Of `base_directory` and `context`, those that the constructor takes."""
        offered = {"base_directory": str(self._package_dir), "context": self._init_context}
        parameters = inspect.signature(maker).parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return offered
        return {name: value for name, value in offered.items() if name in parameters}

    def _method(self, name: str) -> Callable[..., Any] | None:
        method = getattr(self._instance, name, None)
        return method if callable(method) else None

    def request(self, data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        if self._request is None:
            results = self.requests([data], context)
            assert results is not None
            return results[0]
        return self._settle(self._call(self._request, data, context, emit), emit)

    def requests(self, items: list[Any], context: dict[str, Any]) -> list[Any] | None:
        if self._requests is None:
            return None
        results = self._settle(self._call(self._requests, items, context, None), None)
        if hasattr(results, "tolist"):
            results = results.tolist()
        if not isinstance(results, (list, tuple)) or len(results) != len(items):
            found = f"{len(results)} results" if isinstance(results, (list, tuple)) else type(results).__name__
            raise UserCodeFailed(
                "WrongResult", f"'requests' gave back {found} for {len(items)} inputs: a list is needed."
            )
        return list(results)

    def infer(self, inputs: list[tensors.Tensor], context: dict[str, Any]) -> list[tensors.Tensor]:
        return tensors.from_result(self.request(tensors.to_fields(inputs, self._field_types), context, None))

    def _call(self, method: Callable[..., Any], data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        context = dict(context, streaming_update=emit or _nowhere)
        how = _context_argument(method)
        if how == "position":
            return method(data, context)
        if how == "keyword":
            return method(data, context=context)
        return method(data)

    def _settle(self, value: Any, emit: Emit | None) -> Any:
        """What a method gave back as a result: coroutines awaited, generators run to their end."""
        if inspect.isasyncgen(value):
            return _collected(self._parts_of(value), emit)
        value = self._resolve(value) if inspect.isawaitable(value) else value
        return _collected(value, emit) if inspect.isgenerator(value) else value

    def _parts_of(self, source: Any) -> Any:
        try:
            while True:
                try:
                    part = self._resolve(source.__anext__())
                except StopAsyncIteration:
                    return
                yield part
        finally:
            self._resolve(source.aclose())


def _context_argument(method: Callable[..., Any]) -> str:
    """How a method takes the request's context: by "position", by "keyword", or not at all ("")."""
    parameters = list(inspect.signature(method).parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(item.kind is inspect.Parameter.KEYWORD_ONLY and item.name == "context" for item in parameters):
        return "keyword"
    # UbiOps' templates call it request_context, so its place counts and not its name.
    if len([item for item in parameters if item.kind in by_position]) >= 2:
        return "position"
    if any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters):
        return "position"
    return "keyword" if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters) else ""


def _collected(parts: Any, emit: Emit | None) -> Any:
    """Run a generator. Its return value is the result; without one, all it gave: one text, or a list."""
    collected = []
    try:
        while True:
            try:
                part = next(parts)
            except StopIteration as end:
                if end.value is not None:
                    return end.value
                break
            collected.append(part)
            if emit is not None:
                emit(part)
    finally:
        parts.close()
    if collected and all(isinstance(part, str) for part in collected):
        return "".join(collected)
    return collected


def _nowhere(_: Any) -> None:
    """`streaming_update` of a request that nobody streams."""
