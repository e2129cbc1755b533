"""The admission pass: order, all or nothing, refusals, evictions, reservations, explanations."""

from dataclasses import replace

import pytest

from deployments.scheduling.admission import run_pass
from deployments.scheduling.blockers import find_blockers
from deployments.scheduling.claims import AdmissionPolicy, Claim, Flavor, Running, Snapshot
from deployments.scheduling.fleet import Placement
from deployments.scheduling.quota import Owner, Quota
from deployments.scheduling.shapes import NodeSpec, PlannerInputError, Shape

GPU = 1000
ONE, TWO, FOUR = (Shape(1000, 1024, n) for n in (1, 2, 4))


def policy(**changes) -> AdmissionPolicy:
    """Two projects with 4 GPUs each in one cohort."""
    quota = {"a100": Quota(4 * GPU), "t4": Quota(4 * GPU)}
    owners = (Owner("all"), Owner("search", "all", quota), Owner("ads", "all", quota))
    flavors = (Flavor("a100", frozenset({"A100"})), Flavor("t4", frozenset({"T4"})))
    return AdmissionPolicy(owners, flavors, **changes)


def nodes(count: int, gpus: int = 4, model: str = "A100") -> tuple[NodeSpec, ...]:
    return tuple(NodeSpec(f"{model}-{n}", 64_000, 65_536, gpus, model) for n in range(count))


def claim(name: str, project: str = "search", shape: Shape = ONE, **more) -> Claim:
    return Claim(name, project, shape, flavors=more.pop("flavors", ("a100",)), **more)


def running(what: Claim, node: int = 0, devices: tuple[int, ...] = (0,), started: float = 0.0, **more) -> Running:
    placements = tuple(
        Placement(node, devices[i * what.shape.gpus : (i + 1) * what.shape.gpus], what.shape) for i in range(what.count)
    )
    return Running(what, what.flavors[0], started, placements, **more)


def snapshot(waiting, running_=(), on=None, **more) -> Snapshot:
    return Snapshot(
        more.pop("now", 100.0), more.pop("policy", policy()), tuple(waiting), tuple(running_), nodes=on, **more
    )


def granted(outcome) -> list[str]:
    return [grant.claim.id for grant in outcome.granted]


def test_priority_then_age_decide_within_a_project():
    waiting = [
        claim("late", created=3, shape=FOUR),
        claim("early", created=1, shape=FOUR),
        claim("urgent", created=5, shape=FOUR, priority=10),
    ]
    assert granted(run_pass(snapshot(waiting))) == ["urgent", "early"]


def test_who_borrows_less_goes_first():
    waiting = [claim(f"s{n}", created=n) for n in range(8)] + [claim("ads", "ads", created=50)]
    order = granted(run_pass(snapshot(waiting)))
    assert order.index("ads") <= 4, "within its quota ads does not wait behind borrowers"
    assert len(order) == 8, "the cohort's 8 GPUs are all used"


def test_past_use_makes_a_borrower_wait_behind_another():
    held = [running(claim("a", shape=FOUR)), running(claim("b", "ads", FOUR))]
    quota = {"a100": Quota(4 * GPU)}
    owners = (
        Owner("all", None, {"a100": Quota(2 * GPU)}),
        Owner("search", "all", quota),
        Owner("ads", "all", quota),
    )
    extra = [
        claim("s1", created=1),
        claim("s2", created=1),
        claim("d1", "ads", created=2),
        claim("d2", "ads", created=2),
    ]
    rules = replace(policy(), owners=owners)
    assert granted(run_pass(snapshot(extra, held, policy=rules))) == ["s1", "d1"]
    heavy = {"search": rules.decay.steady(100_000.0)}
    assert granted(run_pass(snapshot(extra, held, policy=rules, past_use=heavy))) == ["d1", "d2"]


def test_all_instances_or_none():
    waiting = [claim("three", shape=TWO, count=3, created=1), claim("one", created=2)]
    outcome = run_pass(snapshot(waiting, on=nodes(1, gpus=5) + nodes(1, gpus=1, model="T4")))
    assert [e.code for e in outcome.refused] == ["too-many"]
    assert granted(outcome) == ["one"]


def test_a_claim_larger_than_any_node_is_refused_with_the_largest_possible():
    outcome = run_pass(snapshot([claim("big", shape=Shape(1000, 1024, 8))], on=nodes(3)))
    (refused,) = outcome.refused
    assert refused.code == "too-large"
    assert "largest possible on a100 is 4 GPUs, 64 CPUs, 64 GiB" in refused.sentence


