"""Which recordings are played, and what each needs besides: all there are, whole but for what is said here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from localcluster.client import ApiError, Client
from localcluster.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    HPAS,
    JOBS,
    NAMESPACES,
    NODES,
    PDBS,
    RESOURCEQUOTAS,
    SERVICEACCOUNTS,
    SERVICES,
)
from tests.contract import replay
from tests.contract.conftest import Cluster, Kubectl, make_namespace
from tests.contract.differences import DIFFERENCES, OF_STORIES
from tests.contract.playing import Player, Story
from tests.contract.stories import Object, Problem
from tests.contract.waiting import condition, is_ready, object_until, pod_until
from tests.support.kubernetes_tools import kubectl

Hook = Callable[[Client, Cluster], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One recording: where it takes place and how it is played.

    `exact` compares answers with their order and identities; else replicas may stand for each other. `before` holds
    what happened before a step but was not recorded; `left_out` the steps that are not sent, each with the reason;
    `watched` whether its watches are opened.
    """

    name: str
    namespaces: tuple[str, ...]
    exact: bool = False
    before: Mapping[int, Hook] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    watched: bool = True


def unexpected(scenario: Scenario, found: Iterable[Problem]) -> list[Problem]:
    """Problems but for the listed differences."""
    listed = DIFFERENCES if scenario.exact else OF_STORIES
    return [
        (step, path, text)
        for step, path, text in found
        if not any(difference.covers(scenario.name, step, path) for difference in listed)
    ]


def told(problems: list[Problem]) -> str:
    return "\n" + "\n".join(f"{step} | {path}: {text}" for step, path, text in problems[:40])


async def play(client: Client, cluster: Cluster, scenario: Scenario) -> list[Problem]:
    """Play one recording in namespaces of its own; what differs, but for the listed differences."""
    connection = client.connection
    for name in scenario.namespaces:
        await make_namespace(client, name)
    token = ""
    if scenario.namespaces:
        answer = await client.create_subresource(
            SERVICEACCOUNTS, "default", scenario.namespaces[0], "token", {"spec": {}}
        )
        token = answer["status"]["token"]
    (node,) = [one["metadata"]["name"] for one in await client.list(NODES)]
    connector = aiohttp.TCPConnector(ssl=connection.tls or True, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        kind = replay.Replay if scenario.exact else Player
        player = kind(
            scenario.name, session, connection.server, connection.token or "", cluster.image, token, node=node
        )
        player.accept = lambda found: not unexpected(scenario, found)

        async def between(number: int) -> None:
            if number in scenario.before:
                await scenario.before[number](client, cluster)

        story = Story(player, [str(kubectl()), "--kubeconfig", str(cluster.kubeconfig)], between=between)
        story.inputs, story.watches = scenario.inputs, scenario.watched
        recorded = replay.load(scenario.name)
        only = {number for number, step in enumerate(recorded) if step.get("step") not in scenario.left_out}
        try:
            await story.play(recorded, only)
        finally:
            for name in scenario.namespaces:
                with contextlib.suppress(ApiError):  # some scenarios delete their namespace
                    await client.delete(NAMESPACES, name)
    return unexpected(scenario, story.problems)


# -- what was not recorded ------------------------------------------------------------------------


async def _more_config_maps(client: Client, _: Cluster) -> None:
    for i in range(1, 7):
        labels = {"n": str(i), "par": "odd" if i % 2 else "even"} | ({"has": ""} if i < 2 else {})
        await client.create(CONFIGMAPS, {"metadata": {"name": f"c{i}", "labels": labels}}, "rec-21")


async def _workload(client: Client, cluster: Cluster) -> None:
    """The objects of which 21 shows tables."""
    namespace, label = "rec-21", {"app": "web"}
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    container: Object = {"name": "web", "image": cluster.image, "command": ["python3", "-c", replay.SERVER]}
    container |= {"ports": [{"containerPort": 8080}], "readinessProbe": probe}
    template = {"metadata": {"labels": label}, "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    once = {"name": "c", "image": cluster.image, "command": ["sleep", "1"]}
    wanted: list[tuple[Any, str, Object]] = [
        (RESOURCEQUOTAS, "q", {"spec": {"hard": {"pods": "20"}}}),
        (PDBS, "b", {"spec": {"minAvailable": 1, "selector": {"matchLabels": label}}}),
        (HPAS, "h", {"spec": {"scaleTargetRef": target, "maxReplicas": 2, "metrics": [_resource(metric)]}}),
        (SERVICES, "web", {"spec": {"selector": label, "ports": [{"port": 80, "targetPort": 8080}]}}),
        (JOBS, "j", {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [once]}}}}),
        (DEPLOYMENTS, "web", {"spec": {"replicas": 2, "selector": {"matchLabels": label}, "template": template}}),
    ]
    for resource, name, body in wanted:
        labels = {"labels": label} if resource == DEPLOYMENTS else {}
        await client.create(resource, {"metadata": {"name": name, **labels}, **body}, namespace)
    await object_until(client, DEPLOYMENTS, namespace, "web", lambda d: d["status"].get("availableReplicas") == 2, "up")
    await object_until(client, JOBS, namespace, "j", lambda j: condition(j, "Complete"), "complete")
    await object_until(client, PDBS, namespace, "b", lambda b: b["status"].get("disruptionsAllowed") == 1, "one may go")
    await object_until(
        client, RESOURCEQUOTAS, namespace, "q", lambda q: q["status"]["used"] == {"pods": "2"}, "counted"
    )


