"""What a person sees while things start: one line per stage, with its time."""

import sys
import time
from typing import TextIO


class Terminal:
    """Writes lines; colour only where a person looks at it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._colour = self._stream.isatty()
        try:
            "✓".encode(self._stream.encoding or "ascii")
            self._done, self._failed, self._busy = "✓", "✗", "…"
        except UnicodeEncodeError:
            self._done, self._failed, self._busy = "+", "x", "."
        self._began: dict[str, float] = {}

    def line(self, text: str = "") -> None:
        print(text, file=self._stream, flush=True)

    def begin(self, stage: str) -> None:
        """Start the clock of a stage."""
        self._began[stage] = time.monotonic()

    def done(self, stage: str, title: str) -> None:
        """A stage has ended well; ``title`` is what a person calls it."""
        seconds = time.monotonic() - self._began.pop(stage, time.monotonic())
        self.line(f"  {self._mark(self._done, 32)} {title:<40} {seconds:5.1f} s")

    def note(self, text: str) -> None:
        """Something that happened or is going on, below the current stage."""
        self.line(f"  {self._mark(self._busy, 36)} {text}")

    def problem(self, text: str) -> None:
        self.line(f"  {self._mark(self._failed, 31)} {text}")

    def _mark(self, mark: str, colour: int) -> str:
        return f"\x1b[{colour}m{mark}\x1b[0m" if self._colour else mark
