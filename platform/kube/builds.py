"""Manifests of the pods that build one environment and that remove old ones. Pure.

What a build runs may be hostile, and what it leaves too. So whoever runs something of a tree has that tree alone to
write to. The whole volume is mounted only where nothing but our script runs, which sees no file of a user's: in the
init container that makes the tree, and where whole folders of the root are removed.
"""

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
SCRIPT = "build.py"
BUILD, PREPARE = "build", "prepare"  # containers
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
        {"PILOTHOUSE_ENV_HASH": specs.folder_of(spec.directory)},
        Size(spec.cpu, spec.memory),
    )


def cleaning_config_map(spec: CleaningSpec) -> Object:
    return _files(spec, _cleaning_labels(spec), {SCRIPT: spec.script})


def cleaning_pod(spec: CleaningSpec) -> Object:
    """A pod that removes folders of one tree; `cleaned` reads them from it when it has."""
    return _pod(
        spec,
        _cleaning_labels(spec),
        {specs.CLEANING: " ".join(spec.directories)},
        {"PILOTHOUSE_ENV_REMOVE": " ".join(map(specs.folder_of, spec.directories))},
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
    mounts = [environments_mount(spec.volume, spec.tree, read_only=False)]
    if spec.tree not in ("", specs.SHARED):
        mounts.append(environments_mount(spec.volume, specs.SHARED, read_only=True))
    variables = variables | {"PILOTHOUSE_ENVIRONMENTS_DIR": mounts[0]["mountPath"]}
    # At the root nothing that is there may be run, as a tool to shrink a cache would be.
    arguments = [] if spec.tree else ["--keep-cache"]
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
            **({"initContainers": [_prepare(spec, size)]} if spec.tree else {}),
            "containers": [_container(spec, BUILD, arguments, variables, size, "files", mounts)],
            "volumes": [
                {"name": "files", "configMap": {"name": spec.name}},
                {
                    "name": "script",
                    "configMap": {"name": spec.name, "items": [{"key": SCRIPT, "path": SCRIPT}]},
                },
                environments_volume(spec.volume, read_only=False),
            ],
        },
    }


def _prepare(spec: BuildSpec | CleaningSpec, size: Size) -> Object:
    """Makes the tree, as a folder that the kubelet makes for a subPath would be root's, and gets uv for all trees."""
    variables = {"PILOTHOUSE_ENVIRONMENTS_DIR": spec.volume.path}
    mounts = [environments_mount(spec.volume, "", read_only=False)]
    return _container(spec, PREPARE, ["--prepare", spec.tree], variables, size, "script", mounts)


def _container(
    spec: BuildSpec | CleaningSpec,
    name: str,
    arguments: list[str],
    variables: dict[str, str],
    size: Size,
    files: str,
    mounts: list[Object],
) -> Object:
    return {
        "name": name,
        "image": spec.image,
        "command": ["python3", "-u", f"{FILES_DIR}/{SCRIPT}", *arguments],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "resources": resources(size),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": files, "mountPath": FILES_DIR, "readOnly": True}, *mounts],
    }
