"""Manifests of the pods that build one environment and that remove old ones. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from kube import specs
from kube.manifests import (
    Object,
    container_security,
    environments_mount,
    environments_volume,
    pod_security,
    resources,
)
from kube.specs import BuildSpec, CleaningSpec, Size

FILES_DIR = "/var/run/pilothouse/build"
# serving/build.py: an index that did not answer, a full disk; worth another try.
EXIT_RETRY = 75


def labels(spec: BuildSpec) -> dict[str, str]:
    # A label's value holds at most 63 characters, a hash has 64.
    return {specs.MANAGED_BY: specs.MANAGER, specs.PROJECT: spec.project, specs.BUILD: spec.hash[:40]}


def config_map(spec: BuildSpec) -> Object:
    return _files(spec, labels(spec), spec.files)


def pod(spec: BuildSpec) -> Object:
    return _pod(
        spec,
        labels(spec),
        {"pilothouse.io/attempt": str(spec.attempt)},
        {"PILOTHOUSE_ENV_HASH": spec.directory or spec.hash},
        Size(spec.cpu, spec.memory),
    )


def cleaning_config_map(spec: CleaningSpec) -> Object:
    return _files(spec, _cleaning_labels(spec), {"build.py": spec.script})


def cleaning_pod(spec: CleaningSpec) -> Object:
    """A pod that removes folders; `cleaned` reads them from it when it has."""
    directories = " ".join(spec.directories)
    return _pod(
        spec,
        _cleaning_labels(spec),
        {specs.CLEANING: directories},
        {"PILOTHOUSE_ENV_REMOVE": directories},
        Size(0.1, 256),
    )


def cleaned(pod: Object) -> list[str]:
    """The folders that a cleaning pod is to remove."""
    return str((pod["metadata"].get("annotations") or {}).get(specs.CLEANING, "")).split()


def _cleaning_labels(spec: CleaningSpec) -> dict[str, str]:
    return {specs.MANAGED_BY: specs.MANAGER, specs.PROJECT: spec.project, specs.CLEANING: "true"}


def _files(spec: BuildSpec | CleaningSpec, marks: dict[str, str], files: Mapping[str, bytes]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": marks},
        "binaryData": {name: base64.b64encode(content).decode() for name, content in sorted(files.items())},
    }


def _pod(
    spec: BuildSpec | CleaningSpec,
    marks: dict[str, str],
    annotations: dict[str, str],
    variables: dict[str, str],
    size: Size,
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": marks, "annotations": annotations},
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
                        *({"name": name, "value": value} for name, value in variables.items()),
                        {"name": "PILOTHOUSE_ENVIRONMENTS_DIR", "value": spec.volume.path},
                    ],
                    "resources": resources(size),
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
