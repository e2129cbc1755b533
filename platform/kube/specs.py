"""What is wanted in a cluster, in our own words: the input of `manifests` and `builds`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MANAGED_BY = "app.kubernetes.io/managed-by"
PROJECT = "pilothouse.io/project"
DEPLOYMENT = "pilothouse.io/deployment"
VERSION = "pilothouse.io/version"
VERSION_ID = "pilothouse.io/version-id"
REVISION_ID = "pilothouse.io/revision-id"
BUILD = "pilothouse.io/environment"
CLEANING = "pilothouse.io/cleaning"
APPLIED = "pilothouse.io/applied"
# Where the GPU pass sends a pod; a gate holds the pod until it has.
NODE = "pilothouse.io/node"
GATE = "pilothouse.io/gpu-placement"
# Lower goes first when a ReplicaSet is scaled down.
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

# The tree of environments that hold nothing of a user's.
SHARED = "shared"

MANAGER = "pilothouse"
SELECTOR = f"{MANAGED_BY}={MANAGER}"


@dataclass(frozen=True, slots=True)
class Size:
    """Resources and placement of one pod, from an instance type. ``cpu`` in cores, the rest in MiB."""

    cpu: float
    memory: int
    storage: int = 10240
    accelerators: int = 0
    accelerator_resource: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Volume:
    """Where environments live: a folder of the node (``path``), or a shared claim mounted at ``path``.

    It has trees: a folder ``shared`` and one per project. A pod has no other than its own mounted, and ``shared`` to
    read where it builds. Folders of environments are ``TREE/HASH``.
    """

    path: str
    claim: str = ""

    def python(self, environment: str) -> str:
        return f"{self.path}/{environment}/bin/python"


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """Everything that the pods of one deployment version depend on."""

    namespace: str
    name: str  # of the Deployment and the Service
    project: str
    deployment: str
    version: str
    version_id: str
    revision_id: str
    image: str
    replicas: int
    size: Size
    volume: Volume
    # Folder of the environment on the volume; empty for a container image that is run as it is.
    environment: str = ""
    package_url: str = ""
    package_digest: str = ""
    framework: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1
    port: int = 8080
    # Further {"name", "port", "protocol"} that an image listens on.
    ports: Sequence[Mapping[str, Any]] = ()
    health_path: str = "/v2/health/ready"
    live_path: str = "/v2/health/live"
    command: Sequence[str] = ()
    arguments: Sequence[str] = ()
    # Seconds that requests under way are given when a pod is stopped.
    grace: int = 60
    # Seconds from start to readiness before a pod is given up.
    deadline: int = 600
    restarted_at: str = ""
    run_as_user: int = 1000
    # Pods wait behind a gate until the GPU pass has chosen their node.
    gated: bool = False
    # Instances pass over one at a time, the old one first: for where there is no room for one more.
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """One environment to be built by a pod."""

    namespace: str
    hash: str
    # Folder of the environment on the volume.
    directory: str
    project: str
    image: str
    files: Mapping[str, bytes]
    volume: Volume
    attempt: int = 1
    deadline: int = 1800
    memory: int = 2048
    cpu: float = 0.5
    run_as_user: int = 1000

    @property
    def name(self) -> str:
        return build_name(self.hash)

    @property
    def tree(self) -> str:
        return tree_of(self.directory)


@dataclass(frozen=True, slots=True)
class CleaningSpec:
    """Folders of one tree to be removed by a pod; ``script`` is the builder's.

    Those at the root of the volume are trees, or environments of before there were trees.
    """

    namespace: str
    project: str
    image: str
    script: bytes
    directories: Sequence[str]
    volume: Volume
    deadline: int = 3600
    run_as_user: int = 1000

    name = "env-cleaning"

    @property
    def tree(self) -> str:
        return tree_of(self.directories[0])


def tree_of(directory: str) -> str:
    """The tree that a folder of the volume is in; empty at the root."""
    return directory.rpartition("/")[0]


def folder_of(directory: str) -> str:
    """The name of a folder in its tree."""
    return directory.rpartition("/")[2]


def build_name(environment: str) -> str:
    return f"env-{environment[:12]}"


def object_name(deployment: str, version: str, version_id: str) -> str:
    """Name of a version's Deployment and Service: readable, unique, and short enough for pod names.

    A pod's name adds up to 17 characters and must stay a DNS label of 63.
    """

    def slug(text: str, length: int) -> str:
        return "".join(c if c.isalnum() else "-" for c in text.lower())[:length].strip("-")

    # A Service's name must start with a letter.
    return f"d-{slug(deployment, 22)}-{slug(version, 10)}-{version_id.replace('-', '')[:8]}"
