"""Sums over members that come, change and go, without adding all of them up again."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

_NONE = Decimal(0)


class Tally:
    """Sums by name of what each member counts for."""

    def __init__(self) -> None:
        self._members: dict[str, Mapping[str, Decimal]] = {}
        self._sums: dict[str, Decimal] = {}

    def of(self, name: str) -> Decimal:
        """The sum of one name over all members."""
        return self._sums.get(name, _NONE)

    def sums(self) -> dict[str, Decimal]:
        """All sums that are not zero."""
        return dict(self._sums)

    def put(self, member: str, amounts: Mapping[str, Decimal]) -> None:
        """Let a member count for `amounts` instead of what it counted for."""
        before = self._members.get(member)
        if before == amounts:
            return
        self.drop(member)
        self._members[member] = amounts
        for name, amount in amounts.items():
            self._add(name, amount)

    def drop(self, member: str) -> None:
        """Let a member count for nothing."""
        for name, amount in self._members.pop(member, {}).items():
            self._add(name, -amount)

    def _add(self, name: str, amount: Decimal) -> None:
        total = self._sums.get(name, _NONE) + amount
        if total:
            self._sums[name] = total
        else:
            self._sums.pop(name, None)
