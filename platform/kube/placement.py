"""Why a pod found no node: what it lacks and who holds it, taints, labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kube.objects import mebibytes
from kube.reason import Reason
from kube.state import Pod, Room

# Of those who hold a resource so many are named.
MOST_HOLDERS = 3


def unscheduled(pod: Pod, rooms: Sequence[Room]) -> Reason | None:
    """Why no node takes a pod; None when the scheduler has not said so."""
    message = pod.unschedulable
    if not message:
        return None
    available, _, rest = message.partition(" nodes are available: ")
    causes = rest.split(". ")[0].rstrip(".") if rest else message
    lacking = re.findall(r"Insufficient ([\w./-]+)", causes)
    count = available if rest else "0"
    if lacking:
        wants = dict(pod.requests)
        parts = [
            _lacking(resource, wants.get(resource, 0), rooms, pod.namespace)
            for resource in lacking
            if resource != "pods"
        ]
        if "pods" in lacking:
            parts.append("a node holds no more pods")
        return Reason(
            "does_not_fit",
            f"{count} nodes have room for the instance: " + "; ".join(parts) + ".",
            "Choose a smaller instance type, stop another deployment, or wait until one ends.",
            message,
        )
    if "untolerated taint" in causes:
        return Reason(
            "taint_mismatch",
            f"{count} nodes accept the instance: {causes}.",
            "The free nodes are reserved. Choose another instance type, or ask the platform team to let it run there.",
            message,
        )
    if "affinity" in causes or "selector" in causes:
        return Reason(
            "selector_mismatch",
            f"{count} nodes match the labels that the instance type asks for: {causes}.",
            "Choose another instance type, or ask the platform team to label a node.",
            message,
        )
    return Reason("unschedulable", f"No node takes the instance: {causes}.", "Ask the platform team.", message)


def _lacking(resource: str, wanted: float, rooms: Sequence[Room], namespace: str) -> str:
    sentence = f"it asks for {_amount(resource, wanted)}" if wanted else f"there is not enough {resource}"
    if not rooms:
        return sentence
    best = max(rooms, key=lambda room: room.free.get(resource, 0))
    largest = max(room.allocatable.get(resource, 0) for room in rooms)
    if wanted > largest:
        return f"{sentence}, the largest node has {_amount(resource, largest)} in all"
    free = max(best.free.get(resource, 0), 0)
    sentence = f"{sentence}, the largest free slice is {_amount(resource, free)} on {best.node}"
    held = _held(resource, best, namespace)
    return f"{sentence}, where {held}" if held else sentence


def _held(resource: str, room: Room, namespace: str) -> str:
    """Who holds the rest of a node. Names are told to their own project only."""
    own: list[tuple[float, str]] = []
    others = 0.0
    for holder in room.holders:
        amount = holder.resources.get(resource, 0)
        if holder.name and holder.namespace == namespace:
            own.append((amount, holder.name))
        else:
            others += amount
    own.sort(reverse=True)
    others += sum(amount for amount, _ in own[MOST_HOLDERS:]) if len(own) > MOST_HOLDERS else 0
    parts = [f"{name} holds {_amount(resource, amount)}" for amount, name in own[:MOST_HOLDERS] if amount]
    if others:
        parts.append(f"others hold {_amount(resource, others)}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _amount(resource: str, value: float) -> str:
    if resource in ("memory", "ephemeral-storage"):
        return mebibytes(value)
    return f"{value:.3g} {'CPU cores' if resource == 'cpu' else resource}"
