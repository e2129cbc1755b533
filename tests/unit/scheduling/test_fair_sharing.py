"""Evictions in favour of a fairer share between borrowers."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scheduling.admission import run_pass
from deployments.scheduling.claims import AdmissionPolicy, Claim, FairSharing, Flavor, Running, Snapshot
from deployments.scheduling.fairness import UsageDecay
from deployments.scheduling.fleet import Placement
from deployments.scheduling.quota import Owner, Quota, QuotaTree
from deployments.scheduling.shapes import NodeSpec, Shape
from tests.unit.scheduling import UNTIMED

GPU = 1000
FINAL, INITIAL = FairSharing.FINAL_SHARE, FairSharing.INITIAL_SHARE


def policy(rule: FairSharing = FINAL, weights: tuple[float, float] = (1, 1), own: int = 0, **more) -> AdmissionPolicy:
    """Two projects that borrow all, or all but their `own` GPUs, from a cohort with 8."""
    quota = {"gpu": Quota(own * GPU)}
    owners = (
        Owner("all", None, {"gpu": Quota((8 - 2 * own) * GPU)}),
        Owner("rich", "all", quota, weights[0]),
        Owner("poor", "all", quota, weights[1]),
    )
    return AdmissionPolicy(owners, (Flavor("gpu"),), fair_sharing=rule, **more)


def held(project: str, *sizes: int, start: int = 0) -> list[Running]:
    """Running claims of these sizes on one node, one after the other."""
    found = []
    for number, size in enumerate(sizes):
        shape = Shape(1000, 1024, size)
        devices = tuple(range(start, start + size))
        name = f"{project}-{number}"
        found.append(Running(Claim(name, project, shape, 1, ("gpu",)), "gpu", 0.0, (Placement(0, devices, shape),)))
        start += size
    return found


def wish(size: int, project: str = "poor", name: str = "wish") -> Claim:
    return Claim(name, project, Shape(1000, 1024, size), 1, ("gpu",), created=50.0)


def decide(rules: AdmissionPolicy, running: list[Running], *waiting: Claim, **more) -> dict[str, int]:
    """Devices displaced by project."""
    node = NodeSpec("n", 64_000, 65_536, 8)
    outcome = run_pass(Snapshot(100.0, rules, waiting, tuple(running), nodes=(node,), **more))
    lost: Counter[str] = Counter()
    for eviction in outcome.evictions:
        lost[eviction.running.claim.project] += eviction.running.claim.shape.gpus
    return dict(lost)


def test_a_borrower_with_less_displaces_one_with_more():
    running = held("rich", *[1] * 8)
    assert decide(policy(), running, wish(1)) == {"rich": 1}
    assert decide(policy(), running, wish(4)) == {"rich": 4}, "half for each"
    assert decide(policy(), running, wish(5)) == {}, "the claimant would have more than it leaves"
    assert decide(policy(FairSharing.OFF), running, wish(1)) == {}


def test_it_goes_by_weight():
    running = held("rich", *[1] * 8)
    assert decide(policy(weights=(1, 3)), running, wish(6)) == {"rich": 6}
    assert decide(policy(weights=(3, 1)), running, wish(2)) == {"rich": 2}
    assert decide(policy(weights=(3, 1)), running, wish(3)) == {}
    assert decide(policy(weights=(0, 1)), running, wish(8)) == {"rich": 8}, "weight 0 borrows what nobody else wants"
    assert decide(policy(weights=(1, 0)), running, wish(1)) == {}


def test_large_victims_go_only_under_the_looser_rule():
    running = held("rich", 5, 3)
    assert decide(policy(FINAL), running, wish(5)) == {}
    assert decide(policy(INITIAL), running, wish(5)) == {"rich": 5}
    assert decide(policy(INITIAL), held("rich", 8), wish(8)) == {}, "what the other has is no smaller share"


def test_the_looser_rule_takes_no_more_than_is_used():
    """Else small claims take turns with a large one: they fill what it leaves and have the larger share then."""
    assert decide(policy(INITIAL, weights=(2, 1)), held("rich", 8), wish(1)) == {}
    assert decide(policy(INITIAL), held("rich", 8), wish(4)) == {}


def test_the_looser_rule_takes_no_more_than_the_stricter_where_that_is_enough():
    assert decide(policy(INITIAL), held("rich", 5, 1, 1), wish(3)) == {"rich": 2}


def test_own_quota_is_never_taken():
    running = held("rich", *[1] * 8)
    assert decide(policy(own=2), running, wish(6)) == {}
    assert decide(policy(own=2), running, wish(4)) == {"rich": 4}
    assert decide(policy(own=2, reclaim=False), running, wish(2)) == {"rich": 2}, "who borrows nothing has least"
    assert decide(policy(INITIAL, own=2), held("rich", 4, 4), wish(3)) == {"rich": 4}
    assert decide(policy(INITIAL, own=2), held("rich", 7, 1), wish(3)) == {}, "1 left would be less than its own 2"


def test_the_owner_is_told_why():
    node = NodeSpec("n", 64_000, 65_536, 8)
    outcome = run_pass(Snapshot(100.0, policy(), (wish(1),), tuple(held("rich", *[1] * 8)), nodes=(node,)))
    assert "project poor has borrowed less than its fair share" in outcome.evictions[0].reason
    assert [grant.claim.id for grant in outcome.reserved] == ["wish"]


def test_past_use_forbids_and_never_invites():
    rules = policy(decay=UsageDecay(half_life=3600.0, weight=1.0))
    running = held("rich", *[1] * 8)
    steady = rules.decay.steady(8 * GPU)
    assert decide(rules, running, wish(4), past_use={"poor": steady}) == {}
    even = held("rich", *[1] * 4) + held("poor", *[1] * 4, start=4)
    assert decide(rules, even, wish(1), past_use={"rich": 10 * steady}) == {}


def test_minimum_run_time_and_disruption_budgets_hold():
    running = held("rich", *[1] * 8)
    assert decide(policy(min_run_seconds=200.0), running, wish(1)) == {}
    assert decide(policy(), [replace(one, evictable=False) for one in running], wish(1)) == {}


def test_cohorts_compare_where_they_part():
    """Teams share evenly, however their projects do."""
    owners = (
        Owner("all", None, {"gpu": Quota(8 * GPU)}),
        *(Owner(team, "all") for team in ("left", "right")),
        Owner("l1", "left"),
        Owner("r1", "right"),
        Owner("r2", "right"),
    )
    rules = AdmissionPolicy(owners, (Flavor("gpu"),), fair_sharing=FINAL)
    running = held("r1", 1, 1, 1, 1) + held("r2", 1, 1, 1, start=4) + held("l1", 1, start=7)
    assert decide(rules, running, wish(3, "l1")) == {"r1": 3}
    assert decide(rules, running, wish(4, "l1")) == {}
    even = held("r1", 1, 1, 1, 1) + held("l1", 1, 1, 1, 1, start=4)
    assert decide(rules, even, wish(1, "r2")) == {"r1": 1}, "within its own team, the other teams aside"


def test_a_share_that_another_flavor_makes_does_not_swing_back():
    """Both borrow as much of b; taking a from each other would change neither's dominant share."""
    owners = (
        Owner("all", None, {"a": Quota(1 * GPU), "b": Quota(8 * GPU)}),
        Owner("rich", "all"),
        Owner("poor", "all"),
    )
    rules = AdmissionPolicy(owners, (Flavor("a"), Flavor("b")), fair_sharing=FINAL)
    shape = Shape(1000, 1024, 4)
    running = [Running(Claim(f"{name}-b", name, shape, 1, ("b",)), "b", 0.0) for name in ("rich", "poor")]
    one = Claim("rich-a", "rich", Shape(1000, 1024, 1), 1, ("a",))
    other = replace(one, id="poor-a", project="poor")
    outcome = run_pass(Snapshot(100.0, rules, (other,), (*running, Running(one, "a", 0.0))))
    assert not outcome.evictions


