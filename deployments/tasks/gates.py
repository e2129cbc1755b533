"""The reconciler's part in GPU scheduling: sending pods where the GPU pass wants them, and saying why they wait."""

import logging

from django.conf import settings

from deployments import triggers
from deployments.models import DeploymentVersion
from deployments.planning.gates import Drop, Open, steps, yields
from deployments.planning.progress import Progress, Steps
from deployments.services.gpu.demand import Holding
from kube import apply
from kube.connect import Cluster
from kube.errors import KubeError
from kube.explain import Reason
from kube.observe import Observed, Pod

logger = logging.getLogger(__name__)


def _nodes(*places: tuple[str, str]) -> list[str]:
    return [node for name, node in places if name == settings.PILOTHOUSE_CLUSTER_NAME]


def _of_size(held: Holding, pod: Pod) -> bool:
    """Whether the pod asks for what the version's places are for; pods of the size before have places of their own."""
    kind = held.instance_type
    if not held.kept or kind is None:
        return True
    return dict(pod.requests).get(kind.accelerator_resource, 0) == held.devices


def single_out(cluster: Cluster, namespace: str, held: Holding, seen: Observed, replicas: int) -> None:
    """Before fewer are wanted: those whose place is lost go first, not whichever the controller would choose."""
    if seen.workload is None or seen.workload.replicas <= replicas:
        return
    for one in yields(_nodes(*held.nodes, *held.kept), seen.pods):
        try:
            apply.yield_first(cluster, namespace, one.pod)
        except KubeError as error:
            logger.warning("The cluster refused to mark pods of %s: %s", namespace, error)
            return


def send(cluster: Cluster, namespace: str, held: Holding, seen: Observed) -> None:
    """Open the gates of pods for which there is a place; take back those whose place went to somebody else."""
    pods = [pod for pod in seen.pods if _of_size(held, pod)]
    for step in steps(_nodes(*held.nodes), pods):
        try:
            match step:
                case Open(pod, node):
                    apply.open_gate(cluster, namespace, pod, node)
                case Drop(pod):
                    apply.delete(cluster, "Pod", namespace, pod)
        except KubeError as error:
            logger.warning("The cluster refused to place pods of %s: %s", namespace, error)
            return


def short(version: DeploymentVersion, held: Holding) -> bool:
    """Whether the version has fewer instances than it wants, or none of the size it wants, because of GPUs. Asks for a
    pass if none has looked yet."""
    enough = held.instances >= version.desired_instances and not held.outgrown
    if version.deployment.project.suspended or enough:
        return False
    if held.code == "gpu_queued":
        triggers.schedule_gpus()
    return True


def waiting(held: Holding, seen: Observed) -> Progress:
    """How a version is that holds no place of the size it wants: what still answers does so until it is gone."""
    ready = [pod for pod in seen.pods if pod.ready and not pod.deleting]
    phase = "degraded" if ready else "failed" if held.hopeless else "scheduling"
    return Progress(phase, Steps(), len(ready), _reason(held), failed=held.hopeless)


def better_reason(reason: Reason | None, held: Holding, seen: Observed, *, short: bool) -> Reason | None:
    """What the GPU pass knows of why instances wait, where the cluster says nothing or only that they do not fit."""
    if reason is None:
        return _reason(held) if short else None
    if reason.code == "does_not_fit":
        return _handing_over(seen) or reason
    return reason


def _reason(held: Holding) -> Reason:
    return Reason(held.code, held.message, held.next, hopeless=held.hopeless)


def _handing_over(seen: Observed) -> Reason | None:
    """Why a pod that was sent to its node is not bound there yet: the instance before it still ends."""
    ending = {pod.node for pod in seen.pods if pod.deleting}
    for pod in seen.pods:
        if pod.assigned and not pod.node and not pod.deleting and pod.assigned in ending:
            return Reason(
                "handing_over",
                f"The instance before still ends on node {pod.assigned}; the new one starts there next.",
                "Nothing to do: requests under way are finished first.",
            )
    return None