def _resource(metric: Object) -> Object:
    return {"type": "Resource", "resource": metric}


async def _make_unready(client: Client, cluster: Cluster) -> None:
    """Take away the file that the readiness probe of pod `a` looks for."""
    await pod_until(client, "rec-25", "a", is_ready, "ready")
    await asyncio.to_thread(Kubectl(cluster, "rec-25"), "exec", "a", "--", "rm", "/tmp/ready")


# -- the recordings -------------------------------------------------------------------------------

_UNTOLD = "sends a secret that the recording does not tell"
_ROLES = "makes roles, of which there are none here"
_APPLIED = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {}, namespace: rec-17}}\ndata: {}\n"

# Answered by the API server alone, or nearly so.
ANSWERS = (
    Scenario("01-discovery", (), exact=True),
    Scenario(
        "17-server-side-apply",
        ("rec-17",),
        exact=True,
        inputs={
            "kubectl apply --server-side": _APPLIED.format("k", '{a: "1"}'),
            "kubectl apply --server-side conflict": _APPLIED.format("k", '{a: "2"}'),
            "kubectl apply client-side create": _APPLIED.format("k2", '{a: "1"}'),
            "kubectl apply client-side update": _APPLIED.format("k2", '{b: "1"}'),
            "kubectl apply client-side unchanged": _APPLIED.format("k2", '{b: "1"}'),
            "kubectl diff": _APPLIED.format("k2", '{b: "2"}'),
        },
    ),
    Scenario("18-patches", ("rec-18",), exact=True),
    Scenario(
        "19-errors",
        ("rec-19",),
        exact=True,
        left_out={"401 bad token": _UNTOLD},
    ),
    Scenario(
        "29-access-reviews",
        ("rec-29",),
        exact=True,
        left_out={
            "token of another audience": _UNTOLD,
            "tokenreview": _UNTOLD,
            "role": _ROLES,
            "rolebinding": _ROLES,
            "sa lists pods": _ROLES,
        },
    ),
)

# Played side by side, since most of their time is waiting.
TOGETHER = (
    Scenario("26-hpa-metrics", ("rec-26",)),
    Scenario("02-namespace", (), exact=True),
    Scenario("03-deployment-create", ("rec-03",)),
    Scenario("04-rolling-update", ("rec-04",)),
    Scenario("05-rollout-undo", ("rec-05",)),
    Scenario("06-scale", ("rec-06",)),
    Scenario("07-pause-resume", ("rec-07",)),
    Scenario("09-bad-image", ("rec-09",)),
    Scenario("10-crashloop", ("rec-10",)),
    Scenario("11-oomkilled", ("rec-11",)),
    Scenario("13-readiness-never", ("rec-13",)),
    Scenario("16-quota-limitrange", ("rec-16", "rec-16b"), exact=True),
    Scenario("21-list", ("rec-21",), exact=True, before={1: _more_config_maps, 25: _workload}),
    Scenario(
        "22-logs",
        ("rec-22",),
        left_out={"log before container start": "starts take no seconds; `test_relay` asks a pod that never starts"},
    ),
    Scenario("23-delete", ("rec-23",), exact=True),
    Scenario("24-jobs", ("rec-24",)),
    Scenario("25-services", ("rec-25",), exact=True, before={50: _make_unready}),
    Scenario("27-config-volumes-init", ("rec-27",)),
    Scenario(
        "31-kubectl-traces",
        ("rec-31",),
        left_out={"wait for delete": "waits half a minute for pods that do not react to being ended"},
    ),
)

# Changes the node, so nothing else may run on it.
ALONE = Scenario("15-unschedulable", ("rec-15",))

# Its watches are compared event by event, by `test_replay_watches`; its requests here.
WATCHES = Scenario("20-watch", ("rec-20",), exact=True, watched=False)
