"""The desired side: from rows to manifests."""

import datetime as dt
from dataclasses import replace
from typing import Any

from django.conf import settings

from deployments.models import DeploymentVersion, EnvironmentBuild, InstanceType, Revision, Rollout
from deployments.planning.plan import Build, Wanted
from deployments.services import artifacts, variables
from deployments.services.gpu.demand import Holding
from kube import builds, manifests
from kube.specs import BuildSpec, Size, VersionSpec, Volume, object_name
from serving.environment import build_files

# Requests under way are given this long when an instance is stopped; one that has none stops at once.
GRACE = dt.timedelta(minutes=5)


def volume() -> Volume:
    return Volume(settings.PILOTHOUSE_ENVIRONMENTS_DIR, settings.PILOTHOUSE_ENVIRONMENTS_CLAIM)


def instance_type_of(version: DeploymentVersion, held: Holding | None = None) -> InstanceType | None:
    """The instance type; of a group the one that was found room for, else the first in order of preference."""
    if held is not None and held.instance_type is not None:
        return held.instance_type
    if version.instance_type is not None or version.instance_type_group is None:
        return version.instance_type
    item = version.instance_type_group.items.select_related("instance_type").order_by("priority").first()
    return item.instance_type if item else None


def size_of(kind: InstanceType | None) -> Size:
    if kind is None:
        return Size(cpu=0.25, memory=512)
    return Size(
        cpu=kind.cpu,
        memory=kind.memory,
        storage=kind.storage,
        accelerators=kind.accelerator,
        accelerator_resource=kind.accelerator_resource,
        node_selector=kind.node_selector,
        tolerations=kind.tolerations,
    )


def build_of(revision: Revision | None) -> EnvironmentBuild | None:
    """The build that a revision still waits for; None when it can run."""
    if revision is None or revision.environment_build is None:
        return None
    build = revision.environment_build
    return None if build.state == EnvironmentBuild.State.SUCCESS else build


def runnable(revision: Revision | None) -> bool:
    return revision is not None and build_of(revision) is None


def revision_to_run(version: DeploymentVersion, latest: Rollout | None) -> Revision | None:
    """The revision whose pods should exist now.

    The target, except while its environment is not built and after its rollout failed: then the one that answered
    before, so that it goes on answering whatever happens to its pods.
    """
    target, active = version.target_revision, version.active_revision
    failed = latest is not None and latest.state == Rollout.State.FAILED
    if active is not None and active != target and runnable(active) and (failed or not runnable(target)):
        return active
    return target if runnable(target) else None


def replicas_of(version: DeploymentVersion, held: Holding | None = None) -> int:
    """How many instances should run: none in a suspended project, and no more than hold a place on GPUs.

    While instances move to other nodes there is one more of each.
    """
    if version.deployment.project.suspended:
        return 0
    if held is None:
        return version.desired_instances
    return min(version.desired_instances, held.instances) + held.moving


def undecided(latest: Rollout | None, held: Holding | None) -> bool:
    """Whether the GPU pass has yet to choose how a rollout hands over, or to find a place for a new size."""
    rolling = latest is not None and latest.state == Rollout.State.IN_PROGRESS
    return held is not None and held.instances > 0 and rolling and latest is not None and not latest.strategy


