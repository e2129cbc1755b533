"""Kubernetes resource quantities ("500m", "1.5Gi", "2e3"): exact parsing and the canonical form.

Source: k8s.io/apimachinery resource.Quantity. Values are exact `Decimal`s in the base unit (cores, bytes, pieces).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_PATTERN = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?$")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SMALLEST = Decimal("1e-9")


def parse(text: str | int | float) -> Decimal:
    """The value of a quantity; ValueError with the offending text when it is none."""
    value, _ = _split(text)
    return value


def milli(text: str | int | float) -> int:
    """The value in thousandths, rounded up as Kubernetes does for CPU."""
    return int((parse(text) * 1000).to_integral_value(ROUND_CEILING))


def whole(text: str | int | float) -> int:
    """The value in whole units, rounded up."""
    return int(parse(text).to_integral_value(ROUND_CEILING))


def canonical(text: str | int | float) -> str:
    """The form in which the API server gives a quantity back: 0.5 is 500m, 1.5Gi is 1536Mi, 1024Mi is 1Gi."""
    value, suffix = _split(text)
    if suffix in _BINARY:
        return format_binary(value)
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return _format(value, lambda power: f"e{power}" if power else "")
    return format_decimal(value)


def format_decimal(value: Decimal | int) -> str:
    """Canonical decimal form: 0.25 is 250m, 2000 is 2k."""
    names = {power: suffix for suffix, power in _DECIMAL.items()}
    return _format(Decimal(value), names.__getitem__)


def format_binary(value: Decimal | int) -> str:
    """Canonical binary form: 1610612736 is 1536Mi; values below 1024 or fractions fall back to decimal."""
    value = Decimal(value)
    if abs(value) < 1024 or value != value.to_integral_value():
        return format_decimal(value)
    number, power = int(value), 0
    while number % 1024 == 0 and power < 6:
        number //= 1024
        power += 1
    return f"{number}{('', *_BINARY)[power]}"


def _split(text: str | int | float) -> tuple[Decimal, str]:
    match = _PATTERN.match(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write a number with an optional suffix, as 500m or 2Gi")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * (1024 ** _BINARY[suffix]), suffix
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix]), suffix
    return number.scaleb(int(suffix[1:])), suffix


def _format(value: Decimal, suffix_of) -> str:
    if value == 0:
        return "0"
    # Finer than nano is rounded away from zero, as the reference implementation does.
    sign, digits = (-1, -value) if value < 0 else (1, value)
    nano = int((digits / _SMALLEST).to_integral_value(ROUND_CEILING))
    power = -9
    while nano % 1000 == 0 and power < 18:
        nano //= 1000
        power += 3
    return f"{sign * nano}{suffix_of(power)}"