@pytest.mark.parametrize(
    ("wish", "code", "says"),
    [
        (claim("x", "nobody"), "no-quota", "nobody"),
        (claim("x", flavors=("h100",)), "unknown-flavor", "Known: a100, t4"),
        (claim("x", flavors=("t4",)), "no-node", "t4"),
        (claim("x", shape=ONE, count=9), "over-quota", "at most 8 GPUs"),
        (claim("x", shape=Shape(99_000, 1, 1)), "too-large", "99 CPUs"),
    ],
)
def test_what_can_never_run_is_refused_at_once(wish, code, says):
    (refused,) = run_pass(snapshot([wish], on=nodes(3))).refused
    assert refused.code == code
    assert says in refused.sentence


def test_the_next_flavor_is_taken_once_the_claim_has_waited():
    on = nodes(1) + nodes(1, model="T4")
    full = [running(claim("held", shape=FOUR), devices=(0, 1, 2, 3))]
    wish = claim("flexible", flavors=("a100", "t4"), created=90.0, fallback_after=60.0)
    (waiting,) = run_pass(snapshot([wish], full, on)).waiting
    assert "Would start now on t4" in waiting.change
    (grant,) = run_pass(snapshot([wish], full, on, now=150.0)).granted
    assert (grant.flavor, grant.placements[0].node) == ("t4", 1)


def test_foreign_pods_and_vanished_nodes_are_respected():
    foreign = (Placement(0, (0, 1, 2), Shape(0, 0, 3)),)
    lost = running(claim("lost"), node=7)
    outcome = run_pass(snapshot([claim("two", shape=TWO), claim("one")], [lost], nodes(1), foreign=foreign))
    assert granted(outcome) == ["one"]
    assert outcome.granted[0].placements[0].devices == (3,)


def test_a_node_that_holds_more_than_the_books_allow_gets_nothing_more():
    twice = [running(claim("a"), devices=(0,)), running(claim("b"), devices=(0,))]
    outcome = run_pass(snapshot([claim("new")], twice, nodes(2)))
    assert outcome.granted[0].placements[0].node == 1


def test_spread_out_gpus_are_named_as_the_reason():
    on = nodes(3, gpus=2)
    held = [running(claim(f"r{n}", "ads"), node=n) for n in range(3)]
    (waiting,) = run_pass(snapshot([claim("pair", shape=TWO)], held, on, policy=policy(reclaim=False))).waiting
    assert waiting.code == "fragmented"
    assert "0 of 3 nodes fit now" in waiting.sentence
    assert "largest free slice on one node is 1 GPU" in waiting.sentence
    assert "Would start now with 1 GPU per instance" in waiting.change


def test_used_up_cpu_is_named_as_the_reason():
    hungry = claim("hungry", "ads", Shape(63_500, 1, 1))
    (waiting,) = run_pass(snapshot([claim("next")], [running(hungry)], nodes(1), policy=policy(reclaim=False))).waiting
    assert waiting.code == "cpu-memory"


def test_own_quota_and_the_cohorts_quota_are_told_apart():
    rules = policy()
    limited = replace(
        rules, owners=(*rules.owners[:1], Owner("search", "all", {"a100": Quota(4 * GPU, 0)}), rules.owners[2])
    )
    held = [running(claim("own", shape=FOUR))]
    (waiting,) = run_pass(snapshot([claim("more")], held, policy=limited)).waiting
    assert waiting.code == "quota-own"
    assert "uses 4 GPUs of the 4 GPUs" in waiting.sentence
    held.append(running(claim("others", "ads", FOUR)))
    (waiting,) = run_pass(snapshot([claim("more")], held)).waiting
    assert waiting.code == "quota-cohort"


def test_positions_and_who_is_ahead():
    held = [running(claim("s", shape=FOUR)), running(claim("a", "ads", FOUR))]
    waiting = [replace(claim(f"w{n}", created=n), name=f"ranker-{n}") for n in range(6)]
    outcome = run_pass(snapshot(waiting, [replace(r, claim=replace(r.claim, expected_seconds=40.0)) for r in held]))
    assert [e.position for e in outcome.waiting] == [1, 2, 3, 4, 5, 6]
    last = outcome.waiting[-1]
    assert last.ahead[0] == "'ranker-0' (project search)"
    assert (last.ahead_count, last.ahead_demand) == (5, 5 * GPU)
    assert "Waiting behind 'ranker-0' (project search)" in last.sentence
    assert "and 2 more (5 GPUs)" in last.sentence
    waits = [e.expected_wait for e in outcome.waiting]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx((1 + 1) * GPU / (8 * GPU / 40.0))