@pytest.mark.parametrize(("sizes", "gone"), [((3,), 0), ((1, 1, 1), 1)])
def test_a_share_in_another_flavor_is_no_reason_to_take_all_of_this_one(sizes: tuple[int, ...], gone: int):
    owners = (
        Owner("all", None, {"a": Quota(3 * GPU), "b": Quota(8 * GPU)}),
        Owner("rich", "all"),
        Owner("poor", "all"),
    )
    rules = AdmissionPolicy(owners, (Flavor("a"), Flavor("b")), fair_sharing=FINAL)

    def claim(name: str, size: int, flavor: str) -> Claim:
        return Claim(name, name.partition("-")[0], Shape(1000, 1024, size), 1, (flavor,))

    running = [Running(claim("rich-b", 8, "b"), "b", 0.0)]
    running += [Running(claim(f"rich-{n}", size, "a"), "a", 0.0) for n, size in enumerate(sizes)]
    outcome = run_pass(Snapshot(100.0, rules, (claim("poor", 1, "a"),), tuple(running)))
    assert len(outcome.evictions) == gone


# -- properties ---------------------------------------------------------------------------------------------

PROJECTS = ("p", "q", "r")
sizes = st.sampled_from([1, 1, 2, 3, 4])
limits = st.none() | st.integers(0, 4).map(lambda n: n * GPU)
quotas = st.dictionaries(
    st.sampled_from(["a", "b"]), st.builds(Quota, st.integers(0, 3).map(lambda n: n * GPU), limits, limits), max_size=2
)


