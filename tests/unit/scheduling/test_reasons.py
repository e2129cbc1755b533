"""The reason a waiting claim is told is the one that holds it up, and the change that is proposed places it."""

import re
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.scheduling.admission import run_pass
from deployments.scheduling.blockers import find_blockers
from deployments.scheduling.claims import AdmissionPolicy, Claim, Explanation, FairSharing, Flavor, Snapshot
from deployments.scheduling.quota import Owner, Quota, QuotaTree
from deployments.scheduling.shapes import NodeSpec, Shape
from tests.unit.scheduling import UNTIMED

GPU = 1000


@st.composite
def snapshots(draw, rule: FairSharing = FairSharing.OFF, waits: tuple[float, ...] = (0.0, 1e6)) -> Snapshot:
    """Two flavors, two projects, and a queue; ``waits`` are those before the second flavor."""
    amounts = st.integers(0, 6).map(lambda n: n * GPU)
    quotas = st.fixed_dictionaries({"a": st.builds(Quota, amounts), "b": st.builds(Quota, amounts)})
    owners = (Owner("all", None, draw(quotas)), Owner("p", "all", draw(quotas)), Owner("q", "all", draw(quotas)))
    flavors = (Flavor("a", frozenset("A")), Flavor("b", frozenset("B")))
    policy = AdmissionPolicy(owners, flavors, reclaim=rule != FairSharing.OFF, fair_sharing=rule, hold_after=1e9)
    nodes = tuple(
        NodeSpec(f"{model}{n}", draw(st.sampled_from([4000, 16_000])), 65_536, draw(st.sampled_from([2, 4])), model)
        for model in "AB"
        for n in range(2)
    )
    claims = tuple(
        Claim(
            f"c{n}",
            draw(st.sampled_from("pq")),
            Shape(draw(st.sampled_from([1000, 3000])), 1024, draw(st.sampled_from([1, 2, 3]))),
            draw(st.sampled_from([1, 1, 2])),
            draw(st.sampled_from([("a",), ("b",), ("a", "b")])),
            created=float(n),
            fallback_after=draw(st.sampled_from(waits)),
        )
        for n in range(draw(st.integers(3, 10)))
    )
    return Snapshot(100.0, policy, claims, nodes=nodes)


def served(snapshot: Snapshot) -> set[str]:
    outcome = run_pass(snapshot)
    return {grant.claim.id for grant in [*outcome.granted, *outcome.reserved]}


def with_(snapshot: Snapshot, claim: Claim) -> Snapshot:
    """The snapshot with a claim in place of the one of the same id."""
    return replace(snapshot, waiting=tuple(claim if one.id == claim.id else one for one in snapshot.waiting))


@given(snapshots())
@settings(UNTIMED, max_examples=200)
def test_the_code_names_what_is_short(snapshot):
    """Counted by hand from what was granted: quota, GPUs in all, GPUs on one node, CPU there. Who was short of one when
    its turn came may be short of another too, once those behind it had theirs."""
    outcome = run_pass(snapshot)
    tree, used = QuotaTree(snapshot.policy.owners), Counter()
    for grant in outcome.granted:
        tree.take(grant.claim.project, grant.flavor, grant.claim.demand)
        for placement in grant.placements:
            shape = placement.shape
            used.update({(placement.node, "gpus"): shape.gpus, (placement.node, "cpu"): shape.cpu_milli})
    for told in outcome.waiting:
        claim, shape = told.claim, told.claim.shape
        free = [
            (node.gpus - used[number, "gpus"], node.cpu_milli - used[number, "cpu"])
            for number, node in enumerate(snapshot.nodes)
            if node.model == told.flavor.upper()
        ]
        fitting = sum(min(gpus // shape.gpus, cpu // shape.cpu_milli) for gpus, cpu in free)
        if told.code.startswith("quota"):
            assert tree.available(claim.project, told.flavor) < claim.demand
            own = tree.use(claim.project, told.flavor) + claim.demand > tree.potential(claim.project, told.flavor)
            assert told.code == ("quota-own" if own else "quota-cohort")
            continue
        assert fitting < claim.count, "nothing is short"
        if sum(gpus for gpus, _ in free) * GPU < claim.demand:
            assert told.code == "capacity"
        elif all(gpus < shape.gpus for gpus, _ in free):
            assert told.code == "fragmented"
            assert f"largest free slice on one node is {max(gpus for gpus, _ in free)} GPU" in told.sentence
        else:
            assert told.code == ("capacity" if fitting else "cpu-memory")


@given(snapshots())
@settings(UNTIMED, max_examples=150)
def test_the_change_that_is_proposed_places_the_claim(snapshot):
    for told in run_pass(snapshot).waiting:
        if told.change:
            assert told.claim.id in served(with_(snapshot, changed(told))), told.change


def changed(told: Explanation) -> Claim:
    claim, text = told.claim, told.change
    if found := re.fullmatch(r"Would start now with (\d+) of its \d+ instances\.", text):
        return replace(claim, count=int(found[1]))
    if found := re.fullmatch(r"Would start now with (\d+) GPUs? per instance\.", text):
        return replace(claim, shape=replace(claim.shape, gpus=int(found[1])))
    if found := re.fullmatch(r"Would start now on (\w+)\.", text):
        return replace(claim, flavors=(found[1],))
    assert text.startswith(f"Would start now on {claim.flavors[1]}, which it accepts later")
    return replace(claim, fallback_after=0.0)


@given(snapshots(FairSharing.FINAL_SHARE, waits=(0.0,)))
@settings(UNTIMED, max_examples=30)
def test_removing_the_named_blockers_places_it_where_borrowers_displace_each_other(snapshot):
    for told in run_pass(snapshot).waiting[:2]:
        found = find_blockers(snapshot, told.claim.id)
        gone = {one.claim.id for one in found.running} | {one.id for one in found.waiting}
        assert found.placeable
        assert told.claim.id in served(
            replace(snapshot, waiting=tuple(claim for claim in snapshot.waiting if claim.id not in gone))
        )
