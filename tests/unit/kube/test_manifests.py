"""Whole manifests, so that nothing gets into a pod unseen."""

import base64
import json

import pytest

from kube import builds, manifests, specs
from kube.specs import BuildSpec, CleaningSpec, Size, VersionSpec, Volume

ID = "11111111-2222-3333-4444-555555555555"
TREE = "9" * 32
REVISION = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
LABELS = {
    "app.kubernetes.io/managed-by": "pilothouse",
    "pilothouse.io/project": "shop",
    "pilothouse.io/deployment": "churn",
    "pilothouse.io/version": "v1",
    "pilothouse.io/version-id": ID,
}
RESOURCES = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}}
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def make(**changes: object) -> VersionSpec:
    values: dict[str, object] = {
        "namespace": "ph-shop",
        "name": "d-churn-v1-11111111",
        "project": "shop",
        "deployment": "churn",
        "version": "v1",
        "version_id": ID,
        "revision_id": REVISION,
        "image": "python:3.11-slim",
        "replicas": 2,
        "size": Size(cpu=0.25, memory=512),
        "volume": Volume("/environments"),
        "environment": f"{TREE}/{'e' * 64}",
        "package_url": "http://platform/internal/artifacts/token/",
        "package_digest": "d" * 64,
        "variables": {"API_KEY": "s3cret"},
        **changes,
    }
    return VersionSpec(**values)  # type: ignore[arg-type]


def test_deployment_of_a_package() -> None:
    python = f"/environments/{TREE}/{'e' * 64}/bin/python"
    volumes = [
        {"name": "package", "mountPath": "/var/run/pilothouse/package"},
        {"name": "environments", "mountPath": f"/environments/{TREE}", "subPath": TREE, "readOnly": True},
    ]
    assert manifests.deployment(make()) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d-churn-v1-11111111", "namespace": "ph-shop", "labels": LABELS},
        "spec": {
            "replicas": 2,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"pilothouse.io/version-id": ID}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {**LABELS, "pilothouse.io/revision-id": REVISION}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 60,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 1000,
                        "fsGroup": 1000,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "initContainers": [
                        {
                            "name": "package",
                            "image": "python:3.11-slim",
                            "command": [python, "-m", "pilothouse_serving.fetch"],
                            "env": [
                                {
                                    "name": "PILOTHOUSE_PACKAGE_URL",
                                    "valueFrom": {
                                        "secretKeyRef": {"name": "d-churn-v1-11111111-package-aaaaaaaa", "key": "url"}
                                    },
                                },
                                {"name": "PILOTHOUSE_PACKAGE_SHA256", "value": "d" * 64},
                                {"name": "PILOTHOUSE_PACKAGE_DIR", "value": "/var/run/pilothouse/package"},
                            ],
                            "resources": RESOURCES,
                            "securityContext": CONTAINER_SECURITY,
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": volumes,
                        }
                    ],
                    "containers": [
                        {
                            "name": "serving",
                            "image": "python:3.11-slim",
                            "command": [python, "-m", "pilothouse_serving"],
                            "env": [
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                                {
                                    "name": "PILOTHOUSE_INSTANCE",
                                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                                },
                                {"name": "PILOTHOUSE_PORT", "value": "8080"},
                                {"name": "PILOTHOUSE_PROJECT", "value": "shop"},
                                {"name": "PILOTHOUSE_DEPLOYMENT", "value": "churn"},
                                {"name": "PILOTHOUSE_VERSION", "value": "v1"},
                                {"name": "PILOTHOUSE_REVISION", "value": REVISION},
                                {"name": "PILOTHOUSE_PROCESSES", "value": "1"},
                                {"name": "PILOTHOUSE_PACKAGE_DIR", "value": "/var/run/pilothouse/package"},
                            ],
                            "envFrom": [{"secretRef": {"name": manifests.variables_name(make())}}],
                            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                            "resources": RESOURCES,
                            "securityContext": CONTAINER_SECURITY,
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "startupProbe": {
                                "httpGet": {"path": "/v2/health/ready", "port": "http"},
                                "periodSeconds": 1,
                                "timeoutSeconds": 3,
                                "failureThreshold": 600,
                            },
                            "readinessProbe": {
                                "httpGet": {"path": "/v2/health/ready", "port": "http"},
                                "periodSeconds": 5,
                                "timeoutSeconds": 3,
                                "failureThreshold": 2,
                            },
                            "livenessProbe": {
                                "httpGet": {"path": "/v2/health/live", "port": "http"},
                                "periodSeconds": 10,
                                "timeoutSeconds": 5,
                                "failureThreshold": 12,
                            },
                            "volumeMounts": volumes,
                        }
                    ],
                    "volumes": [
                        {"name": "package", "emptyDir": {"sizeLimit": "10Gi"}},
                        {"name": "environments", "hostPath": {"path": "/environments", "type": "DirectoryOrCreate"}},
                    ],
                },
            },
        },
    }