@st.composite
def worlds(draw) -> Snapshot:
    """Projects that borrow from each other on two flavors, and what passes before admitted."""
    owners = (
        Owner("root", None, {"a": Quota(draw(st.integers(0, 6)) * GPU), "b": Quota(draw(st.integers(0, 6)) * GPU)}),
        Owner("team", "root", draw(quotas)),
        *(
            Owner(name, parent, draw(quotas), draw(st.sampled_from([0, 0.5, 1, 1, 2])))
            for name, parent in (("p", "team"), ("q", "team"), ("r", "root"))
        ),
    )
    rules = AdmissionPolicy(
        owners,
        (Flavor("a", frozenset("A")), Flavor("b", frozenset("B"))),
        fair_sharing=draw(st.sampled_from([FINAL, INITIAL])),
    )
    nodes = tuple(
        NodeSpec(f"{model}{n}", 64_000, 65_536, draw(st.sampled_from([2, 4, 8])), model)
        for model in "AB"
        for n in range(2)
    )
    claims = [
        Claim(
            f"c{n:02}",
            draw(st.sampled_from(PROJECTS)),
            Shape(1000, 1024, draw(sizes)),
            draw(st.sampled_from([1, 1, 2])),
            draw(st.sampled_from([("a",), ("b",), ("a", "b")])),
            draw(st.integers(0, 2)),
            float(draw(st.integers(0, 20))),
        )
        for n in range(draw(st.integers(3, 14)))
    ]
    early = draw(st.integers(1, len(claims)))
    start = Snapshot(0.0, replace(rules, fair_sharing=FairSharing.OFF), tuple(claims[:early]), nodes=nodes)
    running = tuple(
        Running(g.claim, g.flavor, float(draw(st.integers(0, 25))), g.placements) for g in run_pass(start).granted
    )
    got = {one.claim.id for one in running}
    past = {name: draw(st.sampled_from([0.0, 1e7, 1e9])) for name in PROJECTS}
    return replace(
        start,
        now=30.0,
        policy=rules,
        running=running,
        waiting=tuple(c for c in claims if c.id not in got),
        past_use=past,
    )


def weighed(tree: QuotaTree, project: str) -> dict[str, float]:
    """Shares of the project and its cohorts over their weights, by hand."""
    found = {}
    for name, share in zip(tree.path(project), tree.shares(project), strict=True):
        weight = tree.owners[name].weight
        found[name] = 0.0 if share == 0 else share / weight if weight else float("inf")
    return found


def books(snapshot: Snapshot, running: list[Running]) -> QuotaTree:
    tree = QuotaTree(snapshot.policy.owners)
    for one in running:
        tree.take(one.claim.project, one.flavor, one.claim.demand)
    return tree


