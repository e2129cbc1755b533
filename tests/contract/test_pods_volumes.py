"""What a container finds in its environment and its volumes, on any cluster."""

from __future__ import annotations

import errno
import json

from localcluster.client import Client
from localcluster.resources import CONFIGMAPS, PODS, SECRETS
from tests.contract.conftest import Cluster
from tests.contract.pods import SLEEP, Object, finished, log_of, pod, run
from tests.contract.waiting import container_status, event_until, is_ready, pod_until, until


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


async def test_an_empty_volume_is_shared_and_outlives_a_restart(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    first = (
        "import os, time\n"
        "if not os.path.exists('/v/once'):\n"
        "    open('/v/once', 'w').write('kept')\n"
        "    raise SystemExit(1)\n"
        "while not os.path.exists('/v/other'): time.sleep(0.1)\n"
        "print(open('/v/once').read(), open('/v/other').read())\n"
    )
    second = "open('/w/other', 'w').write('shared')"
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    body = pod("p", cluster.image, first, container=mount, restartPolicy="OnFailure")
    other = {"name": "d", "image": cluster.image, "command": run(second)}
    body["spec"]["containers"].append(other | {"volumeMounts": [{"name": "v", "mountPath": "/w"}]})
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    await client.create(PODS, body, namespace)
    done = await finished(client, namespace, "p")
    assert done["status"]["phase"] == "Succeeded"
    assert container_status(done, "c")["restartCount"] == 1
    assert await log_of(client, namespace, "p", container="c") == "kept shared\n"


async def test_volumes_in_memory_and_volumes_to_be_read(
    client: Client, cluster: Cluster, namespace: str, walled: bool
) -> None:
    """Which file systems they are, who may write, and what a projected volume brings together."""
    program = (
        "import json, os\n"
        "kinds = {line.split()[1]: line.split()[2] for line in open('/proc/mounts')}\n"
        "def writes(path):\n"
        "    try:\n"
        "        open(path, 'w').write('x')\n"
        "    except OSError as error:\n"
        "        return error.errno\n"
        "    return 0\n"
        "print(json.dumps({'memory': kinds.get('/memory'),"
        "'writes': [writes(f'/{name}/x') for name in ('memory', 'disk', 'readonly', 'cm')],"
        "'all': sorted(name for name in os.listdir('/all') if name[0] != '.'),"
        "'token': open('/all/token').read().count('.'), 'name': open('/all/name').read()}))\n"
    )
    paths = ("memory", "disk", "readonly", "cm", "all")
    mounts: list[Object] = [{"name": name, "mountPath": f"/{name}"} for name in paths]
    mounts[2] |= {"name": "disk", "readOnly": True}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"configMap": {"name": "cm"}},
        {"secret": {"name": "se", "items": [{"key": "P", "path": "renamed"}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    volumes = [
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "disk", "emptyDir": {}},
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "all", "projected": {"sources": sources}},
    ]
    await client.create(CONFIGMAPS, {"metadata": {"name": "cm"}, "data": {"A": "1"}}, namespace)
    await client.create(SECRETS, {"metadata": {"name": "se"}, "stringData": {"P": "2"}}, namespace)
    body = pod("p", cluster.image, program, container={"volumeMounts": mounts}, volumes=volumes, restartPolicy="Never")
    await client.create(PODS, body, namespace)
    await finished(client, namespace, "p")
    saw = json.loads(await log_of(client, namespace, "p"))
    kind, written = saw.pop("memory"), saw.pop("writes")
    assert written[:2] == [0, 0]
    if walled:
        assert (kind, written[2:]) == ("tmpfs", [errno.EROFS] * 2)
    assert saw == {
        "all": ["A", "name", "renamed", "token"],
        "token": 2,
        "name": "p",
    }


async def test_a_volume_over_its_limit_has_its_pod_evicted(client: Client, cluster: Cluster, namespace: str) -> None:
    program = f"open('/v/big', 'wb').write(bytes(3_000_000)); {SLEEP}"
    body = pod("p", cluster.image, program, container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]})
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    await client.create(PODS, body, namespace)
    gone = await pod_until(client, namespace, "p", lambda p: p["status"]["phase"] == "Failed", "evicted", 180)
    text = 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert (gone["status"]["reason"], gone["status"]["message"]) == ("Evicted", text)
    assert (await event_until(client, namespace, "p", "Evicted"))["type"] == "Warning"


async def test_changes_reach_volumes_but_no_environment(client: Client, cluster: Cluster, namespace: str) -> None:
    """A kubelet looks once a minute or so; what is mounted by `subPath` stays as it was, as do variables."""
    program = (
        "import os, time\n"
        "read = lambda path: open(path).read()\n"
        "while True:\n"
        "    print(read('/cm/A'), read('/se/A'), read('/sub'), os.environ['A'], read('/da/labels'), flush=True)\n"
        "    time.sleep(0.5)\n"
    )
    mounts: list[Object] = [{"name": name, "mountPath": f"/{name}"} for name in ("cm", "se", "da")]
    mounts.append({"name": "cm", "mountPath": "/sub", "subPath": "A"})
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "A"}}}]
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['a']"}}
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "se", "secret": {"secretName": "se"}},
        {"name": "da", "downwardAPI": {"items": [labels]}},
    ]
    await client.create(CONFIGMAPS, {"metadata": {"name": "cm"}, "data": {"A": "old"}}, namespace)
    await client.create(SECRETS, {"metadata": {"name": "se"}, "stringData": {"A": "old"}}, namespace)
    body = pod("p", cluster.image, program, container={"volumeMounts": mounts, "env": env}, volumes=volumes)
    body["metadata"]["labels"] = {"a": "old"}
    await client.create(PODS, body, namespace)

    async def last() -> str:
        return (await log_of(client, namespace, "p", tailLines="1")).strip()

    await pod_until(client, namespace, "p", is_ready, "running")

    async def shows(wanted: str) -> bool:
        return await last() == wanted

    await until(lambda: shows("old old old old old"), "the first values")
    await client.patch(CONFIGMAPS, "cm", namespace, {"data": {"A": "new"}})
    await client.patch(SECRETS, "se", namespace, {"stringData": {"A": "new"}})
    await client.patch(PODS, "p", namespace, {"metadata": {"labels": {"a": "new"}}})
    await until(lambda: shows("new new old old new"), "the new values", 240)
