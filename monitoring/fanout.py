"""Live lines on their way from those who follow pods to those who read: in batches, each encoded once for everybody.

Nothing here grows without bound: a subscription holds a limited number of lines that were not yet sent and counts
what it had to drop, the oldest first.
"""

import asyncio
import datetime
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import orjson

# Of one batch, so that what is dropped of a full queue is little at a time.
BATCH_LINES = 500
BATCH_CHARACTERS = 256 * 1024
# Of what waits for one reader.
BACKLOG_LINES = 8000  # two seconds of 200 pods at 20 lines a second each
BACKLOG_CHARACTERS = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PodLine:
    instance: str  # name of the pod
    revision: int
    time: int  # nanoseconds since 1970
    text: str


class Batch:
    """Lines in order of time, shared by all who read them."""

    def __init__(self, lines: Iterable[PodLine]) -> None:
        self.lines = sorted(lines, key=lambda line: line.time)
        self.characters = sum(len(line.text) for line in self.lines)

    @cached_property
    def encoded(self) -> str:
        """A JSON list of what `shown` gives; made when it is first sent."""
        return orjson.dumps([shown(line.instance, line.revision, line.time, line.text) for line in self.lines]).decode()


def shown(instance: str, revision: int, time: int, text: str) -> dict[str, str | int]:
    """A line as pages get it, live or from the store; ``time`` in ISO 8601 with nanoseconds, which pages compare."""
    seconds, nanoseconds = divmod(time, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return {
        "instance": instance,
        "revision": revision,
        "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z",
        "text": text,
    }


class Subscription:
    """One reader's queue of batches."""

    def __init__(self, version_id: uuid.UUID) -> None:
        self.version_id = version_id
        self.waiting = 0  # lines
        self.skipped = 0
        self.filled = asyncio.Event()
        self._characters = 0
        self._batches: deque[Batch] = deque()

    def put(self, batch: Batch) -> None:
        """Append it, dropping the oldest batches beyond the limits but never this one."""
        self._batches.append(batch)
        self.waiting += len(batch.lines)
        self._characters += batch.characters
        while (self.waiting > BACKLOG_LINES or self._characters > BACKLOG_CHARACTERS) and len(self._batches) > 1:
            self.skipped += len(self._next().lines)
        self.filled.set()

    def take(self) -> tuple[Batch | None, int]:
        """The next batch, None when nothing waits, and how many lines were dropped before it."""
        batch = self._next() if self._batches else None
        skipped, self.skipped = self.skipped, 0
        if not self._batches:
            self.filled.clear()
        return batch, skipped

    def _next(self) -> Batch:
        batch = self._batches.popleft()
        self.waiting -= len(batch.lines)
        self._characters -= batch.characters
        return batch