def test_within_a_project_only_a_lower_priority_gives_way():
    held = [
        running(claim("batch", shape=TWO, priority=1), devices=(0, 1)),
        running(claim("web", shape=TWO, priority=5), devices=(2, 3)),
    ]
    outcome = run_pass(snapshot([claim("live", shape=TWO, priority=5)], held, nodes(1)))
    assert [e.running.claim.id for e in outcome.evictions] == ["batch"]
    assert "priority 5 is above 1" in outcome.evictions[0].reason
    assert outcome.reserved[0].placements[0].devices == (0, 1)
    again = run_pass(snapshot([claim("live", shape=TWO, priority=1)], held, nodes(1)))
    assert not again.evictions
    assert not run_pass(
        snapshot([claim("live", shape=TWO, priority=5)], held, nodes(1), policy=policy(preempt_within_project=False))
    ).evictions


def test_own_quota_is_taken_back_from_borrowers():
    held = [running(claim(f"b{n}", "ads"), devices=(n,), started=n) for n in range(8)]
    on = nodes(1, gpus=8)
    outcome = run_pass(snapshot([claim("mine", shape=TWO)], held, on))
    assert sorted(e.running.claim.id for e in outcome.evictions) == ["b6", "b7"], "the youngest lose least"
    assert "its own quota back" in outcome.evictions[0].reason
    assert not run_pass(snapshot([claim("mine", shape=TWO)], held, on, policy=policy(reclaim=False))).evictions


def test_nobody_is_pushed_below_its_own_quota():
    held = [running(claim("five", "ads", Shape(1000, 1024, 5)), devices=(0, 1, 2, 3, 4))]
    outcome = run_pass(snapshot([claim("mine", shape=FOUR)], held, nodes(1, gpus=8)))
    assert not outcome.evictions
    assert [e.code for e in outcome.waiting] == ["quota-cohort"]


def test_who_would_borrow_cannot_take_back():
    held = [running(claim("s", shape=FOUR)), running(claim("a", "ads", FOUR))]
    assert not run_pass(snapshot([claim("more")], held)).evictions


@pytest.mark.parametrize("change", [{"started": 95.0}, {"evictable": False}])
def test_minimum_run_time_and_disruption_budgets_are_respected(change):
    held = [running(claim("batch", shape=FOUR, priority=1), devices=(0, 1, 2, 3), **change)]
    outcome = run_pass(
        snapshot([claim("live", shape=FOUR, priority=5)], held, nodes(1), policy=policy(min_run_seconds=10.0))
    )
    assert not outcome.evictions
    assert [e.claim.id for e in outcome.waiting] == ["live"]


def test_gpus_are_freed_where_the_claim_fits():
    """Eight one-GPU victims, two to a node: only two on the same node help, not the two youngest."""
    rules = replace(policy(), owners=(Owner("search", None, {"a100": Quota(16 * GPU)}),))
    held = [
        running(claim(f"n{node}-{device}"), node, (device,), started=10.0 * ((node + 2 * device) % 4))
        for node in range(4)
        for device in range(2)
    ]
    wish = claim("pair", shape=TWO, priority=9)
    outcome = run_pass(snapshot([wish], held, nodes(4, gpus=2), policy=rules))
    victims = {e.running.placements[0].node for e in outcome.evictions}
    assert len(outcome.evictions) == 2
    assert len(victims) == 1
    assert victims == {outcome.reserved[0].placements[0].node}


def test_victims_that_need_not_go_stay():
    held = [
        running(claim("one", priority=1), devices=(0,), started=50.0),
        running(claim("three", priority=1, shape=Shape(1000, 1024, 3)), devices=(1, 2, 3), started=40.0),
    ]
    wish = claim("wants-three", shape=Shape(1000, 1024, 3), priority=5)
    outcome = run_pass(snapshot([wish], held, nodes(1)))
    assert [e.running.claim.id for e in outcome.evictions] == ["three"]


