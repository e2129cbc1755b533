"""A cluster in memory that does what the actions of a plan say, with controllers that lag behind."""

import datetime as dt
import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.planning.plan import Action, Apply, Create, Delete, Scale
from kube import specs
from kube.manifests import stamp_of
from kube.state import BuildPod, Container, Observed, Pod, Workload

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@dataclass
class Cluster:
    namespace: str = ""
    name: str = ""
    template: str = ""
    applied: str = ""
    revision: str = ""
    replicas: int = 0
    generation: int = 0
    observed_generation: int = 0
    services: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    build: BuildPod | None = None
    numbers: Any = field(default_factory=itertools.count)

    def do(self, action: Action) -> None:
        match action:
            case Apply(manifest):
                self._apply(manifest)
            case Create(manifest):
                if self.build is None:
                    attempt = int(manifest["metadata"]["annotations"]["pilothouse.io/attempt"])
                    pod = Pod(uid="b", name=manifest["metadata"]["name"], created=NOW)
                    self.build = BuildPod("b", "Running", attempt, False, pod, NOW)
            case Scale(_, replicas):
                self.replicas, self.generation = replicas, self.generation + 1
            case Delete("Secret", name):
                assert name in self.secrets
                del self.secrets[name]
            case Delete("Pod", _):
                self.build = None
            case _:
                raise AssertionError(action)

    def _apply(self, manifest: dict[str, Any]) -> None:
        metadata = manifest["metadata"]
        match manifest["kind"]:
            case "Namespace":
                self.namespace = "Active"
            case "Service":
                self.services[metadata["name"]] = stamp_of(manifest)
            case "Secret":
                self.secrets[metadata["name"]] = stamp_of(manifest)
            case "Deployment":
                used = [c["secretRef"]["name"] for c in manifest["spec"]["template"]["spec"].get("envFrom", [])]
                assert set(used) <= set(self.secrets), "a pod would wait for a secret that is not there"
                self.name = metadata["name"]
                self.applied = self.template = stamp_of(manifest)
                self.revision = manifest["spec"]["template"]["metadata"]["labels"][specs.REVISION_ID]
                self.replicas = manifest["spec"]["replicas"]
                self.generation += 1
            case "ConfigMap":
                pass

    def step(self) -> None:
        """One pod comes up or goes, as a rolling update with one extra and none unavailable would do it."""
        self.observed_generation = self.generation
        new = [pod for pod in self.pods if pod.template == self.template]
        old = [pod for pod in self.pods if pod.template != self.template]
        starting = [pod for pod in new if not pod.ready]
        if starting:
            self.pods.remove(starting[0])
            self.pods.append(replace(starting[0], ready=True))
        elif len(new) < self.replicas:
            number = next(self.numbers)
            container = Container("serving", running_since=NOW)
            self.pods.append(
                Pod(
                    uid=f"u{number}",
                    name=f"p{number}",
                    created=NOW,
                    node="n",
                    template=self.template,
                    revision_id=self.revision,
                    containers=(container,),
                )
            )
        elif old:
            self.pods.remove(old[0])
        elif len(new) > self.replicas:
            self.pods.remove(new[-1])

    def observe(self) -> Observed:
        workload = None
        if self.name:
            new = [pod for pod in self.pods if pod.template == self.template]
            workload = Workload(
                replicas=self.replicas,
                applied=self.applied,
                revision_id=self.revision,
                generation=self.generation,
                observed_generation=self.observed_generation,
                current=len(self.pods),
                updated=len(new),
                ready=sum(pod.ready for pod in self.pods),
                available=sum(pod.ready for pod in self.pods),
                template=self.template,
            )
        return Observed(
            namespace=self.namespace,
            name=self.name,
            workload=workload,
            services=tuple(self.services.items()),
            secrets=tuple(self.secrets.items()),
            pods=tuple(self.pods),
            build=self.build,
        )
