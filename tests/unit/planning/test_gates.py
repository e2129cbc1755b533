"""Sending pods with GPUs to their nodes."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from deployments.planning.gates import Drop, Open, Yield, steps, yields
from kube.state import Pod

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def pod(name: str, **more: object) -> Pod:
    return Pod(uid=name, name=name, created=NOW, **more)  # type: ignore[arg-type]


def test_gated_pods_go_to_the_places_that_nobody_of_the_version_uses() -> None:
    pods = [pod("old", node="n1"), pod("new", gated=True), pod("more", gated=True)]
    assert steps(["n1", "n2"], pods) == [Open("new", "n2")]


def test_a_place_is_free_again_while_its_pod_ends() -> None:
    pods = [pod("old", node="n1", deleting=True), pod("new", gated=True)]
    assert steps(["n1"], pods) == [Open("new", "n1")]


def test_a_pod_on_its_way_keeps_its_place_and_one_whose_place_is_lost_is_dropped() -> None:
    assert steps(["n1"], [pod("sent", assigned="n1"), pod("new", gated=True)]) == []
    assert steps(["n2"], [pod("sent", assigned="n1"), pod("new", gated=True)]) == [Drop("sent"), Open("new", "n2")]


def test_pods_that_were_never_gated_are_left_alone() -> None:
    assert steps(["n1"], [pod("plain")]) == []


def test_those_whose_place_is_lost_go_first() -> None:
    pods = [pod("kept", node="n1"), pod("lost", node="n2"), pod("told", node="n3", yields=True)]
    assert yields(["n1"], pods) == [Yield("lost")]


POD = st.builds(
    pod,
    st.uuids().map(str),
    node=st.sampled_from(["", "n1", "n2", "n3"]),
    assigned=st.sampled_from(["", "n1", "n2"]),
    gated=st.booleans(),
    deleting=st.booleans(),
)


@given(st.lists(st.sampled_from(["n1", "n2", "n3"]), max_size=6), st.lists(POD, max_size=8))
def test_no_more_pods_are_sent_to_a_node_than_places_are_held_there(nodes: list[str], pods: list[Pod]) -> None:
    alive = [one for one in pods if not one.deleting]
    done = steps(nodes, pods)
    dropped = {step.pod for step in done if isinstance(step, Drop)}
    for name in set(nodes):
        sent = [step for step in done if isinstance(step, Open) and step.node == name]
        going = [
            one for one in alive if not one.node and not one.gated and one.assigned == name and one.name not in dropped
        ]
        there = [one for one in alive if one.node == name]
        assert len(sent) + len(going) + len(there) <= max(nodes.count(name), len(there))