def test_a_place_made_for_a_claim_is_not_taken_by_others():
    held = [running(claim("batch", shape=FOUR, priority=1), devices=(0, 1, 2, 3))]
    wish = claim("live", shape=FOUR, priority=5)
    first = run_pass(snapshot([wish], held, nodes(1)))
    leaving = [replace(held[0], evicted_for="live")]
    quick = claim("quick", priority=99)
    reserved = {"live": first.reserved[0]}
    second = run_pass(snapshot([wish, quick], leaving, nodes(1), reserved=reserved))
    assert [g.claim.id for g in second.reserved] == ["live"]
    assert granted(second) == []
    assert not second.evictions
    third = run_pass(snapshot([wish, quick], [], nodes(1), reserved=reserved))
    assert granted(third) == ["live"]


def test_a_reservation_on_a_node_that_is_gone_goes_back_to_the_queue():
    wish = claim("live", shape=FOUR)
    first = run_pass(snapshot([wish], [], nodes(2)))
    reserved = {"live": replace(first.granted[0], placements=(Placement(9, (0, 1, 2, 3), FOUR),))}
    assert granted(run_pass(snapshot([wish], [], nodes(2), reserved=reserved))) == ["live"]


def test_after_long_waiting_nobody_slips_past():
    rules = policy(hold_after=50.0, reclaim=False)
    held = [running(claim("ads-1", "ads"), devices=(0,))]
    large = claim("large", shape=FOUR, created=10.0)
    small = claim("small", "ads", created=90.0)
    patient = run_pass(snapshot([large, small], held, nodes(1), policy=rules, now=40.0))
    assert granted(patient) == ["small"]
    outcome = run_pass(snapshot([large, small], held, nodes(1), policy=rules))
    assert granted(outcome) == []
    free_again = run_pass(snapshot([large, small], [], nodes(1), policy=rules))
    assert granted(free_again) == ["large"]


def test_blockers_are_those_without_whom_it_starts():
    on = nodes(2, gpus=2)
    held = [running(claim("left", "ads"), 0), running(claim("right", "ads", TWO), 1, (0, 1))]
    wish = claim("pair", shape=TWO)
    state = snapshot([wish], held, on, policy=policy(reclaim=False))
    found = find_blockers(state, "pair")
    assert [r.claim.id for r in found.running] == ["left"]
    assert found.placeable
    assert find_blockers(replace(state, running=()), "pair").running == ()
    never = find_blockers(snapshot([claim("huge", count=99)], held, on), "huge")
    assert not never.placeable
    with pytest.raises(PlannerInputError, match="not waiting"):
        find_blockers(state, "nobody")


def test_blockers_name_those_ahead_in_the_queue():
    on = nodes(1, gpus=2)
    held = [running(claim("runs", "ads", TWO), devices=(0, 1))]
    waiting = [claim("first", shape=TWO, created=1), claim("second", shape=TWO, created=2)]
    found = find_blockers(snapshot(waiting, held, on, policy=policy(reclaim=False)), "second")
    assert [r.claim.id for r in found.running] == ["runs"]
    assert [c.id for c in found.waiting] == ["first"]


def test_blockers_are_still_enough_when_passes_run_out():
    rules = replace(policy(reclaim=False), owners=(Owner("search", None, {"a100": Quota(40 * GPU)}),))
    held = [running(claim(f"r{n:02}"), node=n // 4, devices=(n % 4,)) for n in range(40)]
    state = snapshot([claim("wide", shape=FOUR, count=9)], held, nodes(10), policy=rules)
    some = find_blockers(state, "wide", max_passes=8)
    assert not some.minimal
    gone = {r.claim.id for r in some.running}
    left = tuple(r for r in held if r.claim.id not in gone)
    assert granted(run_pass(replace(state, running=left))) == ["wide"]
    assert len(find_blockers(state, "wide", max_passes=500).running) == 36


def test_a_quota_lowered_below_use_admits_nobody_and_stops_nobody():
    quota = {"a100": Quota(1 * GPU)}
    rules = replace(policy(), owners=(Owner("search", None, quota),))
    held = [running(claim("held", shape=FOUR), devices=(0, 1, 2, 3))]
    outcome = run_pass(snapshot([claim("next")], held, nodes(2), policy=rules))
    assert not outcome.evictions
    assert [e.code for e in outcome.waiting] == ["quota-own"]


@pytest.mark.parametrize(("count", "field"), [(0, "count"), (-1, "count"), (1.5, "count")])
def test_nonsense_counts_are_refused(count, field):
    with pytest.raises(PlannerInputError) as caught:
        claim("x", count=count)
    assert caught.value.field == field


def test_a_claim_needs_a_flavor():
    with pytest.raises(PlannerInputError, match="flavors"):
        claim("x", flavors=())
