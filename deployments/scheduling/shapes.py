"""What is asked for and what there is: shapes, nodes and their validation.

Units everywhere in this package: CPU in thousandths of a core, memory in MiB, a GPU in thousandths (`MILLI`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MILLI = 1000
"""Parts of one device; a request below this is a share of one GPU."""


class PlannerInputError(ValueError):
    """Input the planner refuses; `field` names the offending field, the message says what is allowed."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(f"{field_name}: {message}")
        self.field = field_name


def whole_number(name: str, value: object, minimum: int = 0) -> int:
    """`value` as an int of at least `minimum`; fractions, booleans and text are refused by name."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise PlannerInputError(name, f"{value!r} is not a number; give a whole number of at least {minimum}")
    if value in (float("inf"), float("-inf")) or value != int(value) or value < minimum:
        raise PlannerInputError(name, f"{value!r} is not allowed; give a whole number of at least {minimum}")
    return int(value)


@dataclass(frozen=True, slots=True)
class Shape:
    """Resources of one instance. All its GPUs come from one node.

    `gpus` devices of `gpu_milli` thousandths each (0 for an instance without a GPU); `models` are the admissible
    GPU products, none meaning any.
    """

    cpu_milli: int
    memory_mib: int
    gpus: int = 0
    gpu_milli: int = MILLI
    models: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("cpu_milli", "memory_mib", "gpus", "gpu_milli"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if self.gpus == 0:
            object.__setattr__(self, "gpu_milli", 0)
            object.__setattr__(self, "models", frozenset())
        elif not 0 < self.gpu_milli <= MILLI:
            raise PlannerInputError("gpu_milli", f"{self.gpu_milli} is not allowed; give 1 to {MILLI}")

    @property
    def demand_milli(self) -> int:
        """Thousandths of GPUs taken in all."""
        return self.gpus * self.gpu_milli

    @property
    def sort_key(self) -> tuple[int, int, int, int, tuple[str, ...]]:
        """Largest first; an order that is the same in every process."""
        models = tuple(sorted(self.models))
        return (-self.gpus, -self.gpu_milli, -self.cpu_milli, -self.memory_mib, models)

    def describe(self) -> str:
        """The shape in words, as shown to people: '2 GPUs, 8 CPUs, 16 GiB'."""
        parts = [f"{self.cpu_milli / 1000:g} CPUs", f"{self.memory_mib / 1024:.3g} GiB"]
        if self.gpus:
            gpus = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}"
            if self.gpu_milli < MILLI:
                gpus = f"{self.gpu_milli / MILLI:g} of a GPU"
            if self.models:
                gpus += f" ({' or '.join(sorted(self.models))})"
            parts.insert(0, gpus)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node as it is when empty: allocatable CPU, memory and equal devices of one product.

    A MIG slice or a time-sliced replica counts as one device whose `model` is the resource's product
    (for example `A100/mig-1g.5gb`). `cluster` and `name` together identify it; `gpus` 0 is a node without GPU.
    A machine with devices of several kinds is several nodes of the same `host`, which share its CPU and memory; each
    gives the whole of both. Without a `host` a node is a machine by itself.
    """

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int = 0
    model: str = ""
    cluster: str = ""
    unhealthy: frozenset[int] = field(default=frozenset())
    host: str = ""

    def __post_init__(self) -> None:
        for name in ("cpu_milli", "memory_mib", "gpus"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if any(not 0 <= device < self.gpus for device in self.unhealthy):
            raise PlannerInputError("unhealthy", f"node {self.name} has devices 0 to {self.gpus - 1}")

    @property
    def key(self) -> tuple[str, str]:
        return (self.cluster, self.name)


def fits_empty(shape: Shape, node: NodeSpec) -> bool:
    """Whether `shape` fits `node` when nothing else runs there."""
    if shape.models and node.model not in shape.models:
        return False
    healthy = node.gpus - len(node.unhealthy)
    return shape.cpu_milli <= node.cpu_milli and shape.memory_mib <= node.memory_mib and shape.gpus <= healthy


def check_unique(nodes: Iterable[NodeSpec]) -> None:
    """Refuse two nodes of the same cluster and name; the same name in two clusters is fine."""
    seen: set[tuple[str, str]] = set()
    for node in nodes:
        if node.key in seen:
            raise PlannerInputError("nodes", f"node {node.name!r} is listed twice in cluster {node.cluster!r}")
        seen.add(node.key)
