"""The binary data extension: bytes to values and back, and what is wrong with a body."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.binary_tensors import read, split, wanted, write
from serving.errors import InvalidInput, UserCodeFailed
from serving.tensors import Tensor, parse


def request(datatype, size, shape=(1,), name="x", **changes):
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(shape),
        "parameters": {"binary_data_size": size},
        **changes,
    }


VALUES = {
    "BOOL": st.booleans(),
    "INT8": st.integers(-(2**7), 2**7 - 1),
    "INT16": st.integers(-(2**15), 2**15 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT8": st.integers(0, 2**8 - 1),
    "UINT16": st.integers(0, 2**16 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FP16": st.floats(width=16, allow_nan=False, allow_infinity=False),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BF16": st.integers(-128, 128).map(float),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"])),
}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind]))))
def test_what_is_written_is_read_again(case):
    datatype, values = case
    entry, content = write(Tensor("x", datatype, [len(values)], values))
    assert "data" not in entry
    (found,) = parse(read({"inputs": [entry]}, content))
    assert found == Tensor("x", datatype, [len(values)], values)


def test_values_are_little_endian_and_texts_have_their_length():
    body = {"inputs": [request("INT16", 4, [2], "a"), request("BYTES", 10, [2], "b"), request("BF16", 2, [1], "c")]}
    found = parse(read(body, b"\x01\x00\xff\xff" + b"\x02\x00\x00\x00hi\x00\x00\x00\x00" + b"\x80\x3f"))
    assert [tensor.data for tensor in found] == [[1, -1], ["hi", ""], [1.0]]


def test_bytes_and_lists_side_by_side():
    body = {"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [1]}, request("BOOL", 1, name="b")]}
    assert [tensor.data for tensor in parse(read(body, b"\x01"))] == [[1], [True]]


def test_nan_is_no_value_both_ways():
    (found,) = parse(read({"inputs": [request("FP64", 16, [2])]}, struct.pack("<2d", math.nan, math.inf)))
    assert found.data == [None, None]
    assert math.isnan(struct.unpack("<d", write(Tensor("y", "FP64", [1], [None]))[1])[0])


@pytest.mark.parametrize(
    ("item", "content", "said"),
    [
        (request("FP32", 8), b"\0" * 4, "binary_data_size is 8; 4 bytes are left"),
        (request("FP32", -1), b"", "binary_data_size is -1"),
        (request("FP32", True), b"\0", "binary_data_size is True"),
        (request("FP32", "4"), b"\0" * 4, "binary_data_size is 4"),
        (request("FP32", 5), b"\0" * 5, "no whole number of FP32 values"),
        (request("FP32", 4, data=[1]), b"\0" * 4, "either data or binary_data_size"),
        (request("FP32", 4), b"\0" * 6, "2 bytes behind the last binary input"),
        (request("BYTES", 5), b"\x09\0\0\0a", "value 0 is longer"),
        (request("BYTES", 5), b"\x01\0\0\0\xff", "value 0 is not UTF-8"),
        (request("FP32", 8, [1]), b"\0" * 8, "asks for 1 values, data has 2"),
        (request("FP8", 1), b"\0", "datatype is 'FP8'"),
    ],
)
def test_a_bad_body_names_the_tensor(item, content, said):
    with pytest.raises(InvalidInput) as caught:
        parse(read({"inputs": [item]}, content))
    assert said in str(caught.value)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [[], {}, {"inputs": 1}, {"inputs": [1]}, {"inputs": [{"parameters": 1}]}])
def test_what_is_no_request_is_left_to_who_reads_it(body):
    assert read(body, b"") is body


def test_the_header_tells_where_the_json_ends():
    assert split(b"{}ab", None) == (b"{}ab", b"")
    assert split(b"{}ab", "2") == (b"{}", b"ab")
    for bad in ("5", "-1", "x", "", "٣"):
        with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
            split(b"{}ab", bad)


def test_which_outputs_are_bytes():
    assert not wanted({}, "x")
    assert wanted({"parameters": {"binary_data_output": True}}, "x")
    by_itself = {"outputs": [{"name": "x", "parameters": {"binary_data": False}}]}
    assert not wanted({"parameters": {"binary_data_output": True}, **by_itself}, "x")
    assert wanted({"parameters": {"binary_data_output": True}, **by_itself}, "y")
    assert not wanted({"parameters": 1, "outputs": [1, {"name": "x", "parameters": 2}]}, "x")


def test_a_value_that_does_not_fit_its_datatype_is_said():
    with pytest.raises(UserCodeFailed, match="Output 'y'"):
        write(Tensor("y", "INT64", [1], [2**70]))
