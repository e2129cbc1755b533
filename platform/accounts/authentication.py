"""How REST requests are authenticated: `Authorization: Token ...` (or Bearer), or the browser's session."""

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, parse_cookie
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


def is_signed_in(headers: dict[bytes, bytes]) -> bool:
    """Whether a user sends a request, by its headers alone (ASGI's): for what must not wait for its body."""
    secret = secret_of(headers.get(b"authorization", b"").decode("latin-1"))
    if secret is not None:
        try:
            tokens.authenticate(secret)
        except Unauthenticated:
            return False
        return True
    request = HttpRequest()
    cookies = parse_cookie(headers.get(b"cookie", b"").decode("latin-1"))
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(cookies.get(settings.SESSION_COOKIE_NAME))
    return get_user(request).is_authenticated
