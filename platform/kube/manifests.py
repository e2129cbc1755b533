"""Pure functions from our words to Kubernetes objects. Tests compare whole dicts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kube import specs
from kube.specs import Size, VersionSpec, Volume

Object = dict[str, Any]

PACKAGE_DIR = "/var/run/pilothouse/package"


def digest(value: Any) -> str:
    """A short stable hash of JSON-like data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def stamped(manifest: Object) -> Object:
    """The manifest with an annotation that tells its content, so that an unchanged one need not be sent again.

    The number of replicas is left out of the content: it moves by itself, through the scale alone.
    """
    content = digest({**manifest, "spec": {**manifest.get("spec", {}), "replicas": None}})
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), specs.APPLIED: content}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def stamp_of(manifest: Object) -> str:
    return str(manifest["metadata"]["annotations"][specs.APPLIED])


def labels(spec: VersionSpec) -> dict[str, str]:
    return {
        specs.MANAGED_BY: specs.MANAGER,
        specs.PROJECT: spec.project,
        specs.DEPLOYMENT: spec.deployment,
        specs.VERSION: spec.version,
        specs.VERSION_ID: spec.version_id,
    }


def namespace(name: str, project: str, *, restricted: bool) -> Object:
    """A project's namespace; ``restricted`` asks for the strictest Pod Security standard (no hostPath)."""
    wanted = {specs.MANAGED_BY: specs.MANAGER, specs.PROJECT: project}
    if restricted:
        wanted["pod-security.kubernetes.io/enforce"] = "restricted"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": wanted}}


def variables_name(spec: VersionSpec) -> str:
    """A new name for other values: pods of the revision before keep theirs, and a change is a rolling update."""
    return f"{spec.name}-env-{digest(dict(spec.variables))[:10]}"


def secret(spec: VersionSpec, name: str, data: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": spec.namespace, "labels": labels(spec)},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(data.items())},
    }


def variables(spec: VersionSpec) -> Object:
    """The user's environment variables."""
    return secret(spec, variables_name(spec), spec.variables)


def package(spec: VersionSpec) -> Object:
    """The signed address of the package. Outside the pod template, so that a moved platform restarts no pod."""
    return secret(spec, package_name(spec), {"url": spec.package_url})


def package_name(spec: VersionSpec) -> str:
    return f"{spec.name}-package-{spec.revision_id.replace('-', '')[:8]}"


def service(spec: VersionSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels(spec)},
        "spec": {
            "type": "ClusterIP",
            "selector": {specs.VERSION_ID: spec.version_id},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
        },
    }


def deployment(spec: VersionSpec) -> Object:
    """Rolls by one extra pod and takes no ready pod away before its successor is ready; in place where it must."""
    step = {"maxSurge": 0, "maxUnavailable": 1} if spec.in_place else {"maxSurge": 1, "maxUnavailable": 0}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels(spec)},
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": spec.deadline,
            "selector": {"matchLabels": {specs.VERSION_ID: spec.version_id}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": step},
            "template": template(spec),
        },
    }


def template(spec: VersionSpec) -> Object:
    metadata: Object = {"labels": {**labels(spec), specs.REVISION_ID: spec.revision_id}}
    if spec.restarted_at:
        metadata["annotations"] = {"pilothouse.io/restarted-at": spec.restarted_at}
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.grace,
        "securityContext": pod_security(spec.run_as_user),
        "containers": [_serving(spec)],
    }
    if spec.environment:
        pod["initContainers"] = [_fetch(spec)]
        pod["volumes"] = [
            {"name": "package", "emptyDir": {"sizeLimit": mebibytes(spec.size.storage)}},
            environments_volume(spec.volume, read_only=True),
        ]
    if spec.gated:
        pod["schedulingGates"] = [{"name": specs.GATE}]
    if spec.size.node_selector:
        pod["nodeSelector"] = dict(spec.size.node_selector)
    if spec.size.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in spec.size.tolerations]
    return {"metadata": metadata, "spec": pod}


def _fetch(spec: VersionSpec) -> Object:
    return {
        "name": "package",
        "image": spec.image,
        "command": [spec.volume.python(spec.environment), "-m", "pilothouse_serving.fetch"],
        "env": [
            {
                "name": "PILOTHOUSE_PACKAGE_URL",
                "valueFrom": {"secretKeyRef": {"name": package_name(spec), "key": "url"}},
            },
            {"name": "PILOTHOUSE_PACKAGE_SHA256", "value": spec.package_digest},
            {"name": "PILOTHOUSE_PACKAGE_DIR", "value": PACKAGE_DIR},
            *([{"name": "PILOTHOUSE_MODEL_FRAMEWORK", "value": spec.framework}] if spec.framework else []),
        ],
        # Init containers count by their maximum, so this asks for no more than the server itself.
        "resources": resources(Size(spec.size.cpu, spec.size.memory)),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "package", "mountPath": PACKAGE_DIR},
            environments_mount(spec.volume, specs.tree_of(spec.environment), read_only=True),
        ],
    }


