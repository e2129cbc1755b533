"""Server-side apply and managedFields of the embedded API server."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster.apiserver import fieldset, managed, schema
from localcluster.apiserver.managed import Manager
from localcluster.apiserver.status import StatusError

CONFIG_MAP = schema.of_kind("", "v1", "ConfigMap")
DEPLOYMENT = schema.of_kind("apps", "v1", "Deployment")
DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4)
PATHS = st.lists(st.tuples(*[st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}'])] * 3), max_size=6)


def config(data: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "c"}, "data": dict(data)}


def apply(live: Any, data: dict[str, str], who: str, *, force: bool = False) -> Any:
    return managed.applied(CONFIG_MAP, live, config(data), Manager(who, "Apply", "v1"), force, ())


def owners(obj: Any) -> dict[str, set[str]]:
    """Data keys by the manager that owns them."""
    found = {}
    for entry in obj["metadata"]["managedFields"]:
        found[entry["manager"]] = {key[2:] for key in entry["fieldsV1"].get("f:data", {}) if key != "."}
    return found


def test_a_field_that_is_no_longer_applied_goes() -> None:
    live = apply({}, {"a": "1", "b": "2"}, "one")
    assert apply(live, {"a": "1"}, "one")["data"] == {"a": "1"}


def test_a_field_that_somebody_else_owns_too_stays() -> None:
    live = apply(apply({}, {"a": "1", "b": "2"}, "one"), {"b": "2"}, "two")
    after = apply(live, {"a": "1"}, "one")
    assert after["data"] == {"a": "1", "b": "2"}
    assert owners(after) == {"one": {"a"}, "two": {"b"}}


def test_a_conflict_names_field_and_owner_and_force_takes_over() -> None:
    live = apply({}, {"a": "1"}, "one")
    with pytest.raises(StatusError) as refused:
        apply(live, {"a": "2"}, "two")
    assert refused.value.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    after = apply(live, {"a": "2"}, "two", force=True)
    assert after["data"] == {"a": "2"}
    assert owners(after) == {"one": set(), "two": {"a"}} or owners(after) == {"two": {"a"}}


def test_items_of_keyed_lists_are_owned_one_by_one() -> None:
    def deployment(*containers: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": list(containers)}}}}

    def run(live: Any, wanted: Any, who: str) -> Any:
        return managed.applied(DEPLOYMENT, live, wanted, Manager(who, "Apply", "apps/v1"), False, managed.RESET_MAIN)

    live = run({}, deployment({"name": "a", "image": "x"}), "one")
    both = run(live, deployment({"name": "b", "image": "y"}), "two")
    assert [one["name"] for one in both["spec"]["template"]["spec"]["containers"]] == ["a", "b"]
    after = run(both, {"metadata": {"name": "d"}}, "two")
    assert [one["name"] for one in after["spec"]["template"]["spec"]["containers"]] == ["a"]


def test_an_update_takes_the_changed_fields_from_their_owner() -> None:
    live = apply({}, {"a": "1", "b": "1"}, "one")
    new = copy.deepcopy(live)
    new["data"]["a"] = "9"
    managed.updated(CONFIG_MAP, live, new, Manager("editor", "Update", "v1"), ())
    assert owners(new) == {"one": {"b"}, "editor": {"a"}}


@given(DATA, DATA)
def test_one_manager_gets_exactly_what_it_applies(first: dict[str, str], second: dict[str, str]) -> None:
    after = apply(apply({}, first, "one"), second, "one")
    assert (after.get("data") or {}) == second


@given(DATA, DATA)
def test_applying_again_changes_nothing(first: dict[str, str], second: dict[str, str]) -> None:
    once = apply(apply({}, first, "one"), second, "two", force=True)
    assert apply(once, second, "two") == once


@given(DATA, DATA, DATA)
def test_forced_applies_leave_each_value_with_its_last_writer(a: Any, b: Any, c: Any) -> None:
    live: Any = {}
    for who, data in (("one", a), ("two", b), ("three", c)):
        live = apply(live, data, who, force=True)
        assert all(live["data"][key] == value for key, value in data.items())
        assert data.keys() <= owners(live).get(who, set()) | (set() if data else {""})
    assert set(live.get("data") or {}) == a.keys() | b.keys() | c.keys()


@given(PATHS, PATHS)
def test_a_path_set_holds_what_was_put_in_and_not_taken_out(inside: list[Any], outside: list[Any]) -> None:
    trie: dict[str, Any] = {}
    for path in inside:
        fieldset.insert(trie, path)
    for path in outside:
        fieldset.remove(trie, path)
    assert set(fieldset.paths(trie)) == set(inside) - set(outside)


@given(DATA, DATA)
def test_a_difference_leads_from_one_object_to_the_other(before: dict[str, str], after: dict[str, str]) -> None:
    found = fieldset.compare(CONFIG_MAP, config(before), config(after))
    added = {path[1][2:] for path in found.added if len(path) == 2}
    removed = {path[1][2:] for path in found.removed if len(path) == 2}
    modified = {path[1][2:] for path in found.modified if len(path) == 2}
    assert added == after.keys() - before.keys()
    assert removed == before.keys() - after.keys()
    assert modified == {key for key in before.keys() & after.keys() if before[key] != after[key]}
