"""What answers requests: the one interface that user code, R and registry models have in common."""

from __future__ import annotations

from typing import Any, Callable, Iterator

from . import tensors
from .errors import RequestError, from_user

Emit = Callable[[Any], None]


class Handler:
    """Answers requests. Called from worker threads only, never from the server's event loop.

    `platform` names the technology in the protocols' metadata. `loading` is called by `load` when code is imported
    and the model itself begins to load.
    """

    platform = "python"
    loading: Callable[[], None] = staticmethod(lambda: None)

    def load(self) -> None:
        """Get ready. Raises `StartFailed`; called once, in the main thread, before any request."""

    def request(self, data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        """The result for one request. With `emit`, parts of it are given to `emit` while they come.

        Raises `RequestError`, or whatever user code raises.
        """
        raise NotImplementedError

    def requests(self, items: list[Any], context: dict[str, Any]) -> list[Any] | None:
        """Results for many requests at once, in their order; None when there is no such way."""
        return None

    def metadata(self) -> dict[str, list[dict[str, Any]]]:
        """``inputs`` and ``outputs`` as tensors of the Open Inference Protocol; empty when not known."""
        return {"inputs": [], "outputs": []}

    def infer(self, inputs: list[tensors.Tensor], context: dict[str, Any]) -> list[tensors.Tensor]:
        """Output tensors for input tensors: by default a request with the tensors as its fields."""
        return tensors.from_result(self.request(tensors.to_fields(inputs, {}), context, None))

    def predict(self, instances: list[Any], context: dict[str, Any]) -> list[Any]:
        """One prediction per instance. A failing instance fails them all, as V1 has no place for its error."""
        results = self.requests(instances, context)
        return results if results is not None else [self.request(item, context, None) for item in instances]

    def check(self) -> bool:
        """Whether requests can be answered now."""
        return True

    def close(self) -> None:
        """Give back what `load` took."""


def answer_all(handler: Handler, items: list[Any], context: dict[str, Any]) -> list[dict[str, Any]]:
    """``{"result": ...}`` or ``{"error": ...}`` for each item, in order."""
    results = handler.requests(items, context)
    if results is not None:
        return [{"result": result} for result in results]
    return list(_one_by_one(handler, items, context))


def _one_by_one(handler: Handler, items: list[Any], context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in items:
        try:
            yield {"result": handler.request(item, context, None)}
        except RequestError as error:
            yield error.body()
        except Exception as error:
            yield from_user(error).body()
