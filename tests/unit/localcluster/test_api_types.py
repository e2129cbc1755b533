"""Types, quantities, selectors and bodies of the embedded API server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster import quantity
from localcluster.apiserver import protobuf, schema, selectors
from localcluster.apiserver.codec import duplicates
from localcluster.apiserver.status import StatusError
from localcluster.apiserver.tables import duration


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1000m", "1"),
        ("0", "0"),
        ("1e3", "1e3"),
        ("1000000", "1M"),
        ("100k", "100k"),
        ("0.5Gi", "512Mi"),
    ],
)
def test_quantities_have_one_notation(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical
    assert quantity.parse(canonical) == quantity.parse(text)


@given(st.integers(0, 10**15), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_the_canonical_notation_keeps_the_value_and_is_stable(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert quantity.parse(quantity.canonical(text)) == quantity.parse(text)
    assert quantity.canonical(quantity.canonical(text)) == quantity.canonical(text)


@pytest.mark.parametrize("text", ["abc", "", "1 Gi", "1KiB", "--1"])
def test_other_texts_are_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        quantity.parse(text)


def test_decoding_reports_unknown_fields_and_drops_what_go_leaves_out() -> None:
    kind = schema.of_kind("", "v1", "Pod")
    pod = {"spec": {"hostNetwork": False, "frob": 1, "nodeSelector": {}, "containers": [{"name": "a", "x": None}]}}
    obj, unknown = schema.decode(kind, pod)
    assert obj == {"spec": {"containers": [{"name": "a"}]}}
    assert unknown == ["spec.frob", "spec.containers[0].x"]


def test_a_wrong_type_names_field_and_types() -> None:
    kind = schema.of_kind("apps", "v1", "Deployment")
    with pytest.raises(
        schema.DecodeError, match=r"string into Go struct field DeploymentSpec\.spec\.replicas of type int32"
    ):
        schema.decode(kind, {"spec": {"replicas": "three"}})


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("a=1", {"a": "1"}, True),
        ("a!=1", {}, True),
        ("a in (1, 2),!b", {"a": "2"}, True),
        ("a in (1,2),!b", {"a": "2", "b": ""}, False),
        ("a notin (1)", {"a": "1"}, False),
        ("a", {"a": ""}, True),
        ("n>3", {"n": "4"}, True),
        ("n>3", {"n": "x"}, False),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], matches: bool) -> None:
    test = selectors.labels(selector)
    assert test is not None
    assert test(labels) is matches


@pytest.mark.parametrize("selector", ["a in", "a in (1", "=", "a b", "a=b=c"])
def test_malformed_selectors_are_refused(selector: str) -> None:
    with pytest.raises(StatusError) as refused:
        selectors.labels(selector)
    assert refused.value.code == 400


def test_repeated_keys_are_found_with_their_paths() -> None:
    raw = b'{"data":{"a":"1","a":"2"},"l":[{"b":1,"b":1}]}'
    assert duplicates(raw, {"data": {"a": "2"}, "l": [{"b": 1}]}) == ["data.a", "l[0].b"]
    assert duplicates(b'{"a": {"b": 1}}', {"a": {"b": 1}}) == []


def test_a_protobuf_body_is_read_by_the_same_types() -> None:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    metadata = field(1, b"s") + field(11, field(1, b"k") + field(2, b"v"))
    secret = field(1, metadata) + field(2, field(1, b"key") + field(2, b"\x00\x01")) + field(3, b"Opaque")
    body = b"k8s\x00" + field(1, field(1, b"v1") + field(2, b"Secret")) + field(2, secret)
    found = protobuf.load(body, schema.of_kind("", "v1", "Secret"))
    assert found == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "labels": {"k": "v"}},
        "data": {"key": "AAE="},
        "type": "Opaque",
    }


@given(st.binary(max_size=60))
def test_garbage_is_refused_as_protobuf(body: bytes) -> None:
    try:
        found = protobuf.load(b"k8s\x00" + body, schema.of_kind("", "v1", "Pod"))
    except ValueError:
        return
    assert set(found) >= {"kind", "apiVersion"}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5s"), (119, "119s"), (192, "3m12s"), (2520, "42m"), (19800, "5h30m"), (273600, "3d4h")]
)
def test_ages_are_short(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown
