"""Pods as a node runs them: phases, conditions, reasons and events, on any cluster."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import CONFIGMAPS, PODS, SECRETS
from tests.contract.conftest import Cluster, Kubectl
from tests.contract.waiting import (
    condition,
    container_status,
    event_until,
    events,
    gone,
    is_ready,
    pod_until,
    recorded,
    state,
)

Object = dict[str, Any]


def pod(name: str, image: str, script: str, *, container: Object | None = None, **spec: Any) -> Object:
    """A pod of one container `c` that runs a shell script."""
    one = {"name": "c", "image": image, "command": ["sh", "-c", script], **(container or {})}
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [one], **spec}}


def terminated(found: Object, container: str = "c") -> Object | None:
    return state(found, container).get("terminated")


async def finished(client: Client, namespace: str, name: str) -> Object:
    return await pod_until(
        client, namespace, name, lambda p: p.get("status", {}).get("phase") in ("Succeeded", "Failed"), "finished"
    )


async def log_of(client: Client, namespace: str, name: str, **options: str) -> str:
    return await client.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}/log", params=options)


async def test_a_pod_that_fails_for_good(client: Client, cluster: Cluster, namespace: str) -> None:
    async with recorded(client, PODS, namespace) as seen:
        await client.create(
            PODS, pod("p", cluster.image, "sleep 0.5; echo bye; exit 3", restartPolicy="Never"), namespace
        )
        done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Failed"
    assert terminated(done) | {"startedAt": 0, "finishedAt": 0, "containerID": 0} == {
        "exitCode": 3,
        "reason": "Error",
        "startedAt": 0,
        "finishedAt": 0,
        "containerID": 0,
    }
    kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    assert [entry["type"] for entry in done["status"]["conditions"]] == kinds
    assert {k: condition(done, k)["status"] for k in kinds} == {
        "PodReadyToStartContainers": "False",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
    }
    assert condition(done, "Ready")["reason"] == "PodFailed"
    phases = [obj["status"]["phase"] for _, obj in seen]
    assert [p for i, p in enumerate(phases) if p not in phases[:i]] == ["Pending", "Running", "Failed"]
    assert seen[0][1]["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    # The phase is still Running when the end of the container is told.
    assert any(obj["status"]["phase"] == "Running" and terminated(obj) for _, obj in seen)
    assert await log_of(client, namespace, "p") == "bye\n"


async def test_a_pod_that_succeeds(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "exit 0", restartPolicy="OnFailure"), namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Succeeded"
    assert terminated(done)["reason"] == "Completed"
    assert condition(done, "Initialized") | {"lastTransitionTime": 0} == {
        "type": "Initialized",
        "observedGeneration": 1,
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": 0,
        "reason": "PodCompleted",
    }
    reasons = [event["reason"] for event in await events(client, namespace, "p")]
    assert sorted(reasons) == ["Created", "Pulled", "Scheduled", "Started"]


async def test_a_condition_that_somebody_else_wrote_is_put_right(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    """The node controller does so when it loses sight of a node; the kubelet's word stands once it is back."""
    await client.create(PODS, pod("p", cluster.image, "sleep 600"), namespace)
    await pod_until(client, namespace, "p", is_ready, "ready")
    wrong = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    await client.patch(PODS, "p", namespace, wrong, kind="strategic", subresource="status")
    await pod_until(client, namespace, "p", is_ready, "ready again")


async def test_crash_loop(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "echo run; exit 3"), namespace)
    looping = await pod_until(
        client,
        namespace,
        "p",
        lambda p: state(p).get("waiting", {}).get("reason") == "CrashLoopBackOff",
        "in back-off",
    )
    uid = looping["metadata"]["uid"]
    status = container_status(looping)
    assert looping["status"]["phase"] == "Running"
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    pause = state(looping)["waiting"]["message"]
    assert pause.endswith(f"restarting failed container=c pod=p_{namespace}({uid})")
    assert pause.startswith("back-off ")
    event = await event_until(client, namespace, "p", "BackOff")
    assert event["message"] == f"Back-off restarting failed container c in pod p_{namespace}({uid})"
    assert event["type"] == "Warning"
    assert await log_of(client, namespace, "p", previous="true") == "run\n"
    await client.delete(PODS, "p", namespace, grace_seconds=0)


@pytest.mark.parametrize(
    ("policy", "script", "message"),
    [
        ("File", "echo written > /dev/termination-log; echo logged; exit 4", "written\n"),
        ("FallbackToLogsOnError", "echo first; echo last; exit 5", "first\nlast\n"),
        ("File", "echo logged; exit 6", None),
    ],
)
async def test_termination_message(
    client: Client, cluster: Cluster, namespace: str, policy: str, script: str, message: str | None
) -> None:
    body = pod("p", cluster.image, script, container={"terminationMessagePolicy": policy}, restartPolicy="Never")
    await client.create(PODS, body, namespace)
    done = await finished(client, namespace, "p")
    assert terminated(done).get("message") == message