def test_an_image_runs_as_it_is() -> None:
    spec = make(
        environment="",
        image="example/model:3",
        port=9000,
        ports=[{"name": "port-0", "port": 9001, "protocol": "TCP"}],
        health_path="/health",
        live_path="/health",
        command=("serve",),
        arguments=("--fast",),
        variables={},
    )
    pod = manifests.template(spec)["spec"]
    container = pod["containers"][0]
    assert "initContainers" not in pod
    assert "volumes" not in pod
    assert "envFrom" not in container
    assert container["command"] == ["serve"]
    assert container["args"] == ["--fast"]
    assert container["ports"] == [
        {"name": "http", "containerPort": 9000, "protocol": "TCP"},
        {"name": "port-0", "containerPort": 9001, "protocol": "TCP"},
    ]
    assert container["startupProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    # It may stop at once when told to; it must not before its address is out of use.
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_accelerators_selectors_and_tolerations() -> None:
    size = Size(
        cpu=4,
        memory=16384,
        accelerators=2,
        accelerator_resource="nvidia.com/gpu",
        node_selector={"gpu": "a100"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )
    pod = manifests.template(make(size=size))["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "2"},
    }
    # The init container needs no device; asking for one would be refused on top of nothing.
    assert pod["initContainers"][0]["resources"]["limits"] == {"memory": "16Gi"}
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


def test_a_shared_claim_takes_the_place_of_the_folder_of_a_node() -> None:
    pod = manifests.template(make(volume=Volume("/environments", "environments")))["spec"]
    assert pod["volumes"][1] == {
        "name": "environments",
        "persistentVolumeClaim": {"claimName": "environments", "readOnly": True},
    }


def test_an_environment_of_before_there_were_trees_is_mounted_as_it_was() -> None:
    pod = manifests.template(make(environment="e" * 64))["spec"]
    for container in pod["initContainers"] + pod["containers"]:
        assert container["command"][0] == f"/environments/{'e' * 64}/bin/python"
        assert container["volumeMounts"][1] == {"name": "environments", "mountPath": "/environments", "readOnly": True}


def test_secrets_are_named_by_their_content_and_appear_nowhere_else() -> None:
    one, two = make(), make(variables={"API_KEY": "other"})
    assert manifests.variables(one)["metadata"]["name"] != manifests.variables(two)["metadata"]["name"]
    assert manifests.variables(one)["data"] == {"API_KEY": base64.b64encode(b"s3cret").decode()}
    for text in ("s3cret", "/internal/artifacts/"):
        assert text not in json.dumps(manifests.deployment(one))


def test_a_moved_platform_restarts_no_pod() -> None:
    here, there = make(), make(package_url="http://elsewhere/internal/artifacts/token/")
    assert manifests.deployment(here) == manifests.deployment(there)
    assert manifests.package(here) != manifests.package(there)


def test_service() -> None:
    assert manifests.service(make()) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "d-churn-v1-11111111", "namespace": "ph-shop", "labels": LABELS},
        "spec": {
            "type": "ClusterIP",
            "selector": {"pilothouse.io/version-id": ID},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
        },
    }


def test_namespace_standard_depends_on_the_volume() -> None:
    labels = {"app.kubernetes.io/managed-by": "pilothouse", "pilothouse.io/project": "shop"}
    assert manifests.namespace("ph-shop", "shop", restricted=False)["metadata"]["labels"] == labels
    assert manifests.namespace("ph-shop", "shop", restricted=True)["metadata"]["labels"] == {
        **labels,
        "pod-security.kubernetes.io/enforce": "restricted",
    }


def test_the_stamp_follows_the_content_but_not_the_replicas() -> None:
    def stamp(spec: VersionSpec) -> str:
        return manifests.stamp_of(manifests.stamped(manifests.deployment(spec)))

    assert stamp(make()) == stamp(make(replicas=5))
    assert stamp(make()) != stamp(make(restarted_at="2026-01-01T00:00:00Z"))
    assert stamp(make()) != stamp(make(variables={"API_KEY": "other"}))


@pytest.mark.parametrize(
    ("deployment", "version"),
    [("churn", "v1"), ("a" * 63, "1.0_rc-2"), ("7-seas", "-".join("abcdefghij")), ("x", "9")],
)
def test_object_names_fit_a_dns_label_with_a_pods_suffix(deployment: str, version: str) -> None:
    name = specs.object_name(deployment, version, ID)
    assert len(name) + 17 <= 63
    assert name[0].isalpha()
    assert all(c.isalnum() or c == "-" for c in name)
    assert "--" not in name.replace("1.0", "")


