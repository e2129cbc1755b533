"""From rows of the inventory to the planner's nodes: which devices which flavor and which instance type may use."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployments.models import GpuFlavor, GpuPool, InstanceType
from deployments.scheduling.claims import Flavor
from deployments.scheduling.fleet import Placement
from deployments.scheduling.shapes import NodeSpec, Shape

NOWHERE = frozenset({"no such node"})
"""Products of a flavor or shape that matches no node; to the planner an empty set means any."""

Place = tuple[str, str]
"""Cluster and node."""


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def tolerates(tolerations: Sequence[Mapping[str, Any]], taints: Sequence[Mapping[str, Any]]) -> bool:
    """Whether pods with the tolerations may be bound to a node with the taints."""
    return all(
        any(_matches(toleration, taint) for toleration in tolerations)
        for taint in taints
        if taint.get("effect") in ("NoSchedule", "NoExecute")
    )


def _matches(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")


def offers(flavor: GpuFlavor, pool: GpuPool) -> bool:
    """Whether the devices of the pool are of that flavor."""
    return (
        pool.resource == flavor.resource
        and (not flavor.products or pool.product in flavor.products)
        and selects(flavor.node_selector, pool.node.labels)
    )


def admits(kind: InstanceType, pool: GpuPool) -> bool:
    """Whether instances of that type may use the devices of the pool."""
    return (
        pool.resource == kind.accelerator_resource
        and selects(kind.node_selector, pool.node.labels)
        and tolerates(kind.tolerations, pool.node.taints)
    )


class Supply:
    """Pools as the planner's nodes, in a fixed order. Pools of nodes that are gone are left out.

    Pools that the same flavors and instance types may use, of one product, share a `NodeSpec.model`. A node with
    several resources, such as MIG slices of several profiles, is several `NodeSpec`s of one host.
    """

    def __init__(
        self, pools: Iterable[GpuPool], flavors: Iterable[GpuFlavor], kinds: Iterable[InstanceType] = ()
    ) -> None:
        self.pools = sorted(
            (pool for pool in pools if pool.node.gone_at is None),
            key=lambda pool: (pool.node.cluster, pool.node.name, pool.resource),
        )
        self.flavors = {flavor.name: flavor for flavor in flavors}
        self._kinds = {_constraint(kind): kind for kind in kinds if kind.accelerator}
        self.index: dict[tuple[str, str, str], int] = {
            (pool.node.cluster, pool.node.name, pool.resource): number for number, pool in enumerate(self.pools)
        }
        self._offered: dict[str, frozenset[str]] = {}
        self._admitted: dict[tuple[str, str, str], frozenset[str]] = {}
        self._models = self._name_models()
        self.nodes = tuple(self._spec(number) for number in range(len(self.pools)))

    def _name_models(self) -> list[str]:
        groups: dict[tuple[Any, ...], str] = {}
        taken: dict[str, int] = {}
        names = []
        for pool in self.pools:
            open_ = pool.node.ready and pool.node.schedulable
            offered = tuple(name for name, flavor in self.flavors.items() if offers(flavor, pool)) if open_ else None
            admitted = tuple(key for key, kind in self._kinds.items() if open_ and admits(kind, pool))
            key = (pool.resource, pool.product, offered, admitted)
            if key not in groups:
                number = taken[pool.product] = taken.get(pool.product, 0) + 1
                groups[key] = pool.product if number == 1 else f"{pool.product}, group {number}"
            names.append(groups[key])
        return names

    def _spec(self, number: int) -> NodeSpec:
        pool = self.pools[number]
        broken = range(min(pool.allocatable, pool.capacity), pool.capacity)
        return NodeSpec(
            name=pool.node.name,
            cpu_milli=pool.node.cpu_milli,
            memory_mib=pool.node.memory_mib,
            gpus=pool.capacity,
            model=self._models[number],
            cluster=f"{pool.node.cluster}/{pool.resource}",
            unhealthy=frozenset(broken),
            host=f"{pool.node.cluster}/{pool.node.name}",
        )

    def open(self, pool: GpuPool) -> bool:
        return pool.node.ready and pool.node.schedulable

    def models_of(self, flavor: GpuFlavor) -> frozenset[str]:
        """Products of the flavor on nodes that take new pods; `NOWHERE` when there are none."""
        known = self._offered.get(flavor.name)
        if known is None:
            found = {self._models[n] for n, pool in enumerate(self.pools) if self.open(pool) and offers(flavor, pool)}
            known = self._offered[flavor.name] = frozenset(found) or NOWHERE
        return known

    def planner_flavors(self) -> tuple[Flavor, ...]:
        return tuple(Flavor(name, self.models_of(flavor)) for name, flavor in sorted(self.flavors.items()))

    def models_for(self, kind: InstanceType) -> frozenset[str]:
        """Products on nodes that take new pods and that instances of the type may use."""
        key = _constraint(kind)
        known = self._admitted.get(key)
        if known is None:
            found = {self._models[n] for n, pool in enumerate(self.pools) if self.open(pool) and admits(kind, pool)}
            known = self._admitted[key] = frozenset(found) or NOWHERE
        return known

    def flavors_for(self, kind: InstanceType) -> list[str]:
        """Flavors that instances of the type may use, the cheapest first; without any match all of its resource."""
        of_resource = [flavor for flavor in self.flavors.values() if flavor.resource == kind.accelerator_resource]
        models = self.models_for(kind)
        matching = [flavor for flavor in of_resource if (self.models_of(flavor) & models) - NOWHERE]
        ordered = sorted(matching or of_resource, key=lambda flavor: (flavor.price, flavor.name))
        return [flavor.name for flavor in ordered]

    def shape(self, kind: InstanceType) -> Shape:
        return Shape(
            cpu_milli=math.ceil(kind.cpu * 1000 - 1e-6),
            memory_mib=kind.memory,
            gpus=kind.accelerator,
            models=self.models_for(kind),
        )

    def placements(self, held: Iterable[tuple[Place, str, Shape]]) -> list[Placement]:
        """Planner placements of instances at (place, resource), devices numbered as they come.

        Which device a container really gets is the device plugin's choice; only how many are taken matters.
        """
        taken: dict[int, int] = {}
        found = []
        for (cluster, node), resource, shape in held:
            number = self.index.get((cluster, node, resource), -1)
            start = taken.get(number, 0)
            taken[number] = start + shape.gpus
            found.append(Placement(number, tuple(range(start, start + shape.gpus)), shape))
        return found

    def foreign(self, own: Sequence[Placement]) -> tuple[Placement, ...]:
        """What others hold: devices of each pool, CPU and memory of each node; ``own`` are all placements of claims."""
        devices: Counter[int] = Counter()
        cpu: Counter[Place] = Counter()
        memory: Counter[Place] = Counter()
        for placement in own:
            if placement.node < 0:
                continue
            node, shape = self.pools[placement.node].node, placement.shape
            devices[placement.node] += shape.gpus
            cpu[node.cluster, node.name] += shape.cpu_milli
            memory[node.cluster, node.name] += shape.memory_mib
        result = []
        told: set[Place] = set()
        for number, pool in enumerate(self.pools):
            node, place = pool.node, (pool.node.cluster, pool.node.name)
            if place not in told:
                told.add(place)
                others = Shape(
                    _within(node.foreign_cpu_milli, node.cpu_milli - cpu[place]),
                    _within(node.foreign_memory_mib, node.memory_mib - memory[place]),
                )
                result.append(Placement(number, (), others))
            held = devices[number]
            count = _within(pool.foreign, min(pool.allocatable, pool.capacity) - held)
            if count:
                result.append(Placement(number, tuple(range(held, held + count)), Shape(0, 0, count)))
        return tuple(result)


def _within(value: int, most: int) -> int:
    return max(0, min(value, most))


def _constraint(kind: InstanceType) -> tuple[str, str, str]:
    return (
        kind.accelerator_resource,
        json.dumps(kind.node_selector, sort_keys=True),
        json.dumps(kind.tolerations, sort_keys=True),
    )