def _serving(spec: VersionSpec) -> Object:
    container: Object = {
        "name": "serving",
        "image": spec.image,
        "env": _environment(spec),
        "ports": [
            {"name": "http", "containerPort": spec.port, "protocol": "TCP"},
            *(
                {"name": str(port["name"]), "containerPort": int(port["port"]), "protocol": port.get("protocol", "TCP")}
                for port in spec.ports
                if int(port["port"]) != spec.port
            ),
        ],
        "resources": resources(spec.size),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Loading a model may take minutes; until the first success only this probe runs.
        "startupProbe": _probe(spec.health_path, period=1, timeout=3, failures=spec.deadline),
        "readinessProbe": _probe(spec.health_path, period=5, timeout=3, failures=2),
        # A model that keeps the interpreter busy answers late; restart only what is really stuck.
        "livenessProbe": _probe(spec.live_path, period=10, timeout=5, failures=12),
    }
    if spec.variables:
        container["envFrom"] = [{"secretRef": {"name": variables_name(spec)}}]
    if spec.environment:
        container["command"] = [spec.volume.python(spec.environment), "-m", "pilothouse_serving"]
        container["volumeMounts"] = [
            {"name": "package", "mountPath": PACKAGE_DIR},
            environments_mount(spec.volume, specs.tree_of(spec.environment), read_only=True),
        ]
    else:
        # Our own server drains by itself; others may stop at once, so keep them up while routes go away.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
        if spec.command:
            container["command"] = list(spec.command)
        if spec.arguments:
            container["args"] = list(spec.arguments)
    return container


def _environment(spec: VersionSpec) -> list[Object]:
    plain = {
        "PILOTHOUSE_PORT": str(spec.port),
        "PILOTHOUSE_PROJECT": spec.project,
        "PILOTHOUSE_DEPLOYMENT": spec.deployment,
        "PILOTHOUSE_VERSION": spec.version,
        "PILOTHOUSE_REVISION": spec.revision_id,
        "PILOTHOUSE_PROCESSES": str(spec.processes),
    }
    if spec.environment:
        plain["PILOTHOUSE_PACKAGE_DIR"] = PACKAGE_DIR
    if spec.framework:
        plain["PILOTHOUSE_MODEL_FRAMEWORK"] = spec.framework
    if spec.context:
        plain["PILOTHOUSE_CONTEXT"] = json.dumps(spec.context, sort_keys=True)
    return [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "PILOTHOUSE_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        *({"name": name, "value": value} for name, value in plain.items()),
    ]


def _probe(path: str, *, period: int, timeout: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def resources(size: Size) -> Object:
    """CPU is a request without a limit, since a throttled start is a slow start; memory is both, since it is not
    compressible."""
    requests = {"cpu": cores(size.cpu), "memory": mebibytes(size.memory)}
    limits = {"memory": mebibytes(size.memory)}
    if size.accelerators:
        requests[size.accelerator_resource] = limits[size.accelerator_resource] = str(size.accelerators)
    return {"requests": requests, "limits": limits}


def cores(number: float) -> str:
    """CPU cores in the canonical form in which the API gives quantities back."""
    milli = round(number * 1000)
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def mebibytes(number: int) -> str:
    """MiB in the canonical form in which the API gives quantities back."""
    return f"{number}Mi" if number % 1024 else f"{number // 1024}Gi"


def pod_security(user: int) -> Object:
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def environments_volume(volume: Volume, *, read_only: bool) -> Object:
    if volume.claim:
        return {
            "name": "environments",
            "persistentVolumeClaim": {"claimName": volume.claim, "readOnly": read_only},
        }
    return {"name": "environments", "hostPath": {"path": volume.path, "type": "DirectoryOrCreate"}}


def environments_mount(volume: Volume, tree: str, *, read_only: bool) -> Object:
    """One tree of the volume, or all of it for none."""
    # An environment works only at the path where it was built, so it is mounted at the same place everywhere.
    if not tree:
        return {"name": "environments", "mountPath": volume.path, "readOnly": read_only}
    return {
        "name": "environments",
        "mountPath": f"{volume.path}/{tree}",
        "subPath": tree,
        "readOnly": read_only,
    }
