"""Typed reading of settings from the environment: a wrong value stops the start with its name and the remedy."""

import os
from collections.abc import Mapping

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


class Env:
    """Reads from ``source`` (the process environment unless told)."""

    def __init__(self, source: Mapping[str, str] | None = None) -> None:
        self._source = os.environ if source is None else source

    def text(self, name: str, default: str | None = None) -> str:
        value = self._source.get(name, "")
        if value:
            return value
        if default is None:
            raise ImproperlyConfigured(f"{name} is not set; set it in the environment")
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._source.get(name)
        if value is None:
            return default
        if value.lower() in TRUE:
            return True
        if value.lower() in FALSE:
            return False
        raise ImproperlyConfigured(f"{name}={value!r} is neither true nor false; use 1 or 0")

    def number(self, name: str, default: int, *, at_least: int = 0) -> int:
        value = self._source.get(name, "")
        if not value:
            return default
        try:
            number = int(value)
        except ValueError:
            raise ImproperlyConfigured(f"{name}={value!r} is not a whole number") from None
        if number < at_least:
            raise ImproperlyConfigured(f"{name}={number} is below {at_least}")
        return number

    def words(self, name: str, default: str = "") -> list[str]:
        return [word.strip() for word in self._source.get(name, default).split(",") if word.strip()]
