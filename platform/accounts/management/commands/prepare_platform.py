"""``manage.py prepare_platform``: everything between an empty database and the first sign-in. Idempotent."""

import os
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts import services, tokens
from accounts.models import Organization, Token, User

FIRST_ORGANIZATION = "demo"
TOKEN_NAME = "local tools"  # noqa: S105 the token's name, not the token


class Command(BaseCommand):
    help = (
        "Migrates the database, collects static files and makes the first admin with the e-mail address, password "
        "and API token from PILOTHOUSE_ADMIN_EMAIL, PILOTHOUSE_ADMIN_PASSWORD and PILOTHOUSE_ADMIN_TOKEN."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        email, password = _required("PILOTHOUSE_ADMIN_EMAIL"), _required("PILOTHOUSE_ADMIN_PASSWORD")
        secret = os.environ.get("PILOTHOUSE_ADMIN_TOKEN")
        call_command("migrate", interactive=False, verbosity=0)
        if not settings.DEBUG:
            call_command("collectstatic", interactive=False, verbosity=0)
        with transaction.atomic():
            admin = _admin(email, password)
            if secret:
                _token(admin, secret)
            if not Organization.objects.exists():
                services.create_organization(admin, name=FIRST_ORGANIZATION)


def _required(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise CommandError(f"{variable} is not set; set it in the environment")
    return value


def _admin(email: str, password: str) -> User:
    """The account with this address, able to sign in with this password whatever it was before."""
    admin = User.objects.filter(email=email.lower()).first()
    if admin is None:
        return services.create_user(
            None, email=email, password=password, name="Admin", is_staff=True, is_superuser=True
        )
    if not admin.check_password(password):
        admin.set_password(password)
        admin.save(update_fields=["password"])
    return admin


def _token(admin: User, secret: str) -> None:
    """A token known in advance, so that tools can be told it before there is a database."""
    Token.objects.get_or_create(
        digest=tokens.digest(secret),
        defaults={"user": admin, "name": TOKEN_NAME, "hint": secret[: len(tokens.PREFIX) + 5]},
    )
