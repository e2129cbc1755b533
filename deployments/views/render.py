"""Answers of the pages: the whole page or one fragment of it, redirects with a toast, forms with errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

from accounts.errors import Forbidden, Invalid, NotFound, ServiceError


@dataclass(frozen=True)
class Crumb:
    """One step of the way to a page; the last has no address."""

    label: str
    url: str = ""


def respond(
    request: HttpRequest, template: str, context: Mapping[str, Any], *, partial: str | None = None, status: int = 200
) -> HttpResponse:
    """The page, or only ``partial`` when htmx asks for it. The browser must not mix the two in its cache."""
    fragment = partial is not None and bool(request.headers.get("HX-Request"))
    if request.headers.get("HX-History-Restore-Request"):
        fragment = False
    response = render(request, partial if fragment and partial else template, dict(context), status=status)
    patch_vary_headers(response, ["HX-Request"])
    response.headers["Cache-Control"] = "no-store"
    return response


def done(request: HttpRequest, url: str, message: str = "") -> HttpResponse:
    """After a change: to ``url`` with a toast. Scripts that sent the form get the address as JSON."""
    if message:
        messages.success(request, message)
    if wants_json(request):
        return JsonResponse({"redirect": url})
    return HttpResponseRedirect(url)


def refused(request: HttpRequest, url: str, error: ServiceError) -> HttpResponse:
    """After a refused change that has no form to show it in: back to ``url`` with the reason as a toast."""
    messages.error(request, error.message)
    return HttpResponseRedirect(url)


def wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").startswith("application/json")


def form_errors(form: forms.Form) -> JsonResponse:
    """A refused form for the script that sent it: ``{"errors": {field: [sentence]}}``, "" for the form as a whole."""
    errors = {name if name != NON_FIELD_ERRORS else "": texts for name, texts in form.errors.items()}
    return JsonResponse({"errors": errors}, status=422)


def add_errors(form: forms.Form, error: ServiceError) -> None:
    """Puts a service's refusal beside the fields it names; what has no field of its own goes on top."""
    if not isinstance(error, Invalid) or not error.fields:
        form.add_error(None, error.message)
        return
    for name, text in error.fields.items():
        if name in form.fields:
            form.add_error(name, text)
        else:
            form.add_error(None, f"{name}: {text}")


ERRORS = {
    404: ("Page not found", "It may have been deleted or renamed, or your account cannot see it."),
    403: ("Your role does not allow this", ""),
}


def error_page(request: HttpRequest, error: ServiceError) -> HttpResponse:
    """A refusal as a page. For 404 nothing tells a missing thing from a hidden one."""
    if wants_json(request):
        return JsonResponse({"errors": {"": [error.message]}}, status=error.status)
    if isinstance(error, NotFound):
        title, text = ERRORS[404]
        template = "404.html"
    elif isinstance(error, Forbidden):
        title, text = ERRORS[403][0], error.message
        template = "403.html"
    else:
        title, text = "That did not work", error.message
        template = "error.html"
    return render(request, template, {"title": title, "text": text}, status=error.status)
