"""Guessing of passwords, made slow: who signs in on the pages and who signs in to the admin panel is counted alike."""

import hashlib
from contextlib import suppress
from typing import Any

from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.core.cache import cache
from redis.exceptions import RedisError

FAILURES_ALLOWED = 10
FAILURE_WINDOW_SECONDS = 300
TOO_MANY = "Too many failed attempts for this email address. Wait five minutes and try again."


class CountedSignIn(AuthenticationForm):
    """A sign-in form that too many failures for one email address from one place close there for a while.

    An attempt is counted before its password is looked at, so that many at once get no further than one after another.
    """

    def clean(self) -> dict[str, Any]:
        email = str(self.cleaned_data.get("username", "")).lower()
        self.cleaned_data["username"] = email
        place = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        key = f"sign-in-failures:{hashlib.sha256(f'{email} {place}'.encode()).hexdigest()}"
        if _attempts(key) > FAILURES_ALLOWED:
            raise forms.ValidationError(TOO_MANY, code="too_many")
        cleaned = super().clean()
        with suppress(RedisError):
            cache.delete(key)
        return cleaned


class AdminSignIn(CountedSignIn, AdminAuthenticationForm):
    """That of the admin panel, which lets only the platform team in."""


def _attempts(key: str) -> int:
    """How many there were within the window, this one included."""
    try:
        cache.add(key, 0, FAILURE_WINDOW_SECONDS)
        return cache.incr(key)
    except (RedisError, ValueError):  # people can sign in while the cache is away; or the window has just ended
        return 0
