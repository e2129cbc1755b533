"""Arithmetic of rollouts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster.controllers import rollout

Object = dict[str, Any]


def deployment(
    replicas: int, surge: int | str = "25%", unavailable: int | str = "25%", kind: str = "RollingUpdate"
) -> Object:
    strategy: Object = {"type": kind}
    if kind == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"metadata": {"name": "d"}, "spec": {"replicas": replicas, "strategy": strategy}, "status": {}}


def replica_set(name: str, replicas: int, available: int = 0, **annotations: str) -> Object:
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": f"2026-01-01T00:00:{len(name):02d}Z",
            "annotations": annotations,
        },
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": available, "replicas": replicas},
    }


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (4, "25%", "25%", (1, 1)),
        (3, "25%", "25%", (1, 0)),
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (5, 0, 0, (0, 1)),
        (10, 2, "10%", (2, 1)),
        (0, "25%", "25%", (0, 1)),
    ],
)
def test_fenceposts(replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]) -> None:
    assert rollout.fenceposts(deployment(replicas, surge, unavailable)) == expected


def test_recreate_has_no_surge() -> None:
    body = deployment(4, kind="Recreate")
    assert rollout.max_surge(body) == 0
    assert rollout.size_annotations(body)[rollout.MAXIMUM] == "4"


def test_first_steps_of_a_rolling_update_at_four() -> None:
    """As recorded: new 0 to 1, old 4 to 3, new 1 to 2."""
    body = deployment(4)
    old, new = replica_set("old", 4, 4), replica_set("newer", 0)
    assert rollout.new_replicas(body, [old, new], new) == 1
    new = replica_set("newer", 1)
    assert [(rs["metadata"]["name"], size) for rs, size in rollout.plan_scale_down(body, new, [old])] == [("old", 3)]
    old = replica_set("old", 3, 3)
    assert rollout.new_replicas(body, [old, new], new) == 2


def test_unhealthy_old_replicas_go_first() -> None:
    body = deployment(10, 5, 2)
    sick, well, new = replica_set("a", 4, 1), replica_set("bb", 6, 6), replica_set("ccc", 5, 0)
    plan = {rs["metadata"]["name"]: size for rs, size in rollout.plan_scale_down(body, new, [sick, well])}
    assert plan == {"a": 2}
    # Nothing that is available may go: 7 of at least 8 are.


@given(
    wanted=st.integers(1, 20),
    surge=st.integers(0, 10),
    unavailable=st.integers(0, 10),
    share=st.lists(st.booleans(), min_size=1, max_size=400),
)
def test_a_rolling_update_never_leaves_its_bounds_and_ends(
    wanted: int, surge: int, unavailable: int, share: list[bool]
) -> None:
    body = deployment(wanted, surge, unavailable)
    most, least = wanted + rollout.max_surge(body), wanted - rollout.max_unavailable(body)
    old, new = replica_set("old", wanted, wanted), replica_set("newer", 0, 0)
    luck = iter(share * 60)
    for _ in range(20_000):
        size = rollout.new_replicas(body, [old, new], new)
        if size != new["spec"]["replicas"]:
            new["spec"]["replicas"] = size
        else:
            for rs, smaller in rollout.plan_scale_down(body, new, [old]):
                rs["spec"]["replicas"] = smaller
                rs["status"]["availableReplicas"] = min(rs["status"]["availableReplicas"], smaller)
        assert old["spec"]["replicas"] + new["spec"]["replicas"] <= most
        assert old["status"]["availableReplicas"] + new["status"]["availableReplicas"] >= least
        if new["status"]["availableReplicas"] < new["spec"]["replicas"] and next(luck, True):
            new["status"]["availableReplicas"] += 1
        if new["status"]["availableReplicas"] == wanted and old["spec"]["replicas"] == 0:
            return
    raise AssertionError("the rollout does not end")


def test_proportional_scaling_shares_by_size() -> None:
    """The documented example: 10 replicas at 13 pods (8 old, 5 new) scaled to 15."""
    body = deployment(15, 3, 2)
    noted = {rollout.DESIRED: "10", rollout.MAXIMUM: "13"}
    old, new = replica_set("old", 8, 8, **noted), replica_set("newer", 5, 0, **noted)
    sizes = {rs["metadata"]["name"]: size for rs, size in rollout.proportional_sizes(body, [old, new])}
    assert sizes == {"old": 11, "newer": 7}


@given(
    before=st.integers(1, 30),
    after=st.integers(0, 40),
    parts=st.lists(st.integers(1, 12), min_size=2, max_size=5),
)
def test_proportional_scaling_adds_up(before: int, after: int, parts: list[int]) -> None:
    body = deployment(after, 2, 1)
    sets = [
        replica_set("n" * (i + 1), size, 0, **{rollout.DESIRED: str(before), rollout.MAXIMUM: str(sum(parts))})
        for i, size in enumerate(parts)
    ]
    sizes = rollout.proportional_sizes(body, sets)
    allowed = after + rollout.max_surge(body) if after else 0
    assert sum(size for _, size in sizes) == allowed
    assert all(size >= 0 for _, size in sizes)


def test_revision_history() -> None:
    body = {"metadata": {"annotations": {"team": "a", "kubectl.kubernetes.io/last-applied-configuration": "x"}}}
    first = rollout.revise_annotations(body, {}, 1)
    assert first == {"team": "a", rollout.REVISION: "1"}
    again = rollout.revise_annotations(body, first, 3)
    assert again[rollout.REVISION] == "3"
    assert again[rollout.REVISION_HISTORY] == "1"
    assert rollout.revise_annotations(body, again, 4)[rollout.REVISION_HISTORY] == "1,3"
    assert rollout.revise_annotations(body, again, 2) == again


def test_template_hash_is_stable_and_ignores_its_own_label() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}
    digest = rollout.template_hash(template)
    labelled = {"metadata": {"labels": {"a": "b", rollout.HASH_LABEL: digest}}, "spec": template["spec"]}
    assert rollout.template_hash(labelled) == digest
    assert rollout.bare_template(labelled) == rollout.bare_template(template)
    assert rollout.template_hash(template, 1) != digest
    assert not set(digest) & set("aeiou013")


def test_active_or_latest() -> None:
    a, b = replica_set("a", 0), replica_set("bb", 0)
    assert rollout.active_or_latest(None, []) is None
    assert rollout.active_or_latest(None, [a, b]) is b
    assert rollout.active_or_latest(b, [a]) is b
    a["spec"]["replicas"] = 2
    assert rollout.active_or_latest(b, [a]) is a
    b["spec"]["replicas"] = 1
    assert rollout.active_or_latest(b, [a]) is None
