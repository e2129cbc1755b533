"""What a cluster holds of a deployment version, as frozen values."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

Time = datetime.datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container's process ended."""

    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: Time | None = None


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    init: bool = False
    ready: bool = False
    started: bool = False
    restarts: int = 0
    waiting: str = ""  # reason, such as CrashLoopBackOff
    waiting_message: str = ""
    running_since: Time | None = None
    ended: Ended | None = None
    last: Ended | None = None
    memory_limit: float = 0  # bytes; 0 is none

    @property
    def failure(self) -> Ended | None:
        """The latest end with a failure, of this run or the one before."""
        for end in (self.ended, self.last):
            if end is not None and (end.exit_code != 0 or end.reason == "OOMKilled"):
                return end
        return None


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event, repeats folded by the cluster into ``count``."""

    kind: str
    reason: str
    message: str
    count: int = 1
    first: Time | None = None
    last: Time | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    uid: str
    name: str
    created: Time
    namespace: str = ""
    revision_id: str = ""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    node: str = ""
    address: str = ""
    deleting: bool = False
    ready: bool = False
    ready_at: Time | None = None
    scheduled_at: Time | None = None
    unschedulable: str = ""  # the scheduler's sentence
    gated: bool = False  # waits for the GPU pass
    assigned: str = ""  # the node that the GPU pass chose
    yields: bool = False  # goes first when fewer are wanted
    template: str = ""  # pod-template-hash
    containers: tuple[Container, ...] = ()
    events: tuple[Event, ...] = ()
    requests: tuple[tuple[str, float], ...] = ()
    memory_peak: float = 0  # bytes, the highest that was measured; the cluster does not tell it

    @property
    def serving(self) -> Container | None:
        return next((c for c in self.containers if not c.init), None)

    @property
    def package_at(self) -> Time | None:
        """When the last init container was done: the package is there and the server may start."""
        ended = [c.ended for c in self.containers if c.init]
        times = [one.finished_at for one in ended if one is not None and one.exit_code == 0 and one.finished_at]
        return max(times) if ended and len(times) == len(ended) else None

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment: what it was told and how far it is."""

    replicas: int
    applied: str = ""
    revision_id: str = ""
    generation: int = 1
    observed_generation: int = 0
    current: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    deadline_exceeded: bool = False
    refused: str = ""  # why pods cannot be created: quota, admission
    # pod-template-hash of the newest ReplicaSet; empty until the controller has made it.
    template: str = ""

    @property
    def settled(self) -> bool:
        """The controller has seen the latest spec and every wanted pod is a new one and available."""
        return (
            self.observed_generation >= self.generation
            and self.updated == self.replicas
            and self.current == self.replicas
            and self.available >= self.replicas
        )


@dataclass(frozen=True, slots=True)
class BuildPod:
    uid: str
    phase: str
    attempt: int
    deleting: bool
    pod: Pod
    created: Time


@dataclass(frozen=True, slots=True)
class Holder:
    """Pods on a node that belong together: a deployment version, or all that are nobody's here."""

    namespace: str
    name: str  # deployment/version; empty for pods that are not ours
    resources: dict[str, float]


@dataclass(frozen=True, slots=True)
class Room:
    """Free resources of one node, by resource name (cpu in cores, memory in bytes)."""

    node: str
    free: dict[str, float]
    allocatable: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    namespace: str = ""  # "", "Active" or "Terminating"
    # Name of the version's Deployment and Service; it stays when the version is renamed.
    name: str = ""
    # Further Deployments of the same version; there should be none.
    duplicates: tuple[str, ...] = ()
    workload: Workload | None = None
    # name -> content hash, of our Services and Secrets for this version; None when they were not looked at
    services: tuple[tuple[str, str], ...] | None = ()
    secrets: tuple[tuple[str, str], ...] | None = ()
    pods: tuple[Pod, ...] = ()
    build: BuildPod | None = None
