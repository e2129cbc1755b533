"""What the planner advises: moves, rollouts, and what another policy would have done."""

from dataclasses import replace

import pytest

from deployments.scheduling import what_if
from deployments.scheduling.claims import AdmissionPolicy, Claim, Flavor, Running, Snapshot
from deployments.scheduling.defrag import advise
from deployments.scheduling.fleet import Fleet, Placement
from deployments.scheduling.quota import Owner, Quota
from deployments.scheduling.rollout import plan_rollout
from deployments.scheduling.shapes import NodeSpec, PlannerInputError, Shape
from deployments.scheduling.what_if import Job, replay

GPU = 1000
ONE, TWO = Shape(1000, 1024, 1), Shape(1000, 1024, 2)
POLICY = AdmissionPolicy(
    (
        Owner("all"),
        Owner("p", "all", {"gpu": Quota(8 * GPU)}),
        Owner("q", "all", {"gpu": Quota(8 * GPU)}),
    ),
    (Flavor("gpu"),),
)


def nodes(count: int, gpus: int) -> tuple[NodeSpec, ...]:
    return tuple(NodeSpec(f"n{n}", 64_000, 65_536, gpus, "A") for n in range(count))


def run(name: str, shape: Shape, *places: tuple[int, tuple[int, ...]], **more) -> Running:
    claim = Claim(name, "p", shape, max(1, len(places)), ("gpu",))
    return Running(claim, "gpu", 0.0, tuple(Placement(node, held, shape) for node, held in places), **more)


def state(*running: Running, on: tuple[NodeSpec, ...], **more) -> Snapshot:
    return Snapshot(100.0, POLICY, (), running, nodes=on, **more)


def test_moves_free_the_largest_slice_with_the_fewest_moves():
    on = nodes(3, 4)
    held = [run("a", ONE, (0, (0,))), run("b", ONE, (1, (0,))), run("c", ONE, (1, (1,))), run("d", TWO, (2, (0, 1)))]
    advice = advise(state(*held, on=on), "gpu")
    assert (advice.slice_before, advice.slice_after) == (3, 4)
    assert [move.running.claim.id for move in advice.moves] == ["a"]
    fleet = Fleet(on)
    moved = {id(m.origin): m.target for m in advice.moves}
    for running in held:
        for placement in running.placements:
            fleet.occupy(moved.get(id(placement), placement))
    assert fleet.devices(advice.node) == (GPU,) * 4


def test_no_advice_when_nothing_gets_better_or_nobody_may_move():
    on = nodes(2, 2)
    assert advise(state(on=on), "gpu") is None
    full = [run("a", TWO, (0, (0, 1))), run("b", ONE, (1, (0,)))]
    assert advise(state(*full, on=on), "gpu") is None
    fixed = [run("a", ONE, (0, (0,)), evictable=False), run("b", ONE, (1, (0,)), evictable=False)]
    assert advise(state(*fixed, on=on), "gpu") is None
    free = [replace(one, evictable=True) for one in fixed]
    assert advise(state(*free, on=on), "gpu").slice_after == 2
    assert advise(state(*free, on=on), "gpu", max_moves=0) is None


@pytest.mark.parametrize(
    ("snapshot", "flavor"), [(state(on=nodes(1, 1)), "h100"), (replace(state(on=()), nodes=None), "gpu")]
)
def test_advice_about_nothing_known_is_refused(snapshot, flavor):
    with pytest.raises(PlannerInputError):
        advise(snapshot, flavor)


def test_a_rollout_surges_where_a_slice_is_free():
    plan = plan_rollout(state(run("a", ONE, (0, (0,))), on=nodes(1, 2)), run("a", ONE, (0, (0,))), ONE, 20.0)
    assert (plan.kind, plan.max_surge, plan.max_unavailable, plan.gap_seconds) == ("surge", 1, 0, 0.0)