def test_build_pod() -> None:
    spec = BuildSpec(
        namespace="ph-shop",
        hash="e" * 64,
        directory=f"{TREE}/{'e' * 64}.1",
        project="shop",
        image="python:3.11-slim",
        files={"requirements.txt": b"numpy\n", "build.py": b"print()"},
        volume=Volume("/environments"),
        attempt=2,
    )
    labels = {
        "app.kubernetes.io/managed-by": "pilothouse",
        "pilothouse.io/project": "shop",
        "pilothouse.io/environment": "e" * 40,
    }
    assert builds.config_map(spec) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "env-eeeeeeeeeeee", "namespace": "ph-shop", "labels": labels},
        "binaryData": {
            "build.py": base64.b64encode(b"print()").decode(),
            "requirements.txt": base64.b64encode(b"numpy\n").decode(),
        },
    }
    common = {
        "image": "python:3.11-slim",
        "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    assert builds.pod(spec) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "env-eeeeeeeeeeee",
            "namespace": "ph-shop",
            "labels": labels,
            "annotations": {"pilothouse.io/attempt": "2"},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 1800,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # Sees the whole volume, and of the files our script alone.
            "initContainers": [
                {
                    **common,
                    "name": "prepare",
                    "command": ["python3", "-u", "/var/run/pilothouse/build/build.py", "--prepare", TREE],
                    "env": [{"name": "PILOTHOUSE_ENVIRONMENTS_DIR", "value": "/environments"}],
                    "volumeMounts": [
                        {"name": "script", "mountPath": "/var/run/pilothouse/build", "readOnly": True},
                        {"name": "environments", "mountPath": "/environments", "readOnly": False},
                    ],
                }
            ],
            "containers": [
                {
                    **common,
                    "name": "build",
                    "command": ["python3", "-u", "/var/run/pilothouse/build/build.py"],
                    "env": [
                        {"name": "PILOTHOUSE_ENV_HASH", "value": "e" * 64 + ".1"},
                        {"name": "PILOTHOUSE_ENVIRONMENTS_DIR", "value": f"/environments/{TREE}"},
                    ],
                    "volumeMounts": [
                        {"name": "files", "mountPath": "/var/run/pilothouse/build", "readOnly": True},
                        {
                            "name": "environments",
                            "mountPath": f"/environments/{TREE}",
                            "subPath": TREE,
                            "readOnly": False,
                        },
                        {
                            "name": "environments",
                            "mountPath": "/environments/shared",
                            "subPath": "shared",
                            "readOnly": True,
                        },
                    ],
                }
            ],
            "volumes": [
                {"name": "files", "configMap": {"name": "env-eeeeeeeeeeee"}},
                {
                    "name": "script",
                    "configMap": {"name": "env-eeeeeeeeeeee", "items": [{"key": "build.py", "path": "build.py"}]},
                },
                {"name": "environments", "hostPath": {"path": "/environments", "type": "DirectoryOrCreate"}},
            ],
        },
    }


def test_a_build_without_anything_of_a_users_has_the_shared_tree_to_write_to() -> None:
    spec = BuildSpec("ph-shop", "e" * 64, f"shared/{'e' * 64}", "shop", "python:3.11-slim", {}, Volume("/environments"))
    (container,) = builds.pod(spec)["spec"]["containers"]
    assert container["volumeMounts"][1:] == [
        {"name": "environments", "mountPath": "/environments/shared", "subPath": "shared", "readOnly": False}
    ]


def cleaning(*directories: str) -> CleaningSpec:
    return CleaningSpec(
        namespace="ph-shop",
        project="shop",
        image="python:3.11-slim",
        script=b"print()",
        directories=directories,
        volume=Volume("/environments"),
    )


def test_cleaning_pod() -> None:
    spec = cleaning(f"{TREE}/{'e' * 64}", f"{TREE}/{'f' * 64}.1")
    assert builds.cleaning_config_map(spec)["binaryData"] == {"build.py": base64.b64encode(b"print()").decode()}
    pod = builds.cleaning_pod(spec)
    assert builds.cleaned(pod) == list(spec.directories)
    # Neither a version's pod nor a build's: what removes those leaves it alone.
    assert set(pod["metadata"]["labels"]) == {
        "app.kubernetes.io/managed-by",
        "pilothouse.io/project",
        "pilothouse.io/cleaning",
    }
    (container,) = pod["spec"]["containers"]
    assert container["env"] == [
        {"name": "PILOTHOUSE_ENV_REMOVE", "value": f"{'e' * 64} {'f' * 64}.1"},
        {"name": "PILOTHOUSE_ENVIRONMENTS_DIR", "value": f"/environments/{TREE}"},
    ]
    writable = [mount for mount in container["volumeMounts"] if not mount["readOnly"]]
    assert [(mount["mountPath"], mount["subPath"]) for mount in writable] == [(f"/environments/{TREE}", TREE)]


def test_at_the_root_folders_are_removed_and_nothing_is_run() -> None:
    pod = builds.cleaning_pod(cleaning(TREE, "e" * 64))["spec"]
    (container,) = pod["containers"]
    assert container["command"][-1] == "--keep-cache"
    assert container["volumeMounts"][1:] == [{"name": "environments", "mountPath": "/environments", "readOnly": False}]
    assert "initContainers" not in pod


def test_pods_with_gpus_wait_behind_a_gate() -> None:
    assert "schedulingGates" not in manifests.template(make())["spec"]
    gated = manifests.template(make(gated=True))["spec"]
    assert gated["schedulingGates"] == [{"name": "pilothouse.io/gpu-placement"}]


def test_without_room_for_one_more_instances_pass_over_in_place() -> None:
    strategy = manifests.deployment(make(in_place=True))["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert manifests.template(make(in_place=True)) == manifests.template(make()), "the choice alone restarts no pod"
