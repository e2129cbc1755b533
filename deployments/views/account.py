"""Signing in and out, and a person's own account: password and tokens."""

import datetime as dt
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import access
from accounts.errors import ServiceError
from accounts.services import create_token, revoke_token
from accounts.sign_in import CountedSignIn
from deployments.views.gate import signed_in, user_of
from deployments.views.render import Crumb, add_errors, done, refused, respond


class SignInForm(CountedSignIn):
    """Email and password."""

    error_messages = {
        "invalid_login": "This email address and password do not belong together. Check both and try again.",
        "inactive": "This account is closed. Ask the platform team.",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "Email address"
        self.fields["username"].widget = forms.EmailInput(attrs={"autofocus": True, "autocomplete": "username"})
        self.fields["password"].widget.attrs["autocomplete"] = "current-password"


class SignIn(LoginView):
    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True
    extra_context = {"title": "Sign in"}


class SignOut(LogoutView):
    next_page = "sign-in"


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """To the one project a person has, else to the list of them."""
    if not request.user.is_authenticated:
        return redirect(resolve_url(settings.LOGIN_URL))
    projects = list(access.projects_of(request.user).values_list("name", flat=True)[:2])
    return redirect("deployments", projects[0]) if len(projects) == 1 else redirect("projects")


LIFETIMES = (("30", "30 days"), ("90", "90 days"), ("365", "One year"), ("", "No expiry"))


class PasswordForm(PasswordChangeForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # One form of several on its page: it must not take the focus.
        self.fields["old_password"].widget.attrs.pop("autofocus", None)


class TokenForm(forms.Form):
    name = forms.CharField(max_length=100, label="What is it for?", help_text="For example: notebook, nightly job.")
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, initial="90", label="Expires after")

    def expires_at(self) -> dt.datetime | None:
        days = self.cleaned_data["lifetime"]
        return timezone.now() + dt.timedelta(days=int(days)) if days else None


def _page(request: HttpRequest, status: int = 200, **extra: Any) -> HttpResponse:
    user = user_of(request)
    context = {
        "title": "Account",
        "section": "account",
        "crumbs": [Crumb("Account")],
        "tokens": user.tokens.all(),
        "token_form": TokenForm(),
        "password_form": PasswordForm(user),
        "now": timezone.now(),
        **extra,
    }
    return respond(request, "accounts/account.html", context, status=status)


@signed_in
@require_GET
def account(request: HttpRequest) -> HttpResponse:
    return _page(request)


@require_POST
@signed_in
def token_create(request: HttpRequest) -> HttpResponse:
    """Shows the new token this once, in the answer itself: it is kept nowhere it could be read again."""
    form = TokenForm(request.POST)
    if form.is_valid():
        try:
            _, secret = create_token(user_of(request), name=form.cleaned_data["name"], expires_at=form.expires_at())
            return _page(request, new_token=secret)
        except ServiceError as error:
            add_errors(form, error)
    return _page(request, 422, token_form=form)


@require_POST
@signed_in
def token_revoke(request: HttpRequest, token_id: str) -> HttpResponse:
    url = reverse("account")
    try:
        revoke_token(user_of(request), token_id)
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, "Token revoked. Whatever used it is refused from now on.")


@require_http_methods(["POST"])
@signed_in
def password_change(request: HttpRequest) -> HttpResponse:
    """Other sessions of the person end; this one stays."""
    form = PasswordForm(user_of(request), request.POST)
    if not form.is_valid():
        return _page(request, 422, password_form=form)
    update_session_auth_hash(request, form.save())
    return done(request, reverse("account"), "Password changed")
