"""Kubernetes quantities (`500m`, `1.5Gi`, `1e3`): exact values and canonical text.

Values are exact `Decimal`s in the base unit (cores, bytes, pieces).
Source of the rules: the Quantity type of the Kubernetes API reference.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache

_PATTERN = re.compile(r"^([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i|)$")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_NANO = Decimal("1e-9")
_MAX_LENGTH, _MAX_EXPONENT = 40, 30  # far beyond any machine, and short of numbers that take long to write
_WIDE = Context(prec=120)
INVALID = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def _split(text: str) -> tuple[Decimal, str]:
    match = _PATTERN.match(text) if len(text) <= _MAX_LENGTH else None
    if not match:
        raise ValueError(INVALID)
    number, suffix = match.groups()
    value = Decimal(number)
    if suffix in _BINARY:
        value = _WIDE.multiply(value, Decimal(1024 ** _BINARY[suffix]))
    elif suffix in _DECIMAL:
        value = value.scaleb(_DECIMAL[suffix], context=_WIDE)
    else:
        exponent = int(suffix[1:])
        if abs(exponent) > _MAX_EXPONENT:
            raise ValueError(INVALID)
        value = value.scaleb(exponent, context=_WIDE)
    # Finer than nano is rounded up, away from zero, as the API does.
    places = value.as_tuple().exponent
    if isinstance(places, int) and places < -9:
        rounded = abs(value).quantize(_NANO, rounding=ROUND_CEILING, context=_WIDE)
        value = rounded.copy_sign(value)
    return value, suffix


@lru_cache(4096)
def parse(text: str | int | float) -> Decimal:
    """The value in base units. ValueError for text that is no quantity."""
    return _split(str(text))[0]


def milli(text: str | int | float) -> int:
    """The value in thousandths, rounded up as Kubernetes does for CPU."""
    return int((parse(text) * 1000).to_integral_value(ROUND_CEILING))


def whole(text: str | int | float) -> int:
    """The value in whole units, rounded up."""
    return int(parse(text).to_integral_value(ROUND_CEILING))


@lru_cache(4096)
def canonical(text: str | int | float) -> str:
    """The text in which the API gives the quantity back: no fraction, the largest suffix that allows it."""
    value, suffix = _split(str(text))
    if value == 0:
        return "0"
    if suffix in _BINARY and abs(value) >= 1024 and value == value.to_integral_value():
        return _binary(int(value))
    if suffix in _BINARY and value == value.to_integral_value():
        return str(int(value))
    return _decimal(value, exponent=suffix[:1] in ("e", "E") and len(suffix) > 1)


def _binary(value: int) -> str:
    power = 0
    while power < 6 and value % 1024 == 0:
        value //= 1024
        power += 1
    return f"{value}{['', *_BINARY][power]}"


def _decimal(value: Decimal, *, exponent: bool = False) -> str:
    nanos = int(abs(value).scaleb(9, context=_WIDE).to_integral_value(ROUND_CEILING).copy_sign(value))
    power = -9
    while power < 18 and nanos % 1000 == 0:
        nanos //= 1000
        power += 3
    if exponent:
        return f"{nanos}e{power}" if power else str(nanos)
    names = {power: name for name, power in _DECIMAL.items()}
    return f"{nanos}{names[power]}"


def of(value: Decimal, like: str = "") -> str:
    """Canonical text of a number, in the notation (binary or decimal suffix) of the quantity `like`."""
    if like[-1:] == "i" and value == value.to_integral_value():
        return _binary(int(value)) if value else "0"
    return _decimal(value) if value else "0"


def format_decimal(value: Decimal | int) -> str:
    """Canonical decimal form: 0.25 is 250m, 2000 is 2k; finer than nano is rounded away from zero."""
    return of(Decimal(value))


def format_binary(value: Decimal | int) -> str:
    """Canonical binary form: 1610612736 is 1536Mi; values below 1024 and fractions take the decimal form."""
    value = Decimal(value)
    return of(value, "Ki" if abs(value) >= 1024 else "")
