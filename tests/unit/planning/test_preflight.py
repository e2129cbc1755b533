"""Will it fit? Quota, nodes, the roomiest slice, and the advice that follows."""

import pytest

from deployments.planning.preflight import Ceiling, Need, Slice, judge

SMALL = Need(1, 512)
EMPTY = Need(4, 8192, 2)


def node(name: str, cpu: float, memory: float, gpus: int = 0) -> Slice:
    return Slice(name, Need(cpu, memory, gpus), EMPTY)


def test_what_fits_names_its_nodes_price_and_wait():
    verdict = judge(SMALL, 3, [node("a", 2, 4096), node("b", 1.5, 600), node("c", 0.5, 9000)], start_seconds=4, price=2)
    assert verdict.fits is True
    assert (verdict.instances_now, verdict.nodes_now) == (3, ("a", "b"))
    assert (verdict.wait_seconds, verdict.price_hour) == (4, 6)
    assert verdict.largest_free == {"cpu": 0.5, "memory": 9000, "accelerators": 0}
    assert verdict.reasons == verdict.advice == ()


def test_several_on_one_node_count_as_many_as_its_scarcest_part_allows():
    assert judge(Need(0.5, 1000), 9, [node("a", 4, 3500)]).instances_now == 3


def test_too_little_room_tells_the_roomiest_slice_and_no_wait():
    verdict = judge(Need(1, 512, 2), 1, [node("a", 4, 8000, 1), node("b", 4, 9000)], start_seconds=4)
    assert verdict.fits is False
    assert verdict.within_quota
    assert verdict.wait_seconds is None
    assert "0 of 1 would find a place now" in verdict.reasons[0]
    assert "1 GPU free" in verdict.reasons[0]
    assert "smaller instance type" in verdict.advice[0]


def test_what_no_empty_node_holds_will_never_fit():
    verdict = judge(Need(64, 512), 1, [node("a", 4, 8000)])
    assert verdict.reasons == ("No node is large enough for 64 CPU, even when it is empty.",)


def test_a_selector_that_leaves_no_node_is_told():
    verdict = judge(SMALL, 1, [], nodes=3)
    assert "Of 3 nodes in the cluster none is of the kind" in verdict.reasons[0]
    assert "1 of 3 in the cluster are not ready" in judge(SMALL, 1, [], nodes=3, away=1).reasons[0]


@pytest.mark.parametrize(("used", "within"), [(2, True), (2.5, False)])
def test_quota_counts_what_others_use(used: float, within: bool):
    verdict = judge(SMALL, 2, [node("a", 4, 8000)], [Ceiling("cpu", 4, used)])
    assert verdict.within_quota is verdict.fits is within
    if not within:
        assert verdict.reasons == ("The project's quota leaves 1.5 CPU of 4 CPU; 2 x this instance type takes 2 CPU.",)


def test_nothing_is_claimed_about_a_cluster_that_does_not_answer():
    assert judge(SMALL, 1, None).fits is None
    assert judge(SMALL, 1, None, [Ceiling("cpu", 0, 0)]).fits is False


def test_claims_in_the_queue_are_told_for_accelerators_only():
    gpu = judge(Need(1, 512, 1), 1, [node("a", 4, 8000, 1)], waiting=2)
    assert gpu.fits is True
    assert "2 claims wait" in gpu.reasons[0]
    assert judge(SMALL, 1, [node("a", 4, 8000)], waiting=2).reasons == ()
