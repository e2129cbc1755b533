"""The containers of an instance whose logs are read as one: what brings its package, and then its server."""

from typing import Any

from kube.connect import Object
from kube.logs import Line

PACKAGE, SERVING = "package", "serving"


def marked(line: Line, container: str) -> Line:
    """A line that tells which container wrote it, unless that is the server."""
    return line if container == SERVING else Line(line.time, f"[{container}] {line.text}")


def has_package(pod: Object) -> bool:
    """Whether a container of the pod brings a package; images have theirs in them."""
    return any(each.get("name") == PACKAGE for each in (pod.get("spec") or {}).get("initContainers") or ())


def package_is_there(pod: Object) -> bool:
    """Whether that container is done and will write no more."""
    ended: dict[str, Any] = (_status(pod).get("state") or {}).get("terminated") or {}
    return ended.get("exitCode") == 0


def package_restarts(pod: Object) -> int:
    return int(_status(pod).get("restartCount", 0))


def _status(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return next((status for status in statuses if status.get("name") == PACKAGE), {})