async def test_memory_limit(client: Client, cluster: Cluster, namespace: str) -> None:
    greedy = "x=[]\nwhile 1: x.append(bytearray(b'x'*4000000))"
    container = {"command": ["python3", "-c", greedy], "resources": {"limits": {"memory": "48Mi"}}}
    await client.create(PODS, pod("p", cluster.image, "", container=container, restartPolicy="Never"), namespace)
    done = await finished(client, namespace, "p")
    assert terminated(done)["reason"] == "OOMKilled"
    assert terminated(done)["exitCode"] == 137
    assert done["status"]["qosClass"] == "Burstable"


async def test_images_that_cannot_be_had(client: Client, namespace: str, cluster: Cluster) -> None:
    missing = "localhost:5/doesnotexist:1"
    await client.create(PODS, pod("pull", missing, "true"), namespace)
    await client.create(PODS, pod("name", "Bad Image!!", "true"), namespace)
    never = pod("never", "localhost/absent:1", "true", container={"imagePullPolicy": "Never"})
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
    assert text.startswith(
        f'Back-off pulling image "{missing}": ErrImagePull: failed to pull and unpack image "{missing}"'
    )
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
    await client.create(PODS, pod("env", cluster.image, "echo $A; sleep 60", container={"env": env}), namespace)
    key = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "se", "key": "zzz"}}}]
    await client.create(SECRETS, {"metadata": {"name": "se"}, "stringData": {"P": "x"}}, namespace)
    await client.create(PODS, pod("key", cluster.image, "true", container={"env": key}), namespace)
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volume = {"name": "v", "secret": {"secretName": "none"}}
    body = pod("vol", cluster.image, "true", container=mounts, volumes=[volume])
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


