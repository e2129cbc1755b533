"""Quota follows Kueue's definitions; bad trees are refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.scheduling.fairness import UsageDecay, weighted_share
from deployments.scheduling.quota import Owner, Quota, QuotaTree
from deployments.scheduling.shapes import PlannerInputError


def tree(**limits: int) -> QuotaTree:
    """Cohort of two projects with 10 GPUs (here: units) each; limits go to the first."""
    return QuotaTree(
        [
            Owner("cohort"),
            Owner("a", "cohort", {"gpu": Quota(10, **limits)}),
            Owner("b", "cohort", {"gpu": Quota(10)}),
        ]
    )


def test_idle_quota_of_a_sibling_can_be_borrowed():
    books = tree()
    assert books.available("a", "gpu") == 20
    books.take("b", "gpu", 4)
    assert books.available("a", "gpu") == 16


def test_borrowing_limit_caps_what_is_taken_from_the_cohort():
    books = tree(borrowing_limit=3)
    assert books.available("a", "gpu") == 13
    assert books.potential("a", "gpu") == 13
    books.take("a", "gpu", 12)
    assert books.available("a", "gpu") == 1


def test_lending_limit_keeps_the_rest_for_the_owner():
    books = tree(lending_limit=4)
    assert books.guaranteed("a", "gpu") == 6
    assert books.available("b", "gpu") == 14
    books.take("b", "gpu", 14)
    assert books.available("a", "gpu") == 6
    books.take("a", "gpu", 5)
    assert books.available("a", "gpu") == 1


def test_quota_of_nested_cohorts_adds_up():
    books = QuotaTree(
        [
            Owner("root", None, {"gpu": Quota(2)}),
            Owner("team", "root", {"gpu": Quota(1, lending_limit=3)}),
            Owner("p", "team", {"gpu": Quota(4)}),
            Owner("q", "root", {"gpu": Quota(5, lending_limit=0)}),
        ]
    )
    assert books.subtree_quota("team", "gpu") == 5
    assert books.guaranteed("team", "gpu") == 2
    assert books.subtree_quota("root", "gpu") == 2 + 3
    assert books.available("p", "gpu") == 7
    assert books.available("q", "gpu") == 10


def test_use_above_a_lowered_quota_is_kept_and_shows_as_negative():
    books = QuotaTree([Owner("a", None, {"gpu": Quota(5)})])
    books.take("a", "gpu", 8)
    assert books.available("a", "gpu") == -3
    books.give_back("a", "gpu", 8)
    assert books.available("a", "gpu") == 5


@pytest.mark.parametrize(
    ("owners", "field"),
    [
        ([Owner("a", "b"), Owner("b", "a")], "parent"),
        ([Owner("a", "a")], "parent"),
        ([Owner("a", "nowhere")], "parent"),
        ([Owner("a"), Owner("a")], "owners"),
    ],
)
def test_bad_trees_are_refused(owners, field):
    with pytest.raises(PlannerInputError) as caught:
        QuotaTree(owners)
    assert caught.value.field == field


@pytest.mark.parametrize("bad", [-1, 1.5, float("nan"), float("inf"), "8", None, True])
def test_bad_amounts_are_refused(bad):
    with pytest.raises(PlannerInputError, match="nominal"):
        Quota(bad)


@pytest.mark.parametrize("bad", [-1, float("inf"), float("nan"), "1"])
def test_bad_weights_are_refused(bad):
    with pytest.raises(PlannerInputError, match="weight"):
        Owner("a", weight=bad)


amounts = st.integers(0, 30)
limits = st.none() | st.integers(0, 20)
quotas = st.builds(Quota, amounts, limits, limits)


@given(
    st.lists(quotas, min_size=4, max_size=4),
    st.lists(st.tuples(st.sampled_from(["p", "q", "r"]), amounts), max_size=8),
)
def test_giving_everything_back_restores_the_books(four, bookings):
    def make() -> QuotaTree:
        return QuotaTree(
            [
                Owner("root"),
                Owner("team", "root", {"gpu": four[0]}),
                Owner("p", "team", {"gpu": four[1]}),
                Owner("q", "team", {"gpu": four[2]}),
                Owner("r", "root", {"gpu": four[3]}),
            ]
        )

    books = make()
    before = {name: books.available(name, "gpu") for name in books.owners}
    for project, amount in bookings:
        books.take(project, "gpu", amount)
    for project, amount in reversed(bookings):
        books.give_back(project, "gpu", amount)
    assert {name: books.available(name, "gpu") for name in books.owners} == before


@given(
    st.lists(quotas, min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from(["p", "q"]), st.integers(1, 9)), max_size=12),
)
def test_taking_only_what_is_available_never_exceeds_any_limit(three, wishes):
    books = QuotaTree(
        [
            Owner("root", None, {"gpu": three[0]}),
            Owner("p", "root", {"gpu": three[1]}),
            Owner("q", "root", {"gpu": three[2]}),
        ]
    )
    for project, amount in wishes:
        if amount <= books.available(project, "gpu"):
            books.take(project, "gpu", amount)
    for name, quota in (("p", three[1]), ("q", three[2])):
        assert books.use(name, "gpu") <= books.potential(name, "gpu")
        if quota.borrowing_limit is not None:
            assert books.borrowed(name, "gpu") <= quota.borrowing_limit
    assert books.use("p", "gpu") + books.use("q", "gpu") <= sum(q.nominal for q in three)


def test_a_heavier_project_may_borrow_more_before_its_share_is_as_large():
    books = QuotaTree(
        [
            Owner("cohort", None, {"gpu": Quota(100)}),
            Owner("light", "cohort", {"gpu": Quota(10)}),
            Owner("heavy", "cohort", {"gpu": Quota(10)}, weight=2),
            Owner("never", "cohort", {"gpu": Quota(0)}, weight=0),
        ]
    )
    decay = UsageDecay()
    books.take("light", "gpu", 20)
    books.take("heavy", "gpu", 30)
    assert weighted_share(books, "heavy", decay) == weighted_share(books, "light", decay)
    assert weighted_share(books, "never", decay)[-1] == 0
    books.take("never", "gpu", 1)
    assert weighted_share(books, "never", decay)[-1] == float("inf")


def test_past_use_counts_less_as_time_passes():
    decay = UsageDecay(half_life=100, weight=1)
    past = decay.advance(0.0, 8.0, 1000.0)
    assert past == pytest.approx(decay.steady(8.0), rel=1e-2)
    assert decay.advance(past, 0.0, 100.0) == pytest.approx(past / 2)
    books = tree()
    books.take("a", "gpu", 12)
    assert weighted_share(books, "a", decay, past) > weighted_share(books, "a", decay, past / 2)
    assert weighted_share(books, "b", decay, past)[-1] == 0, "within its own quota a project's share is 0"


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan")])
def test_bad_half_life_is_refused(bad):
    with pytest.raises(PlannerInputError, match="half_life"):
        UsageDecay(half_life=bad)
