"""Reading fields of Kubernetes objects: quantities, times, conditions."""

from __future__ import annotations

import datetime
from typing import Any

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def quantity(text: str | float | int) -> float:
    """A Kubernetes quantity ("250m", "1Gi", "2e3") as a number; ValueError when it is none."""
    text = str(text).strip()
    for suffix, factor in _BINARY.items():
        if text.endswith(suffix):
            return float(text[:-2]) * factor
    if text and text[-1] in _DECIMAL and not text[-1].isdigit():
        return float(text[:-1]) * _DECIMAL[text[-1]]
    return float(text)


def mebibytes(number: float) -> str:
    """Bytes as people read them: "512 MiB", "1.5 GiB"."""
    mib = number / 2**20
    if mib >= 1024:
        return f"{mib / 1024:.3g} GiB"
    return f"{mib:.3g} MiB"


def time_of(text: str | None) -> datetime.datetime | None:
    """An RFC 3339 time of an object, aware and in UTC; None for none."""
    if not text:
        return None
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(datetime.UTC)


def condition(obj: dict[str, Any], kind: str) -> dict[str, Any]:
    """The condition of that type in the status of an object; empty when absent."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            found: dict[str, Any] = entry
            return found
    return {}


def labels_of(obj: dict[str, Any]) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}
