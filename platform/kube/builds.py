"""Manifests of the pod that builds one environment. Pure."""

from __future__ import annotations

import base64

from kube import specs
from kube.manifests import (
    Object,
    container_security,
    environments_mount,
    environments_volume,
    pod_security,
    resources,
)
from kube.specs import BuildSpec, Size

FILES_DIR = "/var/run/pilothouse/build"
# serving/build.py: an index that did not answer, a full disk; worth another try.
EXIT_RETRY = 75


def labels(spec: BuildSpec) -> dict[str, str]:
    # A label's value holds at most 63 characters, a hash has 64.
    return {specs.MANAGED_BY: specs.MANAGER, specs.PROJECT: spec.project, specs.BUILD: spec.hash[:40]}


def config_map(spec: BuildSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels(spec)},
        "binaryData": {name: base64.b64encode(content).decode() for name, content in sorted(spec.files.items())},
    }


def pod(spec: BuildSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": spec.name,
            "namespace": spec.namespace,
            "labels": labels(spec),
            "annotations": {"pilothouse.io/attempt": str(spec.attempt)},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": spec.deadline,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 5,
            "securityContext": pod_security(spec.run_as_user),
            "containers": [
                {
                    "name": "build",
                    "image": spec.image,
                    "command": ["python3", "-u", f"{FILES_DIR}/build.py"],
                    "env": [
                        {"name": "PILOTHOUSE_ENV_HASH", "value": spec.hash},
                        {"name": "PILOTHOUSE_ENVIRONMENTS_DIR", "value": spec.volume.path},
                    ],
                    "resources": resources(Size(spec.cpu, spec.memory)),
                    "securityContext": container_security(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        {"name": "files", "mountPath": FILES_DIR, "readOnly": True},
                        environments_mount(spec.volume, read_only=False),
                    ],
                }
            ],
            "volumes": [
                {"name": "files", "configMap": {"name": spec.name}},
                environments_volume(spec.volume, read_only=False),
            ],
        },
    }
