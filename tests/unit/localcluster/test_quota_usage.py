"""What admission knows of a quota's use equals counting everything again, after any writes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localcluster import resources as r
from localcluster.apiserver import admission, bootstrap
from localcluster.apiserver.deletion import DeleteOptions
from localcluster.apiserver.managed import Manager
from localcluster.apiserver.objects import Objects, kind_of
from localcluster.apiserver.registry import KINDS
from localcluster.apiserver.status import StatusError
from localcluster.apiserver.store import Store, Table

Object = dict[str, Any]

MANAGER = Manager("test", "Update", "v1")
SCOPES = ((), ("BestEffort",), ("NotBestEffort",), ("NotTerminating", "NotBestEffort"))
KEYS = ("pods", "count/pods", "requests.cpu", "cpu", "requests.memory", "limits.memory")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "create", "end", "delete"]),
        st.sampled_from("abcd"),
        st.sampled_from([None, "250m", "1"]),
        st.booleans(),
    ),
    max_size=15,
)


def pod(name: str, cpu: str | None, ends: bool) -> Object:
    limits = {"cpu": cpu, "memory": "1Gi"} if cpu else {}
    spec: Object = {"containers": [{"name": "c", "image": "i", "resources": {"limits": limits}}]}
    return {"metadata": {"name": name}, "spec": spec | ({"activeDeadlineSeconds": 60} if ends else {})}


def make(path: str) -> Objects:
    store = Store(path, [Table(kind.resource, kind.field_values) for kind in KINDS], pytest.fail)
    objects = Objects(store)
    bootstrap.ensure(objects, 1)
    objects.create(kind_of(r.SERVICEACCOUNTS), "default", {"metadata": {"name": "default"}}, MANAGER)
    return objects


def apply(objects: Objects, step: tuple[str, str, str | None, bool]) -> None:
    what, name, cpu, ends = step
    pods = kind_of(r.PODS)
    if what == "create":
        objects.create(pods, "default", pod(name, cpu, ends), MANAGER)
    elif what == "delete":
        objects.delete(pods, "default", name, DeleteOptions(grace_seconds=0))
    else:
        objects.update(
            pods, "default", name, lambda obj: obj | {"status": {"phase": "Failed"}}, MANAGER, subresource="status"
        )


@settings(suppress_health_check=list(HealthCheck), max_examples=40, deadline=None)
@given(STEPS)
def test_sums_equal_counting_again(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str | None, bool]]
) -> None:
    async def run() -> None:
        objects, pods = make(str(tmp_path_factory.mktemp("store") / "db")), kind_of(r.PODS)
        for scopes in SCOPES:
            objects.usages.of(pods, "default", scopes)
        for step in steps:
            with contextlib.suppress(StatusError):  # it is not there, or there already
                apply(objects, step)
            for scopes in SCOPES:
                kept = objects.usages.of(pods, "default", scopes)
                counted = admission.usages(objects.store).of(pods, "default", scopes)
                assert kept.sums() == counted.sums(), scopes
        await objects.store.close()

    asyncio.run(run())


async def test_a_pod_over_the_quota_is_refused_until_there_is_room(tmp_path: Any) -> None:
    objects = make(str(tmp_path / "db"))
    hard = {"pods": "2", "requests.cpu": "1500m"}
    quota = {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    objects.create(kind_of(r.RESOURCEQUOTAS), "default", quota, MANAGER)
    apply(objects, ("create", "a", "1", False))
    words = "exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=1, limited: requests.cpu=1500m"
    with pytest.raises(StatusError, match=words):
        apply(objects, ("create", "b", "1", False))
    apply(objects, ("create", "b", "250m", False))
    with pytest.raises(StatusError, match="exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"):
        apply(objects, ("create", "c", "250m", False))
    apply(objects, ("end", "b", None, False))
    apply(objects, ("create", "c", "250m", False))
    await objects.store.close()