def spec_of(
    version: DeploymentVersion,
    revision: Revision,
    name: str,
    latest: Rollout | None = None,
    held: Holding | None = None,
) -> VersionSpec:
    """The pods of ``version`` running ``revision``; ``name`` is that of the Deployment, empty for a new one."""
    deployment, project = version.deployment, version.deployment.project
    environment = variables.effective(version, revision)
    kind = instance_type_of(version, held)
    size = size_of(kind)
    if held is not None and held.devices is not None:
        size = replace(size, accelerators=held.devices)  # what was granted, whatever the type says by now
    spec = VersionSpec(
        namespace=project.namespace,
        name=name or object_name(deployment.name, version.version, str(version.id)),
        project=project.name,
        deployment=deployment.name,
        version=version.version,
        version_id=str(version.id),
        revision_id=str(revision.id),
        image=revision.image,
        replicas=replicas_of(version, held),
        size=size,
        gated=held is not None and kind is not None and size.accelerators > 0,
        in_place=held is not None and (latest is None or latest.strategy != Rollout.Strategy.SURGE),
        volume=volume(),
        variables=environment,
        processes=version.instance_processes,
        port=settings.PILOTHOUSE_SERVING_PORT,
        grace=int(GRACE.total_seconds()),
        deadline=settings.PILOTHOUSE_ROLLOUT_DEADLINE_SECONDS,
        restarted_at=version.restarted_at.isoformat() if version.restarted_at else "",
        run_as_user=settings.PILOTHOUSE_RUN_AS_USER,
    )
    if revision.kind == Revision.Kind.IMAGE:
        return replace(spec, **_image(version, spec))
    build = revision.environment_build
    assert build is not None
    return replace(
        spec,
        image=settings.PILOTHOUSE_RUNTIME_IMAGES[build.runtime],
        environment=build.directory,
        package_url=artifacts.signed_url(revision),
        package_digest=revision.digest,
        framework=revision.model_version.framework if revision.model_version else "",
        context={
            "project_id": str(deployment.project_id),
            "deployment_id": str(deployment.pk),
            "version_id": str(version.pk),
            "input_type": deployment.input_type,
            "output_type": deployment.output_type,
            "input_fields": deployment.input_fields,
            "output_fields": deployment.output_fields,
            "environment_variable_names": sorted(environment),
        },
    )


def _image(version: DeploymentVersion, spec: VersionSpec) -> dict[str, Any]:
    check = version.health_check or {}
    port = int(check.get("port", spec.port))
    path = str(check.get("path", spec.health_path))
    return {
        "port": port,
        "health_path": path,
        "live_path": path if check else spec.live_path,
        "command": version.command or (),
        "arguments": version.args or (),
        "ports": [
            {
                "name": f"port-{number}",
                "port": item["deployment_port"],
                "protocol": item.get("protocol", "tcp").upper(),
            }
            for number, item in enumerate(version.ports)
        ],
    }


def build_spec(build: EnvironmentBuild) -> BuildSpec:
    assert build.project is not None
    return BuildSpec(
        namespace=build.project.namespace,
        hash=build.hash,
        directory=build.directory,
        project=build.project.name,
        image=settings.PILOTHOUSE_RUNTIME_IMAGES[build.runtime],
        files=build_files(build.runtime, build.requirements),
        volume=volume(),
        attempt=build.attempt,
        deadline=settings.PILOTHOUSE_BUILD_DEADLINE_SECONDS,
        run_as_user=settings.PILOTHOUSE_RUN_AS_USER,
    )


def namespace_manifest(name: str, project: str) -> dict[str, Any]:
    # A folder of the node is a hostPath, which the restricted standard forbids.
    return manifests.namespace(name, project, restricted=bool(settings.PILOTHOUSE_ENVIRONMENTS_CLAIM))


def wanted(version: DeploymentVersion, name: str, latest: Rollout | None, held: Holding | None = None) -> Wanted:
    """What the cluster should hold of a version; ``latest`` is its newest rollout, ``held`` its place on GPUs."""
    project = version.deployment.project
    base = Wanted(
        namespace=namespace_manifest(project.namespace, project.name),
        name=name or object_name(version.deployment.name, version.version, str(version.id)),
        replicas=replicas_of(version, held),
        build=_build(build_of(version.target_revision)),
    )
    revision = revision_to_run(version, latest)
    if revision is None or undecided(latest, held):
        return base
    spec = spec_of(version, revision, name, latest, held)
    secrets = [manifests.variables(spec)] if spec.variables else []
    if spec.environment:
        secrets.append(manifests.package(spec))
    return replace(
        base,
        workload=manifests.stamped(manifests.deployment(spec)),
        service=manifests.stamped(manifests.service(spec)),
        secrets=tuple(manifests.stamped(secret) for secret in secrets),
    )


def _build(build: EnvironmentBuild | None) -> Build | None:
    if build is None or build.project is None or build.state == EnvironmentBuild.State.FAILED or not build.tree:
        return None
    spec = build_spec(build)
    return Build(
        namespace=namespace_manifest(spec.namespace, spec.project),
        config_map=builds.config_map(spec),
        pod=builds.pod(spec),
        attempt=build.attempt,
    )
