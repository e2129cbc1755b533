"""Values that data scientists return, as JSON."""

import dataclasses
import datetime
import decimal
import enum
import json
import uuid

import numpy as np
import pytest

from serving.errors import InvalidInput, UserCodeFailed
from serving.serialize import dumps, loads


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float


class NAType:
    """As pandas.NA looks to a serializer."""


class NaT(datetime.datetime):
    """pandas.NaT: a datetime that equals nothing, not even itself."""

    __hash__ = datetime.datetime.__hash__

    def __eq__(self, other):
        return False


class Frame:
    """As much of a pandas DataFrame as is looked at."""

    columns = ("a",)

    def to_dict(self, orient):
        assert orient == "records"
        return [{"a": np.int64(1)}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.0, np.nan, np.inf]), [1.0, None, None]),
        ({"a": float("nan")}, {"a": None}),
        ({np.int64(1): "x", 2.5: "y", None: "z", (1, 2): "t"}, {"1": "x", "2.5": "y", "null": "z", "(1, 2)": "t"}),
        (Frame(), [{"a": 1}]),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        ([NAType(), NaT(2026, 1, 1)], [None, None]),
        (datetime.timedelta(minutes=1), 60.0),
        ({3, 1, 2}, [1, 2, 3]),
        (b"\x00\xff", "AP8="),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), 1.5),
        (decimal.Decimal("2"), 2),
        (Colour.RED, "red"),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        ("naïve \ud800", "naïve ?"),
        (np.array(["a", "b"]), ["a", "b"]),
    ],
)
def test_values_have_a_json_form(value, expected):
    assert json.loads(dumps(value)) == expected


def test_a_value_without_a_form_is_the_users_error():
    with pytest.raises(UserCodeFailed, match="cannot be written as JSON") as caught:
        dumps({"a": object()})
    assert caught.value.status == 500
    loop: list = []
    loop.append(loop)
    with pytest.raises(UserCodeFailed):
        dumps(loop)


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"", "empty"), (b"{", "not JSON"), (b"\xff\xfe\xfd", "UTF-8"), (b"[" * 100_000, "nested too deeply")],
    ids=["empty", "broken", "not utf-8", "deep"],
)
def test_bad_input_is_400(body, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        loads(body)
    assert caught.value.status == 400
