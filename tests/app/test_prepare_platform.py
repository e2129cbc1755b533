"""The command that takes an empty database to the first sign-in."""

import pytest
from django.core.management import CommandError, call_command

from accounts import tokens
from accounts.models import Organization, User


@pytest.fixture
def admin_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_ADMIN_EMAIL", "Chief@example.com")
    monkeypatch.setenv("PILOTHOUSE_ADMIN_PASSWORD", "quite-a-long-password")
    monkeypatch.setenv("PILOTHOUSE_ADMIN_TOKEN", "ph_known-in-advance")


@pytest.mark.django_db
@pytest.mark.usefixtures("admin_settings")
def test_the_admin_signs_in_by_password_and_by_token_and_twice_changes_nothing() -> None:
    for _ in range(2):
        call_command("prepare_platform")
    admin = User.objects.get()
    assert admin.email == "chief@example.com"
    assert admin.is_staff
    assert admin.check_password("quite-a-long-password")
    assert tokens.authenticate("ph_known-in-advance")[0] == admin
    assert admin.tokens.count() == 1
    assert [membership.role for membership in Organization.objects.get().members.all()] == ["admin"]


@pytest.mark.django_db
@pytest.mark.usefixtures("admin_settings")
def test_a_new_password_in_the_environment_takes_the_place_of_the_old() -> None:
    call_command("prepare_platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOTHOUSE_ADMIN_PASSWORD", "another-long-password")
        call_command("prepare_platform")
    assert User.objects.get().check_password("another-long-password")


@pytest.mark.django_db
def test_a_missing_setting_is_named() -> None:
    with pytest.raises(CommandError, match="PILOTHOUSE_ADMIN_EMAIL is not set"):
        call_command("prepare_platform")
