"""Label and field selectors of list, watch and delete-collection requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from localcluster.apiserver.status import bad_request

Labels = Mapping[str, str]
LabelTest = Callable[[Labels], bool]
FieldTest = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(r"\s*(==|!=|=|,|\(|\)|!|>|<|[^\s=!,()<>]+)")
_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
NAME_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
    "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match:
            raise bad_request(f"unable to parse requirement: unexpected text in {text!r}")
        tokens.append(match.group(1))
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def parse(self) -> list[LabelTest]:
        tests = []
        while self.peek():
            tests.append(self.requirement())
            if self.peek() and self.next() != ",":
                found = self.tokens[self.position - 1]
                raise bad_request(f"unable to parse requirement: found '{found}', expected: ',' or 'end of string'")
        return tests

    def key(self) -> str:
        key = self.next()
        name = key.rsplit("/", 1)[-1]
        if not _NAME.match(name):
            raise bad_request(f'unable to parse requirement: <nil>: Invalid value: "{key}": {NAME_RULE}')
        return key

    def value(self) -> str:
        if self.peek() in ("", ","):
            return ""
        value = self.next()
        if len(value) > 63 or not _NAME.match(value):
            raise bad_request(
                f'unable to parse requirement: values[0][{value}]: Invalid value: "{value}": {VALUE_RULE}'
            )
        return value

    def requirement(self) -> LabelTest:
        if self.peek() == "!":
            self.next()
            key = self.key()
            return lambda labels: key not in labels
        key = self.key()
        operator = self.peek()
        if operator in ("", ","):
            return lambda labels: key in labels
        self.next()
        if operator in ("=", "=="):
            value = self.value()
            return lambda labels: labels.get(key) == value
        if operator == "!=":
            value = self.value()
            return lambda labels: labels.get(key) != value
        if operator in ("in", "notin"):
            values = self.values()
            if operator == "in":
                return lambda labels: labels.get(key) in values
            return lambda labels: labels.get(key) not in values
        if operator in (">", "<"):
            return _compare(key, operator, self.value())
        raise bad_request(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def values(self) -> frozenset[str]:
        if self.peek() != "(":
            raise bad_request(f"unable to parse requirement: found '{self.peek()}' expected: '('")
        self.next()
        values = []
        while self.peek() not in ("", ")"):
            if self.peek() == ",":
                self.next()
                continue
            values.append(self.next())
        if self.next() != ")":
            raise bad_request("unable to parse requirement: found '', expected: ',' or ')'")
        return frozenset(values)


def _compare(key: str, operator: str, bound: str) -> LabelTest:
    try:
        limit = int(bound)
    except ValueError:
        raise bad_request(
            f'unable to parse requirement: values[0][{key}]: Invalid value: "{bound}": '
            "for 'Gt', 'Lt' operators, the value must be an integer"
        ) from None

    def test(labels: Labels) -> bool:
        try:
            value = int(labels.get(key, ""))
        except ValueError:
            return False
        return value > limit if operator == ">" else value < limit

    return test


def labels(text: str) -> LabelTest | None:
    """The test that a label selector stands for; None for the empty one. StatusError 400 when malformed."""
    tests = _Parser(text).parse() if text.strip() else []
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda found: all(test(found) for test in tests)


def fields(text: str, supported: frozenset[str]) -> list[tuple[str, bool, str]]:
    """(path, equal?, value) terms of a field selector. StatusError 400 for syntax and unsupported paths."""
    terms = []
    for term in text.split(","):
        if not term:
            continue
        match = re.match(r"^([^=!]+)(==|!=|=)(.*)$", term)
        if not match:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = match.groups()
        if path not in supported:
            raise bad_request(f"field label not supported: {path}")
        terms.append((path, operator != "!=", value))
    return terms


def matches_selector(selector: dict[str, Any] | None, found: Labels) -> bool:
    """Whether labels satisfy a LabelSelector object (matchLabels and matchExpressions); None selects nothing."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if found.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or []:
        key, operator, values = term["key"], term["operator"], term.get("values") or []
        match operator:
            case "In":
                good = found.get(key) in values
            case "NotIn":
                good = found.get(key) not in values
            case "Exists":
                good = key in found
            case _:
                good = key not in found
        if not good:
            return False
    return True