@given(worlds())
@settings(UNTIMED, max_examples=150)
def test_victims_keep_their_quota_and_the_larger_share(snapshot):
    """One claim asks, so that nothing else changes the books."""
    for claim in snapshot.waiting[:4]:
        outcome = run_pass(replace(snapshot, waiting=(claim,)))
        gone = {one.running.claim.id for one in outcome.evictions}
        before = books(snapshot, list(snapshot.running))
        left = [one for one in snapshot.running if one.claim.id not in gone]
        grants = [*outcome.granted, *outcome.reserved]
        after = books(snapshot, [*left, *(Running(g.claim, g.flavor, 30.0) for g in grants)])
        for eviction in outcome.evictions:
            victim, flavor = eviction.running.claim, eviction.running.flavor
            if victim.project == claim.project:
                assert victim.priority < claim.priority
                continue
            common = next(owner for owner in after.path(victim.project) if owner in after.path(claim.project))
            theirs = after.path(victim.project)[: after.path(victim.project).index(common)]
            for owner in theirs:
                assert after.use(owner, flavor) >= after.subtree_quota(owner, flavor), "below its guarantee"
            path = after.path(claim.project)
            if all(after.use(owner, flavor) <= after.subtree_quota(owner, flavor) for owner in path[:-1]):
                continue  # own quota taken back
            mine = path[path.index(common) - 1]
            assert weighed(after, claim.project)[mine] < weighed(before, victim.project)[theirs[-1]]
            if snapshot.policy.fair_sharing is FINAL and after.owners[theirs[-1]].weight:
                assert weighed(after, claim.project)[mine] <= weighed(after, victim.project)[theirs[-1]]


@given(worlds())
@settings(UNTIMED, max_examples=150)
def test_borrowers_do_not_displace_each_other_in_turn(snapshot):
    """Pass after pass, with use that fades and grows on the way, and nobody ending: evictions come to an end."""
    decay = snapshot.policy.decay
    past = dict(snapshot.past_use)
    reserved = {}
    for _ in range(6 * (len(snapshot.running) + len(snapshot.waiting)) + 6):
        outcome = run_pass(replace(snapshot, reserved=reserved, past_use=past))
        if not outcome.evictions and not outcome.granted:
            return
        gone = {one.running.claim.id for one in outcome.evictions}
        granted = {grant.claim.id for grant in outcome.granted}
        reserved = {grant.claim.id: grant for grant in outcome.reserved}
        back = [one.claim for one in snapshot.running if one.claim.id in gone]
        running = (
            *(one for one in snapshot.running if one.claim.id not in gone),
            *(Running(grant.claim, grant.flavor, snapshot.now, grant.placements) for grant in outcome.granted),
        )
        use = Counter(dict.fromkeys(PROJECTS, 0))
        for one in running:
            use[one.claim.project] += one.claim.demand
        past = {name: decay.advance(past[name], use[name], 20_000.0) for name in PROJECTS}
        snapshot = replace(
            snapshot,
            now=snapshot.now + 20_000.0,
            running=running,
            waiting=(*(claim for claim in snapshot.waiting if claim.id not in granted), *back),
            policy=replace(snapshot.policy, hold_after=1e12),
        )
    raise AssertionError("still displacing")


@pytest.mark.parametrize("rule", [FINAL, INITIAL])
def test_in_the_end_borrowers_have_even_shares(rule):
    running, waiting = held("rich", *[1] * 8), [wish(1, name=f"w{n}") for n in range(8)]
    node = NodeSpec("n", 64_000, 65_536, 8)
    reserved = {}
    for step in range(30):
        outcome = run_pass(
            Snapshot(100.0 + step, policy(rule), tuple(waiting), tuple(running), nodes=(node,), reserved=reserved)
        )
        gone = {one.running.claim.id for one in outcome.evictions}
        started = {grant.claim.id for grant in outcome.granted}
        reserved = {grant.claim.id: grant for grant in outcome.reserved}
        waiting = [claim for claim in waiting if claim.id not in started]
        waiting += [one.claim for one in running if one.claim.id in gone]
        running = [one for one in running if one.claim.id not in gone]
        running += [Running(grant.claim, grant.flavor, 100.0 + step, grant.placements) for grant in outcome.granted]
    assert Counter(one.claim.project for one in running) == {"rich": 4, "poor": 4}