def test_a_rollout_hands_the_only_gpu_over_and_says_for_how_long():
    alone = run("a", ONE, (0, (0,)))
    plan = plan_rollout(state(alone, on=nodes(1, 1)), alone, ONE, 20.0)
    assert (plan.kind, plan.max_surge, plan.max_unavailable, plan.gap_seconds) == ("hand-over", 0, 1, 20.0)
    assert "away for about 20 s" in plan.sentence
    pair = run("a", ONE, (0, (0,)), (0, (1,)))
    plan = plan_rollout(state(pair, on=nodes(1, 2)), pair, ONE, 20.0)
    assert "1 of 2 serve for about 40 s" in plan.sentence


def test_a_rollout_that_can_never_fit_is_blocked():
    alone = run("a", ONE, (0, (0,)))
    plan = plan_rollout(state(alone, on=nodes(2, 1)), alone, TWO, 20.0)
    assert plan.kind == "blocked"
    assert "2 GPUs" in plan.sentence


def job(name: str, project: str, seconds: float, created: float = 0.0, priority: int = 0, count: int = 8) -> Job:
    return Job(Claim(name, project, ONE, count, ("gpu",), priority, created), seconds)


def test_replay_admits_when_room_frees_and_starts_evicted_claims_over():
    jobs = [
        job("batch", "p", 100.0, count=16),
        job("own", "q", 10.0, created=30.0),
        job("late", "q", 10.0, created=31.0),
    ]
    kept = replay(replace(POLICY, reclaim=False), jobs)
    assert kept.admitted == {"batch": 0.0, "own": 100.0, "late": 100.0}
    assert kept.evictions == 0
    assert kept.makespan == 110.0
    jobs[0] = job("small", "p", 100.0, count=8)
    borrowed = [job(f"b{n}", "p", 100.0, count=1) for n in range(8)]
    taken = replay(POLICY, [jobs[0], *borrowed, *jobs[1:]])
    assert taken.admitted["own"] == 30.0
    assert taken.evictions == 8
    assert taken.lost_gpu_seconds == 8 * 30.0
    assert set(taken.finished) == {"small", "own", "late", *(b.claim.id for b in borrowed)}
    assert taken.mean_wait(jobs[1:2]) == 0.0


def test_replay_on_nodes_reports_what_can_never_run():
    outcome = replay(POLICY, [job("wide", "p", 5.0, count=5), job("fits", "p", 5.0, count=2)], nodes(1, 2))
    assert "all nodes with gpu together hold 2" in outcome.refused["wide"]
    assert outcome.finished == {"fits": 5.0}
    assert outcome.gpu_seconds == 10.0


@pytest.mark.parametrize("created", [0.1234564, 0.1234567, 1_795_511_111.1234567, 1e-9])
def test_replay_comes_to_an_end_whatever_the_fractions_of_its_times(created):
    jobs = [Job(Claim(f"c{n}", "p", ONE, 1, ("gpu",), created=created + n * 1e-7), 1 / 3) for n in range(3)]
    found = replay(POLICY, jobs, nodes(1, 1))
    assert sorted(found.finished) == ["c0", "c1", "c2"]
    assert found.makespan == pytest.approx(created + 1, abs=1e-5)


def test_a_policy_under_which_claims_displace_each_other_for_ever_is_named(monkeypatch):
    monkeypatch.setattr(what_if, "MAX_ROUNDS", 1)
    own = Claim("own", "q", Shape(1000, 1024, 8), 1, ("gpu",), created=5.0)
    jobs = [Job(Claim("lent", "p", Shape(1000, 1024, 16), 1, ("gpu",)), 10.0), Job(own, 1.0)]
    with pytest.raises(PlannerInputError, match="policy: claims still displace each other"):
        replay(
            replace(
                POLICY,
                owners=(
                    POLICY.owners[0],
                    Owner("p", "all"),
                    *POLICY.owners[2:],
                    Owner("r", "all", {"gpu": Quota(8 * GPU)}),
                ),
            ),
            jobs,
        )
