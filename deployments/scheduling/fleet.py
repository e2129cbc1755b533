"""The books of a set of nodes: what is free where, down to the device.

Nodes with the same model, free CPU, free memory and free devices are interchangeable; `Fleet` groups them, so
that a policy looks at a few hundred states instead of ten thousand nodes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .shapes import MILLI, NodeSpec, PlannerInputError, Shape, check_unique


class State(NamedTuple):
    """What is free on a node; `gpus` holds thousandths left per device, ascending."""

    model: str
    cpu_milli: int
    memory_mib: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an instance went: index of the node in the fleet and the devices it holds."""

    node: int
    devices: tuple[int, ...]
    shape: Shape


class Fleet:
    """Free resources of `nodes`, kept by `allocate` and `release`. Nodes of one host share its CPU and memory, so that
    booking on one changes the state of all of them (`siblings`).

    `order` ranks nodes that are equally good (default: as listed); it is a permutation of the node indices.
    """

    def __init__(self, nodes: Sequence[NodeSpec], order: Sequence[int] | None = None) -> None:
        check_unique(nodes)
        self.nodes = tuple(nodes)
        ranks = range(len(nodes)) if order is None else order
        self._node_at_rank = [0] * len(nodes)
        self._rank = list(ranks)
        if sorted(self._rank) != list(range(len(nodes))):
            raise PlannerInputError("order", "give every node index exactly once")
        for node, rank in enumerate(self._rank):
            self._node_at_rank[rank] = node
        self._siblings, self._host = _hosts(nodes)
        self._cpu = [nodes[host].cpu_milli for host in self._host]
        self._memory = [nodes[host].memory_mib for host in self._host]
        self._gpus = [[0 if device in node.unhealthy else MILLI for device in range(node.gpus)] for node in nodes]
        self._closed: set[int] = set()
        self._members: dict[State, list[int]] = {}
        for node in range(len(nodes)):
            insort(self._members.setdefault(self.state_of(node), []), self._rank[node])

    def state_of(self, node: int) -> State:
        """What is free on the node of that index; nothing on one that was closed."""
        if node in self._closed:
            return State(self.nodes[node].model, 0, 0, (0,) * len(self._gpus[node]))
        host = self._host[node]
        return State(self.nodes[node].model, self._cpu[host], self._memory[host], tuple(sorted(self._gpus[node])))

    def siblings(self, node: int) -> tuple[int, ...]:
        """The nodes of the same host, itself among them."""
        return self._siblings.get(self._host[node], (node,))

    def states(self) -> list[State]:
        """The distinct states some node is in."""
        return list(self._members)

    def members(self, state: State) -> list[int]:
        """Nodes in `state`, best ranked first; empty when there is none."""
        return [self._node_at_rank[rank] for rank in self._members.get(state, ())]

    def count(self, state: State) -> int:
        return len(self._members.get(state, ()))

    def first_rank(self, state: State) -> int:
        """Rank of the best ranked node in `state`, which must have one."""
        return self._members[state][0]

    def node_ranked(self, rank: int) -> int:
        return self._node_at_rank[rank]

    def devices(self, node: int) -> tuple[int, ...]:
        """Thousandths left on each device of the node, by device index."""
        return tuple(self._gpus[node])

    def allocate(self, node: int, shape: Shape, takes: Sequence[int]) -> Placement:
        """Book `shape` on `node`; `takes` are the levels (thousandths left) of the devices to use.

        Raises PlannerInputError and changes nothing if that is not free.
        """
        levels = self._gpus[node]
        if shape.models and self.nodes[node].model not in shape.models:
            raise PlannerInputError("models", f"node {self.nodes[node].name} has {self.nodes[node].model}")
        host = self._host[node]
        if self._cpu[host] < shape.cpu_milli or self._memory[host] < shape.memory_mib:
            raise PlannerInputError("cpu_milli", f"node {self.nodes[node].name} has too little CPU or memory")
        if len(takes) != shape.gpus or any(level < shape.gpu_milli for level in takes):
            raise PlannerInputError("takes", f"{list(takes)} cannot hold {shape.describe()}")
        devices: list[int] = []
        for level in takes:
            device = next((d for d, left in enumerate(levels) if left == level and d not in devices), None)
            if device is None:
                raise PlannerInputError("takes", f"node {self.nodes[node].name} has no device with {level} left")
            devices.append(device)
        self._move(node, shape, devices, -1)
        return Placement(node, tuple(devices), shape)

    def occupy(self, placement: Placement) -> None:
        """Book a known placement, for example one read from running pods; raises if it does not fit."""
        if not self.fits(placement):
            raise PlannerInputError(
                "placement", f"node {self.nodes[placement.node].name} cannot hold {placement.shape.describe()}"
            )
        self._move(placement.node, placement.shape, placement.devices, -1)

    def fits(self, placement: Placement) -> bool:
        """Whether `occupy` would succeed."""
        node, shape = placement.node, placement.shape
        return (
            self.is_open(node)
            and self._cpu[self._host[node]] >= shape.cpu_milli
            and self._memory[self._host[node]] >= shape.memory_mib
            and all(
                device < len(self._gpus[node]) and self._gpus[node][device] >= shape.gpu_milli
                for device in placement.devices
            )
        )

    def close(self, node: int) -> None:
        """Let nothing more onto the node: for nodes whose real use contradicts the books, or that are reserved.

        Later releases on it are ignored, so that it is never filled again by mistake.
        """
        old, rank = self.state_of(node), self._rank[node]
        self._leave(old, rank)
        self._closed.add(node)
        self._gpus[node] = [0] * len(self._gpus[node])
        insort(self._members.setdefault(self.state_of(node), []), rank)

    def is_open(self, node: int) -> bool:
        """Whether there is such a node and it was not closed."""
        return 0 <= node < len(self.nodes) and node not in self._closed

    def release(self, placement: Placement) -> None:
        """Give back what `placement` holds."""
        self._move(placement.node, placement.shape, placement.devices, 1)

    def _move(self, node: int, shape: Shape, devices: Sequence[int], sign: int) -> None:
        if node in self._closed:
            return
        touched, host = self.siblings(node), self._host[node]
        for one in touched:
            self._leave(self.state_of(one), self._rank[one])
        self._cpu[host] += sign * shape.cpu_milli
        self._memory[host] += sign * shape.memory_mib
        levels = self._gpus[node]
        for device in devices:
            levels[device] += sign * shape.gpu_milli
        for one in touched:
            insort(self._members.setdefault(self.state_of(one), []), self._rank[one])

    def _leave(self, state: State, rank: int) -> None:
        ranks = self._members[state]
        del ranks[bisect_left(ranks, rank)]
        if not ranks:
            del self._members[state]


def _hosts(nodes: Sequence[NodeSpec]) -> tuple[dict[int, tuple[int, ...]], list[int]]:
    """Nodes by host, for hosts with several, and the host of each node; a host goes by its first node's index."""
    by_host: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        if node.host:
            by_host.setdefault(node.host, []).append(index)
    host = list(range(len(nodes)))
    shared = {}
    for name, members in by_host.items():
        first = nodes[members[0]]
        if any((nodes[n].cpu_milli, nodes[n].memory_mib) != (first.cpu_milli, first.memory_mib) for n in members):
            raise PlannerInputError("host", f"nodes of {name!r} give different CPU or memory; give the host's whole")
        for member in members:
            host[member] = members[0]
        if len(members) > 1:
            shared[members[0]] = tuple(members)
    return shared, host
