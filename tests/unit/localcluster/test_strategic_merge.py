"""Strategic merge patch, JSON patch and merge patch of the embedded API server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster.apiserver import patches, schema
from localcluster.apiserver.status import StatusError

POD = schema.of_kind("", "v1", "Pod")
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
VALUES = st.sampled_from(["1", "2", "3"])
ENV = st.dictionaries(NAMES, VALUES, max_size=5).map(lambda found: [{"name": k, "value": v} for k, v in found.items()])


def pod(env: list[dict[str, Any]]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", "image": "x", "env": env}]}}


def env_of(obj: dict[str, Any]) -> list[dict[str, Any]]:
    return obj["spec"]["containers"][0]["env"]


def merged(target: Any, patch: Any) -> Any:
    return patches.strategic_merge(POD, target, patch)


def test_new_entries_land_before_old_ones_that_the_patch_does_not_name() -> None:
    before = pod([{"name": n, "value": "1"} for n in "ABD"])
    after = merged(before, pod([{"name": "B", "value": "2"}, {"name": "E", "value": "2"}]))
    assert [one["name"] for one in env_of(after)] == ["A", "B", "E", "D"]


def test_the_given_element_order_wins() -> None:
    before = pod([{"name": n, "value": "1"} for n in "ABC"])
    patch = pod([{"name": "C", "value": "2"}])
    patch["spec"]["containers"][0]["$setElementOrder/env"] = [{"name": "C"}, {"name": "A"}, {"name": "B"}]
    assert [one["name"] for one in env_of(merged(before, patch))] == ["C", "A", "B"]


def test_directives_delete_and_replace() -> None:
    before = pod([{"name": n, "value": "1"} for n in "ABC"])
    deleted = merged(before, pod([{"name": "B", "$patch": "delete"}]))
    assert [one["name"] for one in env_of(deleted)] == ["A", "C"]
    replaced = merged(before, pod([{"$patch": "replace"}, {"name": "Z", "value": "9"}]))
    assert env_of(replaced) == [{"name": "Z", "value": "9"}]


def test_lists_without_a_merge_key_are_replaced() -> None:
    before = {"spec": {"tolerations": [{"key": "a"}, {"key": "b"}]}}
    assert merged(before, {"spec": {"tolerations": [{"key": "c"}]}}) == {"spec": {"tolerations": [{"key": "c"}]}}


def test_retained_keys_drop_the_others() -> None:
    before = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    patch = {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "x"}}]}}
    assert merged(before, patch) == {"spec": {"volumes": [{"name": "v", "configMap": {"name": "x"}}]}}


def test_primitive_sets_merge_and_lose_members() -> None:
    before = {"metadata": {"finalizers": ["a", "b"]}}
    assert merged(before, {"metadata": {"finalizers": ["c"]}})["metadata"]["finalizers"] == ["c", "a", "b"]
    less = merged(before, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert less["metadata"]["finalizers"] == ["b"]


@pytest.mark.parametrize(
    "patch",
    [pod([{"value": "1"}]), pod([{"name": "a", "$patch": "frob"}]), {"$patch": "frob"}],
)
def test_what_cannot_be_merged_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(StatusError) as refused:
        merged(pod([]), patch)
    assert refused.value.code == 500


@given(ENV, ENV)
def test_merging_is_a_union_by_key_in_which_the_patch_wins(before: Any, patch: Any) -> None:
    found = {one["name"]: one["value"] for one in env_of(merged(pod(before), pod(patch)))}
    wanted = {one["name"]: one["value"] for one in before} | {one["name"]: one["value"] for one in patch}
    assert found == wanted


@given(ENV, ENV)
def test_merging_twice_is_merging_once(before: Any, patch: Any) -> None:
    once = merged(pod(before), pod(patch))
    assert merged(once, pod(patch)) == once


@given(ENV, ENV)
def test_unnamed_entries_keep_their_order(before: Any, patch: Any) -> None:
    named = {one["name"] for one in patch}
    order = [one["name"] for one in before if one["name"] not in named]
    after = [one["name"] for one in env_of(merged(pod(before), pod(patch))) if one["name"] not in named]
    assert after == order


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=2), JSON, max_size=4), st.dictionaries(st.text(max_size=2), JSON, max_size=4))
def test_a_merge_patch_is_idempotent_and_leaves_no_nulls_of_its_own(target: Any, patch: Any) -> None:
    once = patches.merge_patch(target, patch)
    assert patches.merge_patch(once, patch) == once
    assert all(key not in once for key, value in patch.items() if value is None)


@given(st.lists(st.integers(), max_size=5), st.integers(), st.data())
def test_a_json_patch_can_be_undone(items: list[int], value: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items)))
    added = patches.json_patch({"l": items}, [{"op": "add", "path": f"/l/{index}", "value": value}])
    assert added["l"][index] == value
    assert patches.json_patch(added, [{"op": "remove", "path": f"/l/{index}"}]) == {"l": items}


def test_a_failed_test_refuses_the_whole_json_patch() -> None:
    with pytest.raises(StatusError) as refused:
        patches.json_patch(
            {"a": 1}, [{"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 2}]
        )
    assert refused.value.code == 422
