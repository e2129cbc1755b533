"""Generated names."""

from __future__ import annotations

import random

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels and no digits that could be read as some
_RANDOM = random.SystemRandom()


def suffix() -> str:
    """Five letters that tell apart what is otherwise named alike."""
    return "".join(_RANDOM.choices(_LETTERS, k=5))
