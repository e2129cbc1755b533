"""Arithmetic of the horizontal pod autoscaler: pure functions.

Source: kubernetes pkg/controller/podautoscaler (replica_calculator.go, horizontal.go).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from localcluster.client import Object

_TOLERANCE = 0.1
_STABILIZATION = 300.0  # seconds for scaling down when the spec says nothing


@dataclass(frozen=True, slots=True)
class Measured:
    """What the target's pods use: values and requests in the same unit by pod, and pods without a value."""

    values: Mapping[str, int]
    requests: Mapping[str, int]
    unready: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


def utilization(measured: Measured, names: Iterable[str]) -> tuple[int, int]:
    """(percent of requests in use, mean use of a pod)."""
    names = list(names)
    used = sum(measured.values[name] for name in names)
    asked = sum(measured.requests[name] for name in names)
    return used * 100 // asked if asked else 0, used // len(names) if names else 0


def by_utilization(measured: Measured, current: int, target: int) -> int:
    """Replicas that bring use to `target` percent of requests."""
    return _replicas(measured, current, lambda m, names: utilization(m, names)[0] / target, target, True)


def by_average(measured: Measured, current: int, target: int) -> int:
    """Replicas that bring the mean use of a pod to `target`."""

    def ratio(m: Measured, names: list[str]) -> float:
        return sum(m.values[name] for name in names) / len(names) / target

    return _replicas(measured, current, ratio, target, False)


def _replicas(measured: Measured, current: int, ratio_of, target: int, relative: bool) -> int:
    ready = [name for name in measured.values if name not in measured.unready]
    if not ready:
        return current
    ratio = ratio_of(measured, ready)
    if not measured.missing and not (measured.unready and ratio > 1):
        return current if abs(1 - ratio) <= _TOLERANCE else math.ceil(ratio * len(ready))
    values = {name: measured.values[name] for name in ready}
    for name in measured.missing:
        # Scaling down, a silent pod is taken to be as busy as wanted; scaling up, to be idle.
        full = measured.requests.get(name, 0) * target // 100 if relative else target
        values[name] = full if ratio < 1 else 0
    if ratio > 1:
        values |= dict.fromkeys(measured.unready, 0)
    filled = Measured(values, measured.requests)
    new_ratio = ratio_of(filled, list(values))
    if abs(1 - new_ratio) <= _TOLERANCE or (ratio < 1) != (new_ratio < 1):
        return current
    wanted = math.ceil(new_ratio * len(values))
    if (new_ratio < 1 and wanted > current) or (new_ratio > 1 and wanted < current):
        return current
    return wanted


@dataclass(frozen=True, slots=True)
class Change:
    """A past rescale: how many replicas were added (or, negative, removed) and when."""

    delta: int
    at: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A past proposal, for stabilization."""

    replicas: int
    at: float


def stabilized(
    hpa: Object, wanted: int, current: int, past: list[Recommendation], at: float
) -> tuple[int, tuple[str, str] | None]:
    """The proposal, held back by those of the stabilization windows; and why."""
    behavior = hpa["spec"].get("behavior") or {}
    up = (behavior.get("scaleUp") or {}).get("stabilizationWindowSeconds") or 0
    window = (behavior.get("scaleDown") or {}).get("stabilizationWindowSeconds")
    down = _STABILIZATION if window is None else window
    lowest = min([wanted, *(r.replicas for r in past if at - r.at < up)])
    highest = max([wanted, *(r.replicas for r in past if at - r.at < down)])
    result = current
    result = max(result, lowest)
    result = min(result, highest)
    if result == wanted:
        return wanted, None
    if result > wanted:
        text = "recent recommendations were higher than current one, applying the highest recent recommendation"
        return result, ("ScaleDownStabilized", text)
    text = "recent recommendations were lower than current one, applying the lowest recent recommendation"
    return result, ("ScaleUpStabilized", text)


def limited(hpa: Object, wanted: int, current: int, changes: list[Change], at: float) -> tuple[int, bool, str, str]:
    """(replicas, limited?, reason, message) after bounds and scaling policies."""
    spec = hpa["spec"]
    smallest, largest = spec.get("minReplicas") or 1, spec["maxReplicas"]
    behavior = spec.get("behavior") or {}
    if wanted > current:
        allowed = _up_limit(behavior.get("scaleUp"), current, changes, at)
        if allowed < current:
            allowed = current
        bound = min(allowed, largest)
        if wanted > bound:
            if allowed < largest:
                return (
                    bound,
                    True,
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate",
                )
            text = "the desired replica count is more than the maximum replica count"
            return bound, True, "TooManyReplicas", text
    elif wanted < current:
        allowed = _down_limit(behavior.get("scaleDown"), current, changes, at)
        bound = max(min(allowed, current), smallest)
        if wanted < bound:
            if allowed > smallest:
                return (
                    bound,
                    True,
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                )
            text = "the desired replica count is less than the minimum replica count"
            return bound, True, "TooFewReplicas", text
    if wanted > largest:
        text = "the desired replica count is more than the maximum replica count"
        return largest, True, "TooManyReplicas", text
    if wanted < smallest:
        text = "the desired replica count is less than the minimum replica count"
        return smallest, True, "TooFewReplicas", text
    return wanted, False, "DesiredWithinRange", "the desired count is within the acceptable range"


def _up_limit(rules: Object | None, current: int, changes: list[Change], at: float) -> int:
    if rules is None:
        return max(2 * current, 4)
    if rules.get("selectPolicy") == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or []:
        recent = [c.delta for c in changes if at - c.at < policy["periodSeconds"]]
        start = current - sum(delta for delta in recent if delta > 0) - sum(d for d in recent if d < 0)
        if policy["type"] == "Pods":
            limits.append(start + policy["value"])
        else:
            limits.append(math.ceil(start * (1 + policy["value"] / 100)))
    if not limits:
        return max(2 * current, 4)
    return min(limits) if rules.get("selectPolicy") == "Min" else max(limits)


def _down_limit(rules: Object | None, current: int, changes: list[Change], at: float) -> int:
    if rules is None:
        return 0
    if rules.get("selectPolicy") == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or []:
        start = current - sum(c.delta for c in changes if at - c.at < policy["periodSeconds"])
        if policy["type"] == "Pods":
            limits.append(start - policy["value"])
        else:
            limits.append(int(start * (1 - policy["value"] / 100)))
    if not limits:
        return 0
    return max(limits) if rules.get("selectPolicy") == "Min" else min(limits)
