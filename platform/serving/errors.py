"""What can go wrong with a request, and how it is told."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

# FallbackToLogsOnError keeps the last 2048 bytes of the log: a longer traceback is told twice, short last.
_TERMINATION_BYTES = 1500
_HERE = os.path.dirname(os.path.abspath(__file__))


class RequestError(Exception):
    """A request that cannot be answered. `status` is the HTTP status, `kind` the ``type`` in the body."""

    def __init__(self, status: int, kind: str, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.trace = trace

    def body(self) -> dict[str, Any]:
        """``{"error": {"type", "message", "traceback"}}``; the traceback is empty unless user code raised."""
        return {"error": {"type": self.kind, "message": self.message, "traceback": self.trace}}


class InvalidInput(RequestError):
    """Input that the server or a model cannot read (422 unless told otherwise)."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(status, "InvalidInput", message)


class UserCodeFailed(RequestError):
    """The user's function raised, or gave back something that has no JSON form."""

    def __init__(self, kind: str, message: str, trace: str = "") -> None:
        super().__init__(500, kind, message, trace)


class StartFailed(Exception):
    """User code or a model could not be loaded. `trace` is what the log shows before the last line."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def user_traceback(error: BaseException) -> str:
    """The traceback of `error` from the user's first frame on; the server's own frames tell them nothing."""
    frame = error.__traceback__
    while frame is not None and _is_ours(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame or error.__traceback__))


def _is_ours(filename: str) -> bool:
    # Loading goes through importlib, whose frames stand between ours and the user's.
    return filename.startswith(_HERE) or filename.startswith("<frozen importlib")


def describe(error: BaseException) -> str:
    """``Type: message`` in one line, as the last line of a Python traceback."""
    text = str(error).strip().replace("\n", " ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def from_user(error: BaseException) -> RequestError:
    """The answer to an exception of user code. ``public_error_message`` is UbiOps' way to choose the text."""
    public = getattr(error, "public_error_message", None)
    message = str(public) if public else str(error) or type(error).__name__
    return UserCodeFailed(type(error).__name__, message, user_traceback(error))


def explain(error: StartFailed) -> None:
    """The traceback, then one sentence as the last line: what a termination message ends with."""
    trace = error.trace.rstrip()
    if len(trace) > _TERMINATION_BYTES:
        print(trace, file=sys.stderr)
        trace = "...\n" + trace[-_TERMINATION_BYTES:].partition("\n")[2]
    if trace:
        print(trace, file=sys.stderr)
    print(error, file=sys.stderr, flush=True)
