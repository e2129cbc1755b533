"""Tensors of the Open Inference Protocol to fields and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.tensors import Tensor, from_result, from_value, parse, to_fields


def tensor(**changes):
    return {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1, 2], **changes}]}


def test_a_request_is_read():
    assert parse(tensor()) == [Tensor("x", "FP64", [2], [1, 2])]
    assert parse(tensor(shape=[1, 2], data=[[1, 2]]))[0].data == [1, 2]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "'inputs' is missing"),
        ({"inputs": []}, "'inputs' is missing"),
        ({"inputs": [1]}, "inputs[0] is not an object"),
        (tensor(name=""), "inputs[0].name"),
        (tensor(datatype="FLOAT"), "datatype is 'FLOAT'"),
        (tensor(shape=[-1]), "shape"),
        (tensor(shape=[True]), "shape"),
        (tensor(shape=[3]), "asks for 3 values, data has 2"),
        (tensor(data=None), "data is missing"),
        (tensor(data=["a", "b"]), '"a" is not a value of datatype FP64'),
        (tensor(datatype="INT64", data=[1.5, 2]), "1.5 is not a value of datatype INT64"),
        (tensor(datatype="BOOL", data=[1, 0]), "1 is not a value of datatype BOOL"),
        ({"inputs": tensor()["inputs"] * 2}, "two tensors of the same name"),
    ],
)
def test_a_bad_request_names_the_tensor(body, said):
    with pytest.raises(InvalidInput) as caught:
        parse(body)
    assert said in str(caught.value)
    assert caught.value.status == 400


def test_one_value_becomes_a_scalar_unless_its_field_is_a_list():
    one, row, text = (
        Tensor("a", "FP64", [1], [1.5]),
        Tensor("b", "FP64", [1, 2], [1, 2]),
        Tensor("c", "BYTES", [1], ["{}"]),
    )
    assert to_fields([one, row], {}) == {"a": 1.5, "b": [[1, 2]]}
    assert to_fields([one], {"a": "array_double"}) == {"a": [1.5]}
    assert to_fields([Tensor("a", "INT64", [1, 1], [3])], {"a": "int"}) == {"a": 3}
    assert to_fields([text], {"c": "dict"}) == {"c": {}}


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        (1.5, "FP64", [1], [1.5]),
        (True, "BOOL", [1], [True]),
        ([1, 2], "INT64", [2], [1, 2]),
        ([[1, 2.5], [3, 4]], "FP64", [2, 2], [1.0, 2.5, 3.0, 4.0]),
        (["a", "b"], "BYTES", [2], ["a", "b"]),
        ([1, "a"], "BYTES", [2], ["1", "a"]),
        ({"a": 1}, "BYTES", [1], ['{"a": 1}']),
        ([[1], [1, 2]], "BYTES", [2], ["[1]", "[1, 2]"]),
        ([], "FP64", [0], []),
    ],
)
def test_results_become_tensors(value, datatype, shape, data):
    assert from_value("y", value) == Tensor("y", datatype, shape, data)


def test_fields_of_a_result_are_outputs():
    assert [item.name for item in from_result({"a": 1, "b": 2})] == ["a", "b"]
    assert [item.name for item in from_result(3)] == ["result"]


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4).flatmap(
        lambda shape: st.lists(st.integers(-5, 5), min_size=math.prod(shape), max_size=math.prod(shape)).map(
            lambda data: (shape, data)
        )
    )
)
def test_nesting_and_flattening_are_inverse(case):
    shape, data = case
    there = Tensor("x", "INT64", shape, data)
    assert from_value("x", there.nested()) == there
