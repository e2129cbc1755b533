"""What a pod asks for, as integers: millicores for cpu, bytes for memory, pieces for everything else."""

from __future__ import annotations

from functools import lru_cache

from localcluster.client import Object
from localcluster.quantity import milli, whole

Amounts = dict[str, int]


@lru_cache(maxsize=4096)
def _amount(name: str, text: str) -> int:
    return milli(text) if name == "cpu" else whole(text)


def amounts(quantities: Object | None) -> Amounts:
    """A ResourceList as integers."""
    return {name: _amount(name, str(text)) for name, text in (quantities or {}).items()}


def pod_requests(pod: Object) -> Amounts:
    """Effective requests: the sum of containers and sidecars, or the largest init step when that is more.

    Source: kubernetes component-helpers resource.PodRequests.
    """
    spec = pod["spec"]
    total: Amounts = {}
    for container in spec["containers"]:
        _add(total, _requests(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or []:
        need = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, need)
            step = dict(sidecars)
        else:
            step = dict(sidecars)
            _add(step, need)
        _most(peak, step)
    _add(total, sidecars)
    _most(total, peak)
    _add(total, amounts(spec.get("overhead")))
    return total


def _requests(container: Object) -> Amounts:
    resources = container.get("resources") or {}
    # A limit without a request asks for the limit; the API server defaults it, static objects may not have it.
    return amounts((resources.get("limits") or {}) | (resources.get("requests") or {}))


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _most(total: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        total[name] = max(total.get(name, 0), amount)