async def test_environment_and_volumes(client: Client, cluster: Cluster, namespace: str) -> None:
    cm = {
        "metadata": {"name": "cm"},
        "data": {"A": "from-cm", "file.txt": "content\n"},
        "binaryData": {"bin": "AAEC"},
    }
    await client.create(CONFIGMAPS, cm, namespace)
    await client.create(SECRETS, {"metadata": {"name": "se"}, "stringData": {"P": "from-secret"}}, namespace)
    script = (
        "import json, os, stat\n"
        "def read(p): return open(p).read()\n"
        "print(json.dumps({'env': dict(os.environ), 'cm': read('/v/cm/A'), 'file': read('/v/cm/file.txt'),"
        "'se': read('/v/se/P'), 'labels': read('/v/da/labels'), 'cpu': read('/v/da/cpu'),"
        "'renamed': read('/v/sel/renamed'), 'names': sorted(n for n in os.listdir('/v/cm') if n[0] != '.'),"
        "'link': os.readlink('/v/cm/A'), 'data': os.path.islink('/v/cm/..data'),"
        "'mode': oct(os.stat('/v/cm/A').st_mode & 0o777), 'sub': os.listdir('/v/sub')}))\n"
        "open('/v/e/new', 'w').write('x')\n"
        "open('/v/sub/new', 'w').write('x')\n"
    )
    env: list[Object] = [
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "A"}}},
        {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "A", "optional": True}}},
        {"name": "X", "value": "$(ONE)-$(NOPE)-$$(ONE)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LBL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    downward = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {
            "path": "cpu",
            "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"},
        },
    ]
    container = {
        "command": ["python3", "-c", script],
        "env": env,
        "envFrom": [{"secretRef": {"name": "se"}, "prefix": "P_"}, {"configMapRef": {"name": "cm"}}],
        "resources": {"limits": {"cpu": "250m", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": "cm", "mountPath": "/v/cm"},
            {"name": "se", "mountPath": "/v/se"},
            {"name": "da", "mountPath": "/v/da"},
            {"name": "sel", "mountPath": "/v/sel"},
            {"name": "e", "mountPath": "/v/e"},
            {"name": "e", "mountPath": "/v/sub", "subPath": "below"},
        ],
    }
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "se", "secret": {"secretName": "se"}},
        {"name": "da", "downwardAPI": {"items": downward}},
        {
            "name": "sel",
            "projected": {"sources": [{"configMap": {"name": "cm", "items": [{"key": "A", "path": "renamed"}]}}]},
        },
        {"name": "e", "emptyDir": {}},
    ]
    body = pod("p", cluster.image, "", container=container, volumes=volumes, restartPolicy="Never")
    body["metadata"]["labels"] = {"a": "lab", "z": "zed"}
    await client.create(PODS, body, namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Succeeded", await log_of(client, namespace, "p")
    saw = json.loads(await log_of(client, namespace, "p"))
    env_seen = saw.pop("env")
    assert env_seen["ONE"] == "from-cm"
    assert "OPT" not in env_seen
    assert env_seen["X"] == "from-cm-$(NOPE)-$(ONE)"
    assert env_seen["POD"] == env_seen["HOSTNAME"] == "p"
    assert env_seen["LBL"] == "lab"
    assert env_seen["IP"] == done["status"]["podIP"]
    assert env_seen["NODE"] == done["spec"]["nodeName"]
    assert env_seen["CPU"] == "1"
    assert env_seen["MEM"] == "128"
    assert env_seen["P_P"] == "from-secret"
    assert env_seen["A"] == "from-cm"
    assert "KUBECONFIG" not in env_seen
    assert saw == {
        "cm": "from-cm",
        "file": "content\n",
        "se": "from-secret",
        "labels": 'a="lab"\nz="zed"',
        "cpu": "250",
        "renamed": "from-cm",
        "names": ["A", "bin", "file.txt"],
        "link": "..data/A",
        "data": True,
        "mode": "0o644",
        "sub": [],
    }


async def test_init_containers_and_sidecar(client: Client, cluster: Cluster, namespace: str) -> None:
    share = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}

    def step(name: str, script: str, **more: Any) -> Object:
        return {"name": name, "image": cluster.image, "command": ["sh", "-c", script], **share, **more}

    wait = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    init = [
        step("first", "echo 1 >> /v/order"),
        step("side", f"echo side >> /v/order; {wait}", restartPolicy="Always"),
        step("second", "echo 2 >> /v/order; sleep 0.5"),
    ]
    body = pod("p", cluster.image, "cat /v/order", container=share, initContainers=init, restartPolicy="Never")
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
    init = [{"name": "i1", "image": cluster.image, "command": ["sh", "-c", "exit 1"]}]
    await client.create(PODS, pod("p", cluster.image, "true", initContainers=init, restartPolicy="Never"), namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Failed"
    assert state(done, "c") == {"waiting": {"reason": "PodInitializing"}}
    assert condition(done, "Initialized")["reason"] == "ContainersNotInitialized"
    assert condition(done, "Ready")["reason"] == "PodFailed"


async def test_graceful_deletion(client: Client, cluster: Cluster, namespace: str) -> None:
    script = "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.1; done"
    await client.create(PODS, pod("p", cluster.image, script, terminationGracePeriodSeconds=20), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    async with recorded(client, PODS, namespace) as seen:
        answer = await client.delete(PODS, "p", namespace)
        assert answer["metadata"]["deletionGracePeriodSeconds"] == 20
        await gone(client, PODS, namespace, "p", 15)
    kinds = [kind for kind, _ in seen]
    assert kinds[-1] == "DELETED"
    last = seen[-1][1]
    assert last["status"]["phase"] == "Succeeded"
    assert last["metadata"]["deletionGracePeriodSeconds"] == 0
    assert terminated(last)["exitCode"] == 0
    await event_until(client, namespace, "p", "Killing", "Stopping container c")


async def test_a_container_that_ignores_the_signal_is_killed(client: Client, cluster: Cluster, namespace: str) -> None:
    script = "trap '' TERM; while :; do sleep 0.1; done"
    await client.create(PODS, pod("p", cluster.image, script, terminationGracePeriodSeconds=30), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    async with recorded(client, PODS, namespace) as seen:
        await client.delete(PODS, "p", namespace)
        await client.delete(PODS, "p", namespace, grace_seconds=1)  # may be shortened later
        begun = time.monotonic()
        await gone(client, PODS, namespace, "p")
    assert time.monotonic() - begun < 25
    assert seen[-1][1]["status"]["phase"] == "Failed"
    assert terminated(seen[-1][1])["exitCode"] == 137


async def test_probes(client: Client, cluster: Cluster, namespace: str) -> None:
    file_there = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1}
    await client.create(
        PODS, pod("ready", cluster.image, "sleep 1000", container={"readinessProbe": file_there}), namespace
    )
    alive = {"exec": {"command": ["sh", "-c", "echo broken; exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await client.create(PODS, pod("live", cluster.image, "sleep 1000", container={"livenessProbe": alive}), namespace)
    port = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    server = {"command": ["python3", "-m", "http.server", "8080"], "startupProbe": port | {"failureThreshold": 30}}
    await client.create(PODS, pod("start", cluster.image, "", container=server), namespace)

    waiting = await pod_until(client, namespace, "ready", lambda p: state(p).get("running"), "running")
    assert condition(waiting, "Ready")["message"] == "containers with unready status: [c]"
    await event_until(client, namespace, "ready", "Unhealthy", "Readiness probe failed: ")
    killed = await pod_until(
        client,
        namespace,
        "live",
        lambda p: p["status"].get("containerStatuses") and container_status(p)["restartCount"] > 0,
        "restarted",
    )
    assert container_status(killed)["lastState"]["terminated"]["exitCode"] == 137
    await event_until(client, namespace, "live", "Unhealthy", "Liveness probe failed: broken")
    await event_until(client, namespace, "live", "Killing", "Container c failed liveness probe, will be restarted")
    await pod_until(client, namespace, "start", is_ready, "started")


async def test_readiness_turns(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    body = pod("p", cluster.image, "touch /tmp/ok; sleep 1000", container={"readinessProbe": probe})
    await client.create(PODS, body, namespace)
    await pod_until(client, namespace, "p", is_ready, "ready")
    kubectl("exec", "p", "--", "rm", "/tmp/ok")
    await pod_until(client, namespace, "p", lambda p: not is_ready(p), "not ready any more")
    kubectl("exec", "p", "--", "touch", "/tmp/ok")
    await pod_until(client, namespace, "p", is_ready, "ready again")


async def test_exec(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    await client.create(PODS, pod("p", cluster.image, "sleep 1000"), namespace)
    await pod_until(client, namespace, "p", is_ready, "running")
    assert kubectl("exec", "p", "--", "sh", "-c", "echo out; echo err >&2") == "out\n"
    assert kubectl("exec", "-i", "p", "--", "cat", stdin="a line\n") == "a line\n"
    failed = kubectl.run("exec", "p", "--", "sh", "-c", "exit 3")
    assert failed.returncode == 3
    absent = kubectl.run("exec", "p", "--", "no-such-program")
    assert absent.returncode != 0
    assert "no-such-program" in absent.stderr
    assert kubectl("exec", "p", "--", "sh", "-c", "echo $HOSTNAME") == "p\n"


async def test_logs(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    script = (
        "import sys,time\n"
        "for i in range(5): print('line', i, flush=True)\n"
        "sys.stdout.write('x'*40000 + '\\n' + 'crlf\\r\\n\\n' + 'no newline'); sys.stdout.flush()\n"
    )
    container = {"command": ["python3", "-c", script]}
    await client.create(PODS, pod("p", cluster.image, "", container=container, restartPolicy="Never"), namespace)
    await finished(client, namespace, "p")
    whole = "".join(f"line {i}\n" for i in range(5)) + "x" * 40000 + "\ncrlf\n\nno newline"
    assert await log_of(client, namespace, "p") == whole
    assert await log_of(client, namespace, "p", tailLines="2") == "\nno newline"
    assert await log_of(client, namespace, "p", tailLines="0") == ""
    assert await log_of(client, namespace, "p", limitBytes="9") == "line 0\nli"
    assert await log_of(client, namespace, "p", sinceTime="2100-01-01T00:00:00Z") == ""
    stamped = (await log_of(client, namespace, "p", timestamps="true")).splitlines()
    assert stamped[0].endswith("Z line 0")
    assert stamped[5].endswith("x" * 40000)
    assert await log_of(client, namespace, "p", follow="true") == whole
    assert kubectl("logs", "p", "--tail=1") == "no newline"


async def test_following_a_log(client: Client, cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done"
    await client.create(PODS, pod("p", cluster.image, script, restartPolicy="Never"), namespace)
    await pod_until(client, namespace, "p", lambda p: state(p).get("running") or terminated(p), "started")
    assert kubectl("logs", "-f", "p") == "1\n2\n3\n4\n5\n"


async def test_a_node_without_room_rejects(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "sleep 1000"), namespace)
    node = (await pod_until(client, namespace, "p", is_ready, "running"))["spec"]["nodeName"]
    big = {"resources": {"requests": {"cpu": "1000"}}}
    await client.create(PODS, pod("big", cluster.image, "true", container=big, nodeName=node), namespace)
    rejected = await finished(client, namespace, "big")
    status = rejected["status"]
    assert status["phase"] == "Failed"
    assert status["reason"] == "OutOfcpu"
    text = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: "
    assert status["message"].startswith(text)
    assert not status.get("containerStatuses")


async def test_deadline_of_a_pod(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(PODS, pod("p", cluster.image, "sleep 1000", activeDeadlineSeconds=1), namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Failed"
    assert done["status"]["reason"] == "DeadlineExceeded"
