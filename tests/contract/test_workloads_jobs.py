"""Jobs, quotas and disruption budgets, on any cluster."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster.client import ApiError, Client
from localcluster.resources import JOBS, PDBS, PODS, REPLICASETS, RESOURCEQUOTAS
from tests.contract.conftest import Cluster
from tests.contract.pods import SLEEP, run
from tests.contract.waiting import condition, event_until, gone, is_ready, object_until, recorded, until

Object = dict[str, Any]


def job(name: str, image: str, program: str, policy: str = "Never", **spec: Any) -> Object:
    container = {"name": "c", "image": image, "command": run(program)}
    pod = {"restartPolicy": policy, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": pod}, **spec}}


def has(kind: str) -> Any:
    return lambda found: condition(found, kind).get("status") == "True"


async def test_success_is_counted_once(client: Client, cluster: Cluster, namespace: str) -> None:
    async with recorded(client, JOBS, namespace) as seen:
        await client.create(
            JOBS, job("j", cluster.image, "import time; time.sleep(0.2)", parallelism=2, completions=3), namespace
        )
        done = await object_until(client, JOBS, namespace, "j", has("Complete"), "complete")
    status = done["status"]
    assert status["succeeded"] == 3
    assert status["ready"] == status["terminating"] == 0
    assert status["uncountedTerminatedPods"] == {}
    assert "active" not in status
    assert [(c["type"], c["reason"]) for c in status["conditions"]] == [
        ("SuccessCriteriaMet", "CompletionsReached"),
        ("Complete", "CompletionsReached"),
    ]
    assert max(obj["status"].get("active", 0) for _, obj in seen) == 2
    counts = [obj["status"].get("succeeded", 0) for _, obj in seen]
    assert counts == sorted(counts)
    pods = (await client.list(PODS, namespace)).items
    assert len(pods) == 3
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
    assert (await event_until(client, namespace, "j", "Completed"))["message"] == "Job completed"


async def test_failures(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(JOBS, job("limit", cluster.image, "raise SystemExit(7)", backoffLimit=0), namespace)
    await client.create(JOBS, job("deadline", cluster.image, SLEEP, activeDeadlineSeconds=1), namespace)
    policy = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}
    await client.create(JOBS, job("policy", cluster.image, "raise SystemExit(42)", podFailurePolicy=policy), namespace)
    expected = {
        "limit": ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        "deadline": ("DeadlineExceeded", "Job was active longer than specified deadline"),
        "policy": ("PodFailurePolicy", None),
    }
    for name, (reason, message) in expected.items():
        done = await object_until(client, JOBS, namespace, name, has("Failed"), "failed")
        assert [c["type"] for c in done["status"]["conditions"]] == ["FailureTarget", "Failed"]
        failed = condition(done, "Failed")
        assert failed["reason"] == reason
        assert done["status"]["failed"] == 1
        if message is None:
            (pod,) = (await client.list(PODS, namespace, label_selector="job-name=policy")).items
            where = f"{namespace}/{pod['metadata']['name']}"
            message = f"Container c for pod {where} failed with exit code 42 matching FailJob rule at index 0"
        assert failed["message"] == message
        assert (await event_until(client, namespace, name, reason))["type"] == "Warning"


async def test_indexed_job(client: Client, cluster: Cluster, namespace: str) -> None:
    body = job(
        "j",
        cluster.image,
        "import os; print(os.environ['JOB_COMPLETION_INDEX'])",
        completions=2,
        parallelism=2,
        completionMode="Indexed",
    )
    await client.create(JOBS, body, namespace)
    done = await object_until(client, JOBS, namespace, "j", has("Complete"), "complete")
    assert done["status"]["completedIndexes"] == "0,1"
    for pod in await client.list(PODS, namespace):
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        name = pod["metadata"]["name"]
        assert name.startswith(f"j-{index}-")
        log = await client.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}/log")
        assert log == f"{index}\n"


async def test_suspend_resume_and_time_to_live(client: Client, cluster: Cluster, namespace: str) -> None:
    body = job("j", cluster.image, SLEEP, suspend=True, ttlSecondsAfterFinished=0)
    await client.create(JOBS, body, namespace)
    held = await object_until(client, JOBS, namespace, "j", has("Suspended"), "suspended")
    assert "startTime" not in held["status"]
    await client.patch(JOBS, "j", namespace, {"spec": {"suspend": False}})
    await object_until(client, JOBS, namespace, "j", lambda j: j["status"].get("ready") == 1, "running")
    await client.patch(JOBS, "j", namespace, {"spec": {"suspend": True}})
    held = await object_until(
        client,
        JOBS,
        namespace,
        "j",
        lambda j: has("Suspended")(j) and not j["status"].get("terminating") and not j["status"].get("active"),
        "suspended again",
    )
    assert "failed" not in held["status"]
    assert "startTime" not in held["status"]
    await client.patch(JOBS, "j", namespace, {"spec": {"suspend": False, "activeDeadlineSeconds": 1}})
    await gone(client, JOBS, namespace, "j")

    async def no_pods() -> bool:
        return not (await client.list(PODS, namespace)).items

    await until(no_pods, "the job's pods are gone with it")


async def test_quota_stops_a_replica_set_and_says_so(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(RESOURCEQUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}, namespace)
    await object_until(
        client, RESOURCEQUOTAS, namespace, "q", lambda q: q.get("status", {}).get("used") == {"pods": "0"}, "measured"
    )
    container = {"name": "c", "image": cluster.image, "command": run(SLEEP)}
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    body = {
        "metadata": {"name": "rs"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template},
    }
    await client.create(REPLICASETS, body, namespace)
    failing = await object_until(
        client,
        REPLICASETS,
        namespace,
        "rs",
        lambda r: condition(r, "ReplicaFailure") and r["status"].get("readyReplicas") == 1,
        "short of one",
    )
    reason = condition(failing, "ReplicaFailure")
    assert reason["reason"] == "FailedCreate"
    text = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    assert text in reason["message"]
    assert text in (await event_until(client, namespace, "rs", "FailedCreate"))["message"]
    await object_until(
        client, RESOURCEQUOTAS, namespace, "q", lambda q: q["status"]["used"] == {"pods": "1"}, "counted"
    )


async def test_disruption_budget_blocks_eviction(client: Client, cluster: Cluster, namespace: str) -> None:
    container = {"name": "c", "image": cluster.image, "command": run(SLEEP)}
    body = {
        "metadata": {"name": "p", "labels": {"app": "a"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    await client.create(PODS, body, namespace)
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}
    await client.create(PDBS, budget, namespace)
    await object_until(client, PODS, namespace, "p", is_ready, "running")
    await object_until(
        client, PDBS, namespace, "b", lambda b: b.get("status", {}).get("currentHealthy") == 1, "measured"
    )
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": namespace}}
    with pytest.raises(ApiError) as blocked:
        await client.create_subresource(PODS, "p", namespace, "eviction", eviction)
    assert blocked.value.code == 429
    cause = blocked.value.details["causes"][0]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"
    await client.patch(PDBS, "b", namespace, {"spec": {"minAvailable": 0}})
    await object_until(client, PDBS, namespace, "b", lambda b: b["status"].get("disruptionsAllowed") == 1, "allows one")
    await client.create_subresource(PODS, "p", namespace, "eviction", eviction)
    await gone(client, PODS, namespace, "p")
