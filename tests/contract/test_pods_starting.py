"""What pods wait for before they run, on any cluster: images, programs, configuration, init containers."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import CONFIGMAPS, PODS, SECRETS
from tests.contract.conftest import Cluster
from tests.contract.pods import ENDS_ON_TERM, SLEEP, Object, finished, log_of, pod, run, terminated
from tests.contract.waiting import (
    condition,
    container_status,
    event_until,
    is_ready,
    pod_until,
    recorded,
    state,
)


async def test_images_that_cannot_be_had(client: Client, namespace: str, cluster: Cluster) -> None:
    missing = "localhost:5/doesnotexist:1"
    await client.create(PODS, pod("pull", missing, "pass"), namespace)
    await client.create(PODS, pod("name", "Bad Image!!", "pass"), namespace)
    never = pod("never", "localhost/absent:1", "pass", container={"imagePullPolicy": "Never"})
    await client.create(PODS, never, namespace)
    failing = await pod_until(
        client,
        namespace,
        "pull",
        lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff",
        "in back-off",
    )
    assert failing["status"]["phase"] == "Pending"
    text = state(failing)["waiting"]["message"]
    assert text.startswith(f'Back-off pulling image "{missing}": ErrImagePull: ')
    assert (await event_until(client, namespace, "pull", "BackOff"))["type"] == "Normal"
    assert (await event_until(client, namespace, "pull", "Failed", "ErrImagePull"))["type"] == "Warning"
    await event_until(client, namespace, "pull", "Pulling", f'Pulling image "{missing}"')
    invalid = await pod_until(
        client, namespace, "name", lambda p: state(p).get("waiting", {}).get("reason") == "InvalidImageName", "refused"
    )
    assert state(invalid)["waiting"]["message"] == (
        'Failed to apply default image tag "Bad Image!!": couldn\'t parse image name "Bad Image!!": '
        "invalid reference format: repository name (library/Bad Image!!) must be lowercase"
    )
    absent = await pod_until(
        client,
        namespace,
        "never",
        lambda p: state(p).get("waiting", {}).get("reason") == "ErrImageNeverPull",
        "refused",
    )
    assert state(absent)["waiting"]["message"] == (
        'Container image "localhost/absent:1" is not present with pull policy of Never'
    )
    with pytest.raises(ApiError) as refused:
        await log_of(client, namespace, "pull")
    assert refused.value.code == 400


async def test_a_program_that_is_not_there(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "", container={"command": ["/does/not/exist"]}), namespace)
    failing = await pod_until(
        client,
        namespace,
        "p",
        lambda p: p["status"].get("containerStatuses") and container_status(p)["lastState"],
        "failed to start",
    )
    last = container_status(failing)["lastState"]["terminated"]
    assert last["reason"] == "StartError"
    assert last["exitCode"] == 128
    assert 'exec: "/does/not/exist": stat /does/not/exist: no such file or directory' in last["message"]
    assert failing["status"]["phase"] == "Running"


async def test_missing_configuration_is_waited_for(client: Client, cluster: Cluster, namespace: str) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "A"}}}]
    await client.create(PODS, pod("env", cluster.image, SLEEP, container={"env": env}), namespace)
    key = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "se", "key": "zzz"}}}]
    await client.create(SECRETS, {"metadata": {"name": "se"}, "stringData": {"P": "x"}}, namespace)
    await client.create(PODS, pod("key", cluster.image, "pass", container={"env": key}), namespace)
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volume = {"name": "v", "secret": {"secretName": "none"}}
    body = pod("vol", cluster.image, "pass", container=mounts, volumes=[volume])
    await client.create(PODS, body, namespace)

    def is_config_error(found: Object) -> bool:
        return state(found).get("waiting", {}).get("reason") == "CreateContainerConfigError"

    waiting = await pod_until(client, namespace, "env", is_config_error, "missing its ConfigMap")
    assert state(waiting)["waiting"]["message"] == 'configmap "late" not found'
    await event_until(client, namespace, "env", "Failed", 'Error: configmap "late" not found')
    waiting = await pod_until(client, namespace, "key", is_config_error, "missing its key")
    assert state(waiting)["waiting"]["message"] == f"couldn't find key zzz in Secret {namespace}/se"
    await event_until(
        client, namespace, "vol", "FailedMount", 'MountVolume.SetUp failed for volume "v" : secret "none" not found'
    )
    found = await client.get(PODS, "vol", namespace)
    assert state(found) == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(found, "PodReadyToStartContainers")["status"] == "False"
    await client.create(CONFIGMAPS, {"metadata": {"name": "late"}, "data": {"A": "here"}}, namespace)
    await pod_until(client, namespace, "env", is_ready, "running once its ConfigMap is there")


async def test_init_containers_and_sidecar(client: Client, cluster: Cluster, namespace: str) -> None:
    share = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}

    def step(name: str, script: str, **more: Any) -> Object:
        return {"name": name, "image": cluster.image, "command": run(script), **share, **more}

    # Without a probe the next container might be sooner than the sidecar.
    begun = {"exec": {"command": run("assert 'side' in open('/v/order').read()")}}
    sidecar = {"restartPolicy": "Always", "startupProbe": begun | {"periodSeconds": 1, "timeoutSeconds": 10}}
    init = [
        step("first", "open('/v/order', 'a').write('1\\n')"),
        step("side", f"open('/v/order', 'a').write('side\\n')\n{ENDS_ON_TERM}", **sidecar),
        step("second", "open('/v/order', 'a').write('2\\n')"),
    ]
    body = pod(
        "p",
        cluster.image,
        "print(open('/v/order').read(), end='')",
        container=share,
        initContainers=init,
        restartPolicy="Never",
    )
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    async with recorded(client, PODS, namespace) as seen:
        await client.create(PODS, body, namespace)
        done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Succeeded"
    assert await log_of(client, namespace, "p", container="c") == "1\nside\n2\n"
    assert terminated(done, "side")["reason"] == "Completed"
    first = next(obj for _, obj in seen if obj["status"].get("initContainerStatuses"))
    assert state(first, "c") == {"waiting": {"reason": "PodInitializing"}}
    assert condition(first, "Initialized")["message"] == "containers with incomplete status: [first side second]"


async def test_failed_init_container(client: Client, cluster: Cluster, namespace: str) -> None:
    init = [{"name": "i1", "image": cluster.image, "command": run("raise SystemExit(1)")}]
    await client.create(PODS, pod("p", cluster.image, "pass", initContainers=init, restartPolicy="Never"), namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Failed"
    assert state(done, "c") == {"waiting": {"reason": "PodInitializing"}}
    assert condition(done, "Initialized")["reason"] == "ContainersNotInitialized"
    assert condition(done, "Ready")["reason"] == "PodFailed"


async def test_whose_files_are_and_who_may_write_them(
    client: Client, cluster: Cluster, namespace: str, walled: bool
) -> None:
    program = (
        "import json, os\n"
        "def writes(path):\n"
        "    try:\n"
        "        open(path, 'w').write('x')\n"
        "    except OSError as error:\n"
        "        return error.strerror\n"
        "    return os.stat(path).st_gid\n"
        "print(json.dumps({'uid': os.getuid(), 'gid': os.getgid(), 'groups': sorted(set(os.getgroups()) - {0}),"
        "'root': writes('/tmp/x'), 'volume': writes('/v/x'), 'first': os.stat('/v/first').st_gid,"
        "'hosts': [line.split() for line in open('/etc/hosts') if 'foo' in line]}))\n"
    )
    own = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    first = {"name": "i", "image": cluster.image, "command": run("open('/v/first', 'w')"), **mount}
    body = pod(
        "p",
        cluster.image,
        program,
        container={"securityContext": own, **mount},
        initContainers=[first],
        securityContext={"runAsUser": 1234, "runAsGroup": 1235, "fsGroup": 1236, "supplementalGroups": [1237]},
        hostAliases=[{"ip": "192.0.2.1", "hostnames": ["foo", "bar"]}],
        volumes=[{"name": "v", "emptyDir": {}}],
        restartPolicy="Never",
    )
    await client.create(PODS, body, namespace)
    await finished(client, namespace, "p")
    saw = json.loads(await log_of(client, namespace, "p", container="c"))
    root, hosts = saw.pop("root"), saw.pop("hosts")
    if walled:
        assert (root, hosts) == ("Read-only file system", [["192.0.2.1", "foo", "bar"]])
    if not cluster.embedded or os.geteuid() == 0:  # else every pod runs as the user who started the cluster
        groups = [1235, 1236, 1237]
        assert saw == {"uid": 1234, "gid": 1235, "groups": groups, "volume": 1236, "first": 1236}


async def test_hooks_run_after_the_start_and_before_the_end(client: Client, cluster: Cluster, namespace: str) -> None:
    def hook(program: str) -> Object:
        return {"exec": {"command": run(program)}}

    said = "print(open('/v/log').read(), end='', flush=True)"
    lifecycle = {
        "postStart": hook("open('/v/log', 'a').write('post\\n')"),
        "preStop": hook("open('/v/log', 'a').write('pre\\n')"),
    }
    program = (
        f"import signal, sys\ndef end(*_):\n    {said}\n    sys.exit(0)\nsignal.signal(signal.SIGTERM, end)\n{SLEEP}"
    )
    container = {"lifecycle": lifecycle, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    body = pod("p", cluster.image, program, container=container, terminationGracePeriodSeconds=20)
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    await client.create(PODS, body, namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    url = client.connection.server + PODS.path(namespace, "p", "log")
    async with client.session.get(url, params={"follow": "true"}) as answer:
        await client.delete(PODS, "p", namespace)
        assert await answer.text() == "post\npre\n"
    bad = pod("bad", cluster.image, SLEEP, container={"lifecycle": {"postStart": hook("raise SystemExit(3)")}})
    await client.create(PODS, bad, namespace)
    event = await event_until(client, namespace, "bad", "FailedPostStartHook")
    assert event["type"] == "Warning"
