"""How REST requests are authenticated: `Authorization: Token ...` (or Bearer), or the browser's session."""

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from accounts import tokens
from accounts.errors import Unauthenticated
from accounts.models import Token, User

SCHEMES = ("token", "bearer")


def secret_of(header: str) -> str | None:
    """The secret in an Authorization header; None when there is none of our schemes."""
    scheme, _, secret = header.strip().partition(" ")
    return secret.strip() if scheme.lower() in SCHEMES and secret.strip() else None


class TokenAuthentication(authentication.BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        secret = secret_of(request.META.get("HTTP_AUTHORIZATION", ""))
        if secret is None:
            return None
        try:
            return tokens.authenticate(secret)
        except Unauthenticated as error:
            raise exceptions.AuthenticationFailed(error.message) from None

    def authenticate_header(self, request: Request) -> str:
        return "Token"


class SessionAuthentication(authentication.SessionAuthentication):
    """Django's session with its CSRF check, for the pages' own scripts."""


def user_of(request: HttpRequest) -> User | AnonymousUser:
    """The user of a plain Django request: by token if one is sent, else by session. Raises Unauthenticated."""
    secret = secret_of(request.META.get("HTTP_AUTHORIZATION", ""))
    user: Any = tokens.authenticate(secret)[0] if secret is not None else request.user
    return user
