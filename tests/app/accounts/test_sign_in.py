"""Guessing a password: closed after some failures, wherever one signs in."""

import uuid
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client

from accounts.models import User
from accounts.sign_in import FAILURES_ALLOWED, TOO_MANY
from tests.app import factories

pytestmark = pytest.mark.django_db

PASSWORD = "a long enough secret"


@pytest.fixture(autouse=True)
def quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def signing_in(**fields: Any) -> User:
    """A person with a password, and an address of its own: failures are counted in Valkey, which outlives a test."""
    return factories.user(f"{uuid.uuid4().hex}@example.com", password=PASSWORD, **fields)


@pytest.mark.parametrize("page", ["/sign-in/", "/admin/login/"])
def test_guessing_ends_after_some_failures(page: str) -> None:
    person, other = signing_in(is_staff=True), signing_in(is_staff=True)
    client = Client()

    def attempt(email: str, password: str) -> tuple[int, str]:
        answer = client.post(page, {"username": email, "password": password})
        return answer.status_code, answer.content.decode()

    for _ in range(FAILURES_ALLOWED):
        status, text = attempt(person.email, "wrong")
        assert status == 200
        assert TOO_MANY not in text
    # The right password does not open it either, in whatever case the address is written.
    for email in (person.email, person.email.upper()):
        status, text = attempt(email, PASSWORD)
        assert status == 200
        assert TOO_MANY in text
    assert attempt(other.email, PASSWORD)[0] == 302


@pytest.mark.parametrize("page", ["/sign-in/", "/admin/login/"])
def test_signing_in_forgets_the_failures_before(page: str) -> None:
    person = signing_in(is_staff=True)
    for _ in range(2):
        for _ in range(FAILURES_ALLOWED - 1):
            assert Client().post(page, {"username": person.email, "password": "wrong"}).status_code == 200
        assert Client().post(page, {"username": person.email, "password": PASSWORD}).status_code == 302


def test_the_admin_panel_stays_closed_to_others() -> None:
    person = signing_in()
    answer = Client().post("/admin/login/", {"username": person.email, "password": PASSWORD})
    assert answer.status_code == 200
    assert not admin.site.has_permission(answer.wsgi_request)
