"""The part of LogQL that filters lines: a stream selector, label filters and line filters. Pure.

``{deployment_name="churn"} |= "error" !~ "time.?out" | deployment_version="v1" and instance_id=~"d-.*"``

Source: https://grafana.com/docs/loki/latest/query/log_queries/. Patterns are RE2, so none takes more than linear time.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2

LONGEST = 5000

Labels = Mapping[str, Any]
Test = Callable[[Labels], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:[^\"\\]|\\.)*\"|`[^`]*`)|(?P<op>\|=|\|~|!=|!~|=~|==|=|\{|\}|\(|\)|,|\|)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<end>$)|(?P<bad>.))",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class QueryError(ValueError):
    """The query cannot be read; the message says where and what is expected."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was read. ``selects`` looks at labels alone, ``matches`` at a line too.

    For stores that can look for themselves: every line that matches has all of ``needles`` in its text and the labels
    ``pinned``.
    """

    tests: tuple[Test, ...] = ()
    filters: tuple[Callable[[str], bool], ...] = ()
    needles: tuple[str, ...] = ()
    pinned: Mapping[str, str] = field(default_factory=dict)

    def selects(self, labels: Labels) -> bool:
        return all(test(labels) for test in self.tests)

    def matches(self, text: str) -> bool:
        return all(test(text) for test in self.filters)


@dataclass(slots=True)
class _Token:
    kind: str
    value: str
    at: int


def parse(text: str) -> Query:
    """Read a query; an empty one takes every line. Raises `QueryError`."""
    if len(text) > LONGEST:
        raise QueryError(f"The query is longer than {LONGEST} characters")
    return _Parser(_tokens(text)).query()


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while True:
        found = _TOKEN.match(text, position)
        assert found is not None
        kind = found.lastgroup or "bad"
        value = found[kind]
        if kind == "bad":
            raise QueryError(f"Unexpected {value!r} at position {found.start(kind)}")
        tokens.append(_Token(kind, _unquote(value) if kind == "text" else value, found.start(kind)))
        if kind == "end":
            return tokens
        position = found.end()


def _unquote(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.DOTALL)


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._position, self._depth = tokens, 0, 0

    def query(self) -> Query:
        tests: list[Test] = []
        filters: list[Callable[[str], bool]] = []
        needles: list[str] = []
        pinned: dict[str, str] = {}
        if self._accept("{"):
            while not self._accept("}"):
                tests.append(self._pinning(self._comparison, pinned))
                if not self._accept(","):
                    self._expect("}")
                    break
        while self._peek().kind != "end":
            token = self._next()
            if token.value in ("|=", "!=", "|~", "!~") and token.kind == "op":
                text = self._string()
                if token.value == "|=":
                    needles.append(text)
                filters.append(_line_test(token.value, text))
            elif token.value == "|" and token.kind == "op":
                tests.append(self._pinning(self._or, pinned))
            else:
                raise QueryError(
                    f"Unexpected {token.value!r} at position {token.at}; a label filter begins with |, "
                    "a line filter with |=, !=, |~ or !~"
                )
        return Query(tuple(tests), tuple(filters), tuple(needles), pinned)

    def _pinning(self, read: Callable[[], Test], pinned: dict[str, str]) -> Test:
        """What ``read`` reads; when that is one plain equality, the label is noted."""
        start = self._position
        test = read()
        if self._position - start == 3 and self._tokens[start + 1].value in ("=", "=="):
            pinned[self._tokens[start].value] = self._tokens[start + 2].value
        return test

    def _or(self) -> Test:
        left = self._and()
        while self._accept("or", "word"):
            left = _either(left, self._and())
        return left

    def _and(self) -> Test:
        left = self._one()
        while self._accept("and", "word") or self._accept(","):
            left = _both(left, self._one())
        return left

    def _one(self) -> Test:
        if self._accept("("):
            self._depth += 1
            if self._depth > 20:
                raise QueryError("The query nests more than 20 parentheses")
            inner = self._or()
            self._expect(")")
            self._depth -= 1
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        name = self._next()
        if name.kind != "word":
            raise QueryError(f"Expected a label's name at position {name.at}")
        operator = self._next()
        if operator.value not in ("=", "==", "!=", "=~", "!~"):
            raise QueryError(f"Expected =, !=, =~ or !~ after {name.value} at position {operator.at}")
        return _label_test(name.value, operator.value, self._string())

    def _string(self) -> str:
        token = self._next()
        if token.kind != "text":
            raise QueryError(f'Expected "text" or `text` at position {token.at}')
        return token.value

    def _peek(self) -> _Token:
        return self._tokens[self._position]

    def _next(self) -> _Token:
        token = self._peek()
        if token.kind != "end":
            self._position += 1
        return token

    def _accept(self, value: str, kind: str = "op") -> bool:
        token = self._peek()
        if token.kind == kind and token.value == value:
            self._position += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._accept(value):
            raise QueryError(f"Expected {value} at position {self._peek().at}")


def _pattern(text: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 22
    try:
        return re2.compile(text, options=options)
    except re2.error as error:
        message = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise QueryError(f"Bad pattern {text!r}: {message}") from None


def _label_test(name: str, operator: str, value: str) -> Test:
    if operator in ("=", "=="):
        return lambda labels: str(labels.get(name, "")) == value
    if operator == "!=":
        return lambda labels: str(labels.get(name, "")) != value
    pattern = _pattern(value)
    if operator == "=~":
        return lambda labels: pattern.fullmatch(str(labels.get(name, ""))) is not None
    return lambda labels: pattern.fullmatch(str(labels.get(name, ""))) is None


def _line_test(operator: str, value: str) -> Callable[[str], bool]:
    if operator == "|=":
        return lambda text: value in text
    if operator == "!=":
        return lambda text: value not in text
    pattern = _pattern(value)
    if operator == "|~":
        return lambda text: pattern.search(text) is not None
    return lambda text: pattern.search(text) is None


def _both(left: Test, right: Test) -> Test:
    return lambda labels: left(labels) and right(labels)


def _either(left: Test, right: Test) -> Test:
    return lambda labels: left(labels) or right(labels)
