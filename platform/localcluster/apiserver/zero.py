"""Which zero values the API leaves out of its answers.

The Go types mark fields `omitempty`: an empty list, map or text is then not written, and neither is 0 or
false unless the field is a pointer. The OpenAPI definitions do not tell pointers, so the ones that are not
are listed here, for the kinds that the embedded cluster stores.
"""

from __future__ import annotations

from typing import Any

_VALUES: dict[str, str] = {
    "PodSpec": "hostNetwork hostPID hostIPC nodeName serviceAccountName",
    "Container": "stdin stdinOnce tty",
    "EphemeralContainer": "stdin stdinOnce tty",
    "ContainerPort": "hostPort",
    "ContainerStatus": "",
    "ContainerStateTerminated": "signal",
    "VolumeMount": "readOnly",
    "Probe": "initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold",
    "PodStatus": "observedGeneration",
    "PodCondition": "observedGeneration",
    "Condition": "observedGeneration",
    "ObjectMeta": "generation",
    "ListMeta": "remainingItemCount",
    "ServiceSpec": "publishNotReadyAddresses healthCheckNodePort",
    "ServicePort": "nodePort",
    "NodeSpec": "unschedulable",
    "DeploymentSpec": "minReadySeconds paused",
    "DeploymentStatus": "observedGeneration replicas updatedReplicas readyReplicas availableReplicas "
    "unavailableReplicas",
    "ReplicaSetSpec": "minReadySeconds",
    "ReplicaSetStatus": "fullyLabeledReplicas readyReplicas availableReplicas observedGeneration",
    "JobStatus": "active succeeded failed",
    "ScaleSpec": "replicas",
    "PodDisruptionBudgetStatus": "observedGeneration",
    "PriorityClass": "globalDefault",
    "Event": "count",
    "EventSeries": "",
    "HorizontalPodAutoscalerStatus": "currentReplicas",
    "SecretVolumeSource": "",
    "ResourceAttributes": "",
    "TokenReviewStatus": "authenticated",
    "SubjectAccessReviewStatus": "denied",
    "APIResource": "",
}
_SETS = {struct: frozenset(fields.split()) for struct, fields in _VALUES.items()}
# Texts, lists and maps behind pointers: kept even when empty.
_KEPT = {
    ("PersistentVolumeClaimSpec", "storageClassName"),
    ("EndpointPort", "name"),
    ("EndpointPort", "appProtocol"),
    ("ServicePort", "appProtocol"),
    ("LeaseSpec", "holderIdentity"),
    ("PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy"),
    ("PodDisruptionBudgetSpec", "selector"),
    ("JobStatus", "uncountedTerminatedPods"),
    ("EndpointSlice", "endpoints"),
    ("EndpointSlice", "ports"),
}

# Times and lists that are written as null when they are not set.
WRITTEN: dict[str, tuple[str, ...]] = {
    "PodCondition": ("lastProbeTime", "lastTransitionTime"),
    "NodeCondition": ("lastHeartbeatTime", "lastTransitionTime"),
    "JobCondition": ("lastProbeTime", "lastTransitionTime"),
    "HorizontalPodAutoscalerCondition": ("lastTransitionTime",),
    "HorizontalPodAutoscalerStatus": ("currentMetrics",),
    "ContainerStateTerminated": ("startedAt", "finishedAt"),
    "ContainerStateRunning": ("startedAt",),
}


def is_left_out(struct: str, field: str, kind: Any) -> bool:
    """Whether an optional field of a struct is dropped when its value is empty, 0 or false."""
    if (struct, field) in _KEPT:
        return False
    name = type(kind).__name__
    if name in ("String", "ListOf", "MapOf", "Bytes"):
        return True
    return field in _SETS.get(struct, ())
