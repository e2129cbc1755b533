"""From what is wanted and what is there to the next actions. Pure, level-triggered, safe to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kube.manifests import stamp_of
from kube.state import Observed

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of one manifest."""

    manifest: Object


@dataclass(frozen=True, slots=True)
class Create:
    """Create a pod that is never changed; one that exists already is fine."""

    manifest: Object


@dataclass(frozen=True, slots=True)
class Scale:
    name: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Delete:
    """``namespace`` is the version's own unless given."""

    kind: str
    name: str
    namespace: str = ""


Action = Apply | Create | Scale | Delete


@dataclass(frozen=True, slots=True)
class Build:
    """An environment that must be built before the target revision can run."""

    namespace: Object
    config_map: Object
    pod: Object
    attempt: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """The desired side of one deployment version, as stamped manifests.

    ``workload`` is None while nothing may be changed about the pods' template (no revision yet, or its environment
    is not built); ``replicas`` holds in any case.
    """

    namespace: Object
    name: str
    replicas: int
    workload: Object | None = None
    service: Object | None = None
    secrets: tuple[Object, ...] = ()
    build: Build | None = None


def plan(wanted: Wanted, observed: Observed, *, force: bool = False) -> list[Action]:
    """Actions that bring ``observed`` nearer to ``wanted``, in order; none when both agree.

    ``force`` applies everything once more, whatever the stamps say: it takes back changes by other hands.
    """
    if observed.namespace == "Terminating":
        # A namespace of this name is still being deleted; it must be gone before it can be made.
        return []
    actions: list[Action] = []
    if not observed.namespace or force:
        actions.append(Apply(wanted.namespace))
    if wanted.build is not None:
        actions += _build(wanted.build, observed)
    actions += _workload(wanted, observed, force)
    actions += _leftovers(wanted, observed)
    return actions


def _build(build: Build, observed: Observed) -> list[Action]:
    running = observed.build
    if running is None:
        return [Apply(build.namespace), Apply(build.config_map), Create(build.pod)]
    if running.attempt < build.attempt and not running.deleting:
        # An attempt before this one; the pod's name is free as soon as it is gone.
        metadata = build.pod["metadata"]
        return [Delete("Pod", metadata["name"], metadata["namespace"])]
    return []


def _workload(wanted: Wanted, observed: Observed, force: bool) -> list[Action]:
    have = observed.workload
    if wanted.workload is None:
        if have is not None and have.replicas != wanted.replicas:
            return [Scale(wanted.name, wanted.replicas)]
        return []
    changed = force or have is None or have.applied != stamp_of(wanted.workload)
    actions = _stale(wanted.secrets, observed.secrets, changed, force)
    if wanted.service is not None:
        actions += _stale((wanted.service,), observed.services, changed, force)
    if changed:
        actions.append(Apply(wanted.workload))
    elif have is not None and have.replicas != wanted.replicas:
        actions.append(Scale(wanted.name, wanted.replicas))
    return actions


def _stale(
    manifests: Sequence[Object], seen: tuple[tuple[str, str], ...] | None, changed: bool, force: bool
) -> list[Action]:
    if seen is None:
        # Not looked at: new pods must find them, old ones have.
        return [Apply(manifest) for manifest in manifests] if changed else []
    have = dict(seen)

    def current(manifest: Object) -> bool:
        return have.get(manifest["metadata"]["name"]) == stamp_of(manifest)

    return [Apply(manifest) for manifest in manifests if force or not current(manifest)]


def _leftovers(wanted: Wanted, observed: Observed) -> list[Action]:
    """Doubles, and secrets of templates that no pod uses any more, once the rollout has settled."""
    doubles: list[Action] = [Delete("Deployment", name) for name in observed.duplicates]
    have = observed.workload
    if wanted.workload is None or have is None or have.applied != stamp_of(wanted.workload) or not have.settled:
        return doubles
    if observed.secrets is None or any(
        pod.deleting or (have.template and pod.template != have.template) for pod in observed.pods
    ):
        return doubles
    keep = {manifest["metadata"]["name"] for manifest in wanted.secrets}
    return doubles + [Delete("Secret", name) for name, _ in observed.secrets if name not in keep]
