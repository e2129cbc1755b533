"""Queries as the public client writes them, and as Grafana's users do."""

import pytest

from monitoring.logql import QueryError, parse

LABELS = {"deployment_name": "churn", "deployment_version": "v1", "instance_id": "7", "system": False}


@pytest.mark.parametrize(
    ("query", "selected"),
    [
        ("", True),
        ("| deployment_name=`churn` and deployment_version=`v1`", True),
        ("| deployment_name=`churn` and deployment_version=`v2`", False),
        ('{deployment_name="churn", deployment_version="v1"}', True),
        ('{deployment_name="churn", deployment_version!="v1"}', False),
        ('{deployment_name=~"ch.*"}', True),
        ('{deployment_name=~"ch"}', False),  # patterns on labels match the whole value
        ('{deployment_name!~"ch.*"}', False),
        ('| deployment_name="other" or instance_id="7"', True),
        ('| deployment_name="other" or instance_id="8"', False),
        ('| (deployment_name="other" or instance_id="7") and deployment_version="v1"', True),
        ('| deployment_name="other" and instance_id="7" or deployment_version="v1"', True),
        ('| deployment_name="churn" | instance_id="8"', False),
        ('{missing=""}', True),
        ('{system="False"}', True),
        ("{}", True),
    ],
)
def test_labels(query: str, selected: bool) -> None:
    assert parse(query).selects(LABELS) is selected


@pytest.mark.parametrize(
    ("query", "matched"),
    [
        ('|= "error"', True),
        ('!= "error"', False),
        ("|~ `time.?out`", True),
        ('!~ "time.?out"', False),
        ('|= "error" |~ "after \\\\d+ s"', True),
        ('{a="b"} |= "error" != "after"', False),
        ('|= "a \\"quoted\\" word"', True),
    ],
)
def test_lines(query: str, matched: bool) -> None:
    assert parse(query).matches('error: timeout after 5 s, a "quoted" word') is matched


@pytest.mark.parametrize(
    "query",
    ['{a="b"', "{a}", '| a="b" and', "error", "|= error", '|~ "("', '{a=~"["}', "| a > 5", "x" * 6000, "| " + "(" * 50],
)
def test_what_cannot_be_read_says_where(query: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert str(caught.value)


def test_a_pattern_that_explodes_elsewhere_does_not_here() -> None:
    assert not parse('|~ "(a+)+$"').matches("a" * 16_000 + "b")
