"""API tokens: made once, shown once, kept as a digest."""

import datetime as dt
import hashlib
import secrets

from django.utils import timezone

from accounts.errors import Unauthenticated
from accounts.models import Token, User

PREFIX = "ph_"
_TOUCH_EVERY = dt.timedelta(minutes=1)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def issue(user: User, *, name: str = "", expires_at: dt.datetime | None = None) -> tuple[Token, str]:
    """A new token and its secret, which cannot be read again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token.objects.create(
        user=user, name=name, digest=digest(secret), hint=secret[: len(PREFIX) + 5], expires_at=expires_at
    )
    return token, secret


def authenticate(secret: str) -> tuple[User, Token]:
    """The user behind a secret. Raises Unauthenticated, which says whether the token is unknown or expired."""
    token = Token.objects.select_related("user").filter(digest=digest(secret)).first()
    if token is None or not token.user.is_active:
        raise Unauthenticated("The token is not valid; create a new one under Account > Tokens")
    now = timezone.now()
    if token.expires_at is not None and token.expires_at <= now:
        raise Unauthenticated(f"The token expired at {token.expires_at.isoformat()}; create or rotate it")
    if token.last_used_at is None or now - token.last_used_at > _TOUCH_EVERY:
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token.user, token
