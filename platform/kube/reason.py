"""Why something waits or failed, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something waits or failed, for a person.

    ``hopeless`` tells that waiting will not help: only a change of the package, the settings or the cluster does.
    """

    code: str
    message: str
    next: str = ""
    evidence: str = ""
    hopeless: bool = False
