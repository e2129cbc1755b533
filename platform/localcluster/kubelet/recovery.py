"""What an earlier kubelet left of a container: the record of its attempts on disk, and a process that may still run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from localcluster.client import Object
from localcluster.kubelet.attempts import PodRecord, terminated
from localcluster.kubelet.processes import Shim, read_exit, unknown_exit


@dataclass(frozen=True, slots=True)
class Left:
    """The newest attempt: it runs (`shim`), has ended (`outcome`), or was prepared and never started (neither).

    `last_state` is the end of the one before.
    """

    number: int
    shim: Shim | None = None
    outcome: dict[str, Any] | None = None
    last_state: Object = field(default_factory=dict)


async def find(record: PodRecord, container: Object) -> Left | None:
    """What is left of a container; None when it has never been prepared."""
    name = container["name"]
    numbers = record.attempts(name)
    if not numbers:
        return None
    last_state: Object = {}
    for earlier in numbers[:-1]:
        directory = record.attempt(name, earlier)
        outcome = read_exit(directory)
        if outcome:
            last_state = {"terminated": terminated(directory, outcome, container)}
    number = numbers[-1]
    directory = record.attempt(name, number)
    shim = await Shim.find(directory)
    if shim is not None:
        return Left(number, shim=shim, last_state=last_state)
    outcome = read_exit(directory)
    if outcome is None and (directory / "state.json").exists():
        outcome = unknown_exit(json.loads((directory / "state.json").read_text())["startedAt"])
    return Left(number, outcome=outcome, last_state=last_state)
