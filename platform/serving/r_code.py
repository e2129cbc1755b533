"""Packages with a ``deployment.R``: a long-lived Rscript beside the server, spoken to in JSON lines."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from . import tensors
from .errors import InvalidInput, StartFailed, UserCodeFailed, explain
from .handlers import Emit, Handler
from .observe import log
from .serialize import dumps, loads

ENTRY_POINT = "deployment.R"
_BRIDGE = Path(__file__).resolve().parent / "r"


class RCode(Handler):
    """Answers with the user's R functions ``request`` and, if defined, ``requests``.

    The R process gets requests through a pipe of its own, one at a time; what it prints goes to the log. When it
    dies, the request it was at fails and it is started again.
    """

    platform = "r"

    def __init__(self, package_dir: Path, init_context: dict[str, Any]) -> None:
        self._package_dir = package_dir
        self._init_context = init_context
        self._process: subprocess.Popen[bytes] | None = None
        self._to_r: IO[bytes] | None = None
        self._from_r: IO[bytes] | None = None
        self._has: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._up = False
        fields = init_context.get("input_fields", [])
        self._field_types = {
            field["name"]: field.get("data_type", "") for field in fields if isinstance(field, dict) and "name" in field
        }

    def load(self) -> None:
        """Start R and load the package. Raises `StartFailed` with R's message and calls."""
        rscript = shutil.which("Rscript")
        if rscript is None:
            raise StartFailed("Rscript is not on PATH: this environment has no R.")
        if not (self._package_dir / ENTRY_POINT).is_file():
            raise StartFailed(f"The package has no {ENTRY_POINT}.")
        self._start(rscript)
        self.loading()
        answer = self._exchange({"context": self._init_context}, None)
        if "error" in answer:
            raise StartFailed(f"{ENTRY_POINT} failed: {answer['error']['message']}", answer["error"]["traceback"])
        if "ready" not in answer:
            raise StartFailed(f"R ended while loading {ENTRY_POINT} ({self._ended()}).")
        self._has = answer["ready"]
        self._up = True

    def _start(self, rscript: str) -> None:
        request_out, request_in = os.pipe()
        answer_out, answer_in = os.pipe()
        environ = dict(os.environ)
        library = Path(sys.prefix) / "r-library"
        if library.is_dir():
            environ["R_LIBS"] = os.pathsep.join(filter(None, [str(library), environ.get("R_LIBS", "")]))
        bridge = [rscript, "--vanilla", str(_BRIDGE / "bridge.R"), str(_BRIDGE), str(self._package_dir)]
        # A signal to the whole process group tells the server to drain; R must answer until that is done.
        shell = ["/bin/sh", "-c", 'trap "" TERM INT; exec "$@"', "sh"]
        self._process = subprocess.Popen(
            [*shell, *bridge, f"/dev/fd/{request_out}", f"/dev/fd/{answer_in}"],
            pass_fds=(request_out, answer_in),
            stdin=subprocess.DEVNULL,
            env=environ,
        )
        os.close(request_out)
        os.close(answer_in)
        self._to_r = os.fdopen(request_in, "wb")
        self._from_r = os.fdopen(answer_out, "rb")

    def request(self, data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        if self._has.get("request"):
            return self._call("request", data, context, emit)
        results = self.requests([data], context)
        assert results is not None
        return results[0]

    def requests(self, items: list[Any], context: dict[str, Any]) -> list[Any] | None:
        if not self._has.get("requests"):
            return None
        results = self._call("requests", items, context, None)
        if not isinstance(results, list) or len(results) != len(items):
            raise UserCodeFailed("WrongResult", f"'requests' must give back a list of {len(items)} results.")
        return results

    def infer(self, inputs: list[tensors.Tensor], context: dict[str, Any]) -> list[tensors.Tensor]:
        return tensors.from_result(self.request(tensors.to_fields(inputs, self._field_types), context, None))

    def _call(self, name: str, data: Any, context: dict[str, Any], emit: Emit | None) -> Any:
        message = {"call": name, "data": data, "context": context, "streaming": emit is not None}
        with self._lock:
            answer = self._exchange(message, emit)
            if not answer:
                how = self._ended()
                self._restart(how)
                raise UserCodeFailed(
                    "RProcessEnded", f"The R process ended during this request ({how}); it runs again."
                )
        if "error" in answer:
            error = answer["error"]
            raise UserCodeFailed("RError", error["message"], error["traceback"] + "\n")
        return answer["result"]

    def _exchange(self, message: dict[str, Any], emit: Emit | None) -> dict[str, Any]:
        """Send a message and wait for the last line of its answer; empty when R ended instead."""
        assert self._to_r is not None
        assert self._from_r is not None
        line = dumps(message)
        if b"\\u0000" in line:
            raise InvalidInput("R has no texts with a NUL character.")
        try:
            self._to_r.write(line + b"\n")
            self._to_r.flush()
        except BrokenPipeError:
            return {}
        gone: BaseException | None = None
        for answer_line in self._from_r:
            answer: dict[str, Any] = loads(answer_line)
            if "part" not in answer:
                if gone is not None:
                    raise gone
                return answer
            if emit is not None and gone is None:
                try:
                    emit(answer["part"])
                except Exception as error:
                    gone = error  # R goes on to its end all the same; only then is the pipe free again.
        return {}

    def _restart(self, how: str) -> None:
        self._up = False
        log("error", "R process ended", how=how)
        self.close()
        try:
            self.load()
        except StartFailed as error:
            # It had loaded before: let Kubernetes start the container anew, with its back-off.
            explain(error)
            os._exit(1)

    def _ended(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def check(self) -> bool:
        return self._up

    def close(self) -> None:
        for pipe in (self._to_r, self._from_r):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
