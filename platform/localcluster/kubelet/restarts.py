"""Whether a container is started again, and after what pause."""

from __future__ import annotations

from localcluster.client import Object
from localcluster.kubelet.status import View

_FIRST = 10.0
_LAST = 300.0


def policy_of(view: View, pod: Object) -> str:
    """Always, OnFailure or Never for one container: sidecars and init containers differ from their pod."""
    if view.is_sidecar:
        return "Always"
    policy = pod["spec"].get("restartPolicy", "Always")
    return "OnFailure" if view.init and policy == "Always" else policy


def is_wanted(view: View, pod: Object) -> bool:
    """Whether a container that does not run is to be started again."""
    policy = policy_of(view, pod)
    if "waiting" in view.state:
        return policy != "Never" or not view.init  # it could not be started: try again
    return policy == "Always" or (policy == "OnFailure" and not view.succeeded)


class Backoff:
    """The kubelet's pauses: 10 s, doubled up to 5 minutes; with `at_once` there is none before the second attempt."""

    def __init__(self, at_once: bool = False) -> None:
        self._begin = 0.0 if at_once else _FIRST
        self._pause = self._begin

    def next(self) -> float:
        """Seconds to wait now; the next pause is longer."""
        pause, self._pause = self._pause, min(_LAST, max(_FIRST, self._pause * 2))
        return pause

    def reset(self) -> None:
        """All went well for long: the next failure is a first one again."""
        self._pause = self._begin


def go_duration(seconds: float) -> str:
    """A duration as Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
