"""The domain's rows. Models never call Kubernetes and hold no business rules beyond constraints."""

from deployments.models.deployments import (
    DataType,
    Deployment,
    DeploymentVersion,
    EnvironmentVariable,
    Revision,
    Rollout,
    version_validator,
)
from deployments.models.environments import (
    DiscardedEnvironment,
    Environment,
    EnvironmentBuild,
    EnvironmentTag,
    InstanceType,
    InstanceTypeGroup,
    InstanceTypeGroupItem,
)
from deployments.models.gpu import (
    GpuClaim,
    GpuClaimEvent,
    GpuCohort,
    GpuFlavor,
    GpuNode,
    GpuPolicy,
    GpuPool,
    GpuPriority,
    GpuQuota,
    GpuTenant,
    GpuUse,
)
from deployments.models.registry import Framework, Model, ModelVersion
from deployments.models.running import Instance, InstanceEvent, Request

__all__ = [
    "DataType",
    "Deployment",
    "DeploymentVersion",
    "DiscardedEnvironment",
    "Environment",
    "EnvironmentBuild",
    "EnvironmentTag",
    "EnvironmentVariable",
    "Framework",
    "GpuClaim",
    "GpuClaimEvent",
    "GpuCohort",
    "GpuFlavor",
    "GpuNode",
    "GpuPolicy",
    "GpuPool",
    "GpuPriority",
    "GpuQuota",
    "GpuTenant",
    "GpuUse",
    "Instance",
    "InstanceEvent",
    "InstanceType",
    "InstanceTypeGroup",
    "InstanceTypeGroupItem",
    "Model",
    "ModelVersion",
    "Request",
    "Revision",
    "Rollout",
    "version_validator",
]
