"""What must hold for every pass, on random clusters, quotas and queues."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scheduling.admission import run_pass
from deployments.scheduling.blockers import find_blockers
from deployments.scheduling.claims import AdmissionPolicy, Claim, Flavor, PassResult, Running, Snapshot
from deployments.scheduling.quota import Owner, Quota, QuotaTree
from deployments.scheduling.shapes import NodeSpec, Shape
from tests.unit.scheduling import UNTIMED

GPU = 1000
PROJECTS = ("p", "q", "r")

shapes = st.builds(
    Shape,
    st.integers(0, 4).map(lambda n: n * 1000),
    st.just(1024),
    st.sampled_from([1, 1, 2, 4]),
    st.just(GPU),
) | st.builds(Shape, st.just(1000), st.just(1024), st.just(1), st.sampled_from([250, 500]))
limits = st.none() | st.none() | st.integers(0, 4).map(lambda n: n * GPU)
quotas = st.builds(Quota, st.integers(0, 4).map(lambda n: n * GPU), limits, limits)


@st.composite
def policies(draw) -> AdmissionPolicy:
    """Project p and q in a team, r beside it, all below one root."""
    owners = (
        Owner("root", None, {"gpu": draw(quotas)}),
        Owner("team", "root", {"gpu": draw(quotas)}),
        *(
            Owner(name, parent, {"gpu": draw(quotas)}, draw(st.sampled_from([0, 1, 2])))
            for name, parent in (("p", "team"), ("q", "team"), ("r", "root"))
        ),
    )
    return AdmissionPolicy(
        owners,
        (Flavor("gpu"),),
        min_run_seconds=draw(st.sampled_from([0.0, 10.0])),
        hold_after=draw(st.sampled_from([5.0, 1e9])),
    )


@st.composite
def snapshots(draw, with_nodes: bool = True) -> Snapshot:
    """A cluster whose running claims got in by passes over an emptier queue, so that the state can really occur."""
    policy = draw(policies())
    nodes = tuple(
        NodeSpec(f"n{n}", draw(st.sampled_from([6000, 32_000])), 65_536, draw(st.sampled_from([2, 4, 8])))
        for n in range(draw(st.integers(1, 4)))
    )
    claims = [
        Claim(
            f"c{n:02}",
            draw(st.sampled_from(PROJECTS)),
            draw(shapes),
            draw(st.sampled_from([1, 1, 1, 2])),
            ("gpu",),
            draw(st.integers(0, 3)),
            float(draw(st.integers(0, 20))),
        )
        for n in range(draw(st.integers(4, 16)))
    ]
    earlier = draw(st.integers(len(claims) // 2, len(claims) - 1))
    first = tuple(replace(claim, priority=claim.priority // 3) for claim in claims[:earlier])
    start = Snapshot(0.0, policy, first, nodes=nodes if with_nodes else None)
    granted = run_pass(start).granted
    running = tuple(
        Running(g.claim, g.flavor, float(draw(st.integers(0, 25))), g.placements, draw(st.booleans())) for g in granted
    )
    held = {r.claim.id for r in running}
    return replace(start, now=30.0, running=running, waiting=tuple(c for c in claims if c.id not in held))


def after(snapshot: Snapshot, outcome: PassResult) -> list[Running]:
    """What runs once the outcome has been carried out."""
    gone = {e.running.claim.id for e in outcome.evictions}
    started = [Running(g.claim, g.flavor, snapshot.now, g.placements) for g in [*outcome.granted, *outcome.reserved]]
    return [r for r in snapshot.running if r.claim.id not in gone] + started


def books(snapshot: Snapshot, running: list[Running]) -> QuotaTree:
    tree = QuotaTree(snapshot.policy.owners)
    for one in running:
        tree.take(one.claim.project, one.flavor, one.claim.demand)
    return tree


@given(snapshots())
@settings(UNTIMED, max_examples=60)
def test_every_claim_gets_exactly_one_answer_and_the_same_one_again(snapshot):
    outcome = run_pass(snapshot)
    answers = [g.claim.id for g in [*outcome.granted, *outcome.reserved]]
    answers += [e.claim.id for e in [*outcome.waiting, *outcome.refused]]
    assert sorted(answers) == sorted(c.id for c in snapshot.waiting)
    assert all(e.code and e.sentence for e in [*outcome.waiting, *outcome.refused])
    assert run_pass(snapshot) == outcome
    shuffled = replace(snapshot, waiting=tuple(reversed(snapshot.waiting)), running=tuple(reversed(snapshot.running)))
    assert run_pass(shuffled) == outcome


@given(snapshots())
@settings(UNTIMED, max_examples=60)
def test_no_node_and_no_device_is_over_committed(snapshot):
    cpu, memory, gpu = Counter(), Counter(), Counter()
    for running in after(snapshot, run_pass(snapshot)):
        assert len(running.placements) == running.claim.count
        for placement in running.placements:
            cpu[placement.node] += placement.shape.cpu_milli
            memory[placement.node] += placement.shape.memory_mib
            assert len(set(placement.devices)) == placement.shape.gpus
            for device in placement.devices:
                gpu[placement.node, device] += placement.shape.gpu_milli
    for index, node in enumerate(snapshot.nodes):
        assert cpu[index] <= node.cpu_milli
        assert memory[index] <= node.memory_mib
        assert all(gpu[index, device] <= GPU for device in range(node.gpus))
    assert all(device < snapshot.nodes[node].gpus for node, device in gpu)


@given(snapshots())
@settings(UNTIMED, max_examples=60)
def test_quota_is_held(snapshot):
    """Whoever got something is within every limit above it afterwards."""
    outcome = run_pass(snapshot)
    tree = books(snapshot, after(snapshot, outcome))
    for grant in [*outcome.granted, *outcome.reserved]:
        for owner in tree.path(grant.claim.project):
            assert tree.available(owner, "gpu") >= 0
            assert tree.use(owner, "gpu") <= tree.potential(owner, "gpu")


@given(snapshots())
@settings(UNTIMED, max_examples=100)
def test_evictions_keep_guarantees_priorities_budgets_and_run_time(snapshot):
    outcome = run_pass(snapshot)
    tree = books(snapshot, after(snapshot, outcome))
    before = books(snapshot, list(snapshot.running))
    beneficiaries = {g.claim.id for g in outcome.reserved}
    for eviction in outcome.evictions:
        victim, winner = eviction.running, eviction.beneficiary
        assert winner.id in beneficiaries
        assert victim.evictable
        assert snapshot.now - victim.started >= snapshot.policy.min_run_seconds
        if victim.claim.project == winner.project:
            assert victim.claim.priority < winner.priority
            continue
        # What the project got later in the pass may be borrowed again; the winner itself was within its quota.
        own = [e for e in outcome.evictions if e.running.claim.project == e.beneficiary.project == winner.project]
        use = before.use(winner.project, "gpu") - sum(e.running.claim.demand for e in own)
        assert use + winner.demand <= tree.subtree_quota(winner.project, "gpu")
        kept = min(before.use(victim.claim.project, "gpu"), tree.subtree_quota(victim.claim.project, "gpu"))
        own = [e for e in outcome.evictions if e.running.claim.project == e.beneficiary.project]
        lowered = sum(e.running.claim.demand for e in own if e.running.claim.project == victim.claim.project)
        assert tree.use(victim.claim.project, "gpu") >= kept - lowered


@given(snapshots(), st.integers(0, 5))
@settings(UNTIMED, max_examples=40)
def test_claims_do_not_evict_each_other_in_turn(snapshot, moves):
    """Carry out pass after pass without anybody finishing: evictions come to an end."""
    snapshot = replace(
        snapshot,
        policy=replace(snapshot.policy, min_run_seconds=0.0),
        running=tuple(replace(r, evictable=True) for r in snapshot.running),
    )
    total = len(snapshot.running) + len(snapshot.waiting)
    reserved = {}
    for _ in range(4 * total + 4):
        outcome = run_pass(replace(snapshot, reserved=reserved))
        if not outcome.evictions and not outcome.granted:
            return
        gone = {e.running.claim.id for e in outcome.evictions}
        back = [r.claim for r in snapshot.running if r.claim.id in gone]
        granted = {g.claim.id for g in outcome.granted}
        reserved = {g.claim.id: g for g in outcome.reserved}
        snapshot = replace(
            snapshot,
            now=snapshot.now + 1,
            running=(
                *(r for r in snapshot.running if r.claim.id not in gone),
                *(Running(g.claim, g.flavor, snapshot.now, g.placements) for g in outcome.granted),
            ),
            waiting=(*(c for c in snapshot.waiting if c.id not in granted), *back),
        )
    raise AssertionError("still evicting")


@given(snapshots())
@settings(UNTIMED, max_examples=25)
def test_without_its_named_blockers_a_waiting_claim_is_placed(snapshot):
    outcome = run_pass(snapshot)
    for explanation in outcome.waiting[:3]:
        found = find_blockers(snapshot, explanation.claim.id)
        gone = {r.claim.id for r in found.running} | {c.id for c in found.waiting}
        again = run_pass(
            replace(
                snapshot,
                running=tuple(r for r in snapshot.running if r.claim.id not in gone),
                waiting=tuple(c for c in snapshot.waiting if c.id not in gone),
            )
        )
        placed = {g.claim.id for g in [*again.granted, *again.reserved]}
        assert found.placeable == (explanation.claim.id in placed)
        assert found.placeable, "what can never run is refused, not left waiting"


@given(snapshots())
@settings(UNTIMED, max_examples=60)
def test_positions_follow_the_order_of_the_queue(snapshot):
    waiting = run_pass(snapshot).waiting
    assert [e.position for e in waiting] == list(range(1, len(waiting) + 1))
    assert [e.ahead_demand for e in waiting] == [sum(e.claim.demand for e in waiting[:n]) for n in range(len(waiting))]
